"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax

    from yolov7_jax.datasets.writers import Written
    from yolov7_jax.inference.detector import Detector

from yolov7_jax.config import LossConfig, Options
from yolov7_jax.errors import InputError
from yolov7_jax.prefetch import ProgressBar, no_progress

DATA = (
    "data YAML of yolov5/yolov7 or one that joins data sets, COCO JSON or folder, Pascal VOC folder, or FORMAT:PLACE "
    "such as tfds:NAME"
)
"""What labeled images are named by."""


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The weights file, and the architecture where the file does not name it."""
    parser.add_argument("weights", type=Path, help="a .pt of yolov5 or yolov7, a .safetensors, or a run's folder")
    parser.add_argument("--model", help="zoo name or model YAML, for weights that do not describe their network")


def add_image_dir(parser: argparse.ArgumentParser) -> None:
    """Where the images of a COCO JSON are."""
    parser.add_argument(
        "--image-dir", dest="images", type=Path, help="folder with the images of a COCO JSON (default: beside it)"
    )


def add_labeled(parser: argparse.ArgumentParser) -> None:
    """Labeled images, and the network whose anchors are to fit their boxes."""
    parser.add_argument("data", help=DATA)
    parser.add_argument("--split", default="train", help="of a data YAML or VOC folder (default train)")
    add_image_dir(parser)
    parser.add_argument(
        "--model", default="yolov7-tiny", help="zoo name, model YAML, weights or run's folder (default yolov7-tiny)"
    )
    parser.add_argument(
        "--size", type=int, help="longer side of images in pixels (default 640, or 1280 with stride 64)"
    )
    parser.add_argument(
        "--anchor-t",
        type=float,
        default=LossConfig.anchor_t,
        help=f"how many times larger or smaller than an anchor a box may be (default {LossConfig.anchor_t:g})",
    )


def tell_left_out(issues: Sequence[str]) -> None:
    """Says how much of labeled images was left out, if anything, on standard error."""
    if issues:
        print(f"{len(issues)} objects or images with errors were left out; the first: {issues[0]}", file=sys.stderr)


def add_data_sets(parser: argparse.ArgumentParser) -> None:
    """A data set, all splits of it or some."""
    parser.add_argument("data", metavar="DATA", help=DATA)
    parser.add_argument("--split", action="append", help="one of its splits; may be given again (default: all)")
    add_image_dir(parser)


def add_new_data(parser: argparse.ArgumentParser, option: str = "output", text: str = "new folder") -> None:
    """The folder of a new data set, and how images come into it."""
    parser.add_argument(option, metavar="OUT", type=Path, help=text)
    parser.add_argument("--copy", action="store_true", help="copy images even where hard links can be had")


def add_detector(parser: argparse.ArgumentParser, defaults: Options) -> None:
    """How the detector computes."""

    def add(flag: str, kind: type, text: str) -> None:
        default = getattr(defaults, flag.lstrip("-").replace("-", "_"))
        parser.add_argument(flag, type=kind, default=default, help=f"{text} (default {default})")

    parser.add_argument("--size", type=int, help="longer side of the network's input in pixels (default: the weights')")
    add("--confidence", float, "score threshold")
    add("--iou", float, "threshold of NMS")
    add("--max-detections", int, "of an image")
    parser.add_argument(
        "--batch-size",
        "--batch",
        type=int,
        default=defaults.batch_size,
        help=f"images the device takes at once (default {defaults.batch_size})",
    )
    add("--workers", int, "threads that read images")
    parser.add_argument(
        "--rect",
        action=argparse.BooleanOptionalAction,
        default=defaults.rect,
        help="pad images to rectangles: less work, one compilation a shape; --no-rect: to squares, one compilation "
        f"(default {'--rect' if defaults.rect else '--no-rect'})",
    )
    parser.add_argument(
        "--few-shapes",
        action=argparse.BooleanOptionalAction,
        default=defaults.few_shapes,
        help="with --rect: pad to one of five rectangles; --no-few-shapes: to the next multiple of the stride, as the "
        f"references do (default {'--few-shapes' if defaults.few_shapes else '--no-few-shapes'})",
    )
    parser.add_argument("--augment", action="store_true", help="test-time augmentation: three passes over each image")
    parser.add_argument("--tiles", type=int, metavar="PX", help="cut large images into tiles of so many pixels")
    add("--overlap", float, "of neighboring tiles, in parts of a tile")
    parser.add_argument(
        "--merge",
        choices=("ios", "iou"),
        default=defaults.merge,
        help=f"boxes of tiles yield by intersection over the smaller or over the union (default {defaults.merge})",
    )
    parser.add_argument(
        "--ensemble",
        action="append",
        default=[],
        type=Path,
        metavar="WEIGHTS",
        help="weights of another network, whose predictions are joined before NMS; may be given again",
    )
    parser.add_argument(
        "--resize",
        choices=("linear", "area"),
        default=defaults.resize,
        help=f"as the references detect (linear) or evaluate (area) (default {defaults.resize})",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the computation"
    )
    parser.add_argument(
        "--half", action="store_const", dest="dtype", const="float16", help="the same as --dtype float16"
    )
    parser.add_argument(
        "--device", metavar="KIND[:N[,N...]]", help="cpu, gpu or tpu, or some of them: gpu:0,1 (default: all JAX has)"
    )


def add_processes(parser: argparse.ArgumentParser, text: str) -> None:
    """Where this process stands among several that share the work."""
    several = parser.add_argument_group("several processes", text)
    several.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where all meet")
    several.add_argument("--processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process-id", type=int, metavar="I", help="number of this one, from 0")
    several.add_argument(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="find the others where Slurm started several (auto, the default), in any cluster that JAX knows, or never",
    )


def join(parsed: argparse.Namespace) -> None:
    """Joins the other processes of what `add_processes` parsed, before anything has touched a device."""
    from yolov7_jax.training.cluster import Address, connect

    given = (parsed.coordinator, parsed.processes, parsed.process_id)
    if None in given and given != (None, None, None):
        raise InputError("--coordinator, --processes and --process-id belong together; give all three")
    connect(None if None in given else Address(*given), parsed.distributed)


def looking_on() -> tuple[Callable[[str], None], ProgressBar]:
    """What reports, and what shows how far work is: on the console of the first of several processes."""
    from yolov7_jax.cli.console import Display
    from yolov7_jax.training.hosts import is_first

    display = Display()
    return (display.log, display.progress) if is_first() else (lambda _: None, no_progress)


def new_data_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """What `add_data_sets` and `add_new_data` parsed, but the data and the folder, as functions that write call it."""
    return {"image_folder": parsed.images, "link": not parsed.copy}


def tell_written(written: Written) -> None:
    """Says what of a data set is not as it was, and where the new one is."""
    print("\n".join([*written.sentences, f"see {written.data}"]))


def load_detector(parsed: argparse.Namespace, report: Callable[[str], None]) -> Detector:
    """The detector of what `add_weights` and `add_detector` parsed, on the devices of this host."""
    from yolov7_jax.inference.detector import Detector

    return Detector.load(
        [parsed.weights, *parsed.ensemble],
        model=parsed.model,
        size=parsed.size,
        dtype=parsed.dtype,
        report=report,
        devices=_devices(parsed.device),
    )


def _devices(text: str | None) -> Sequence[jax.Device]:
    """This host's devices that a text such as "gpu" or "gpu:0,1" names; all of JAX's default kind if None."""
    import jax

    if text is None:
        return jax.local_devices()
    kind, _, numbers = text.partition(":")
    try:
        found = jax.local_devices(backend=kind.lower())
    except RuntimeError as error:
        there = ", ".join(sorted({device.platform for device in jax.local_devices()}))
        raise InputError(
            f"--device {text}: JAX finds no {kind!r} here, but {there}; see README for installing"
        ) from error
    wanted = numbers.split(",") if numbers else [str(number) for number in range(len(found))]
    for number in wanted:
        if not number.isdecimal() or int(number) >= len(found):
            raise InputError(f"--device {text}: {number!r} is no number from 0 to {len(found) - 1}")
    return [found[int(number)] for number in wanted]


def detector_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Options` that the command has arguments for."""
    return {field.name: getattr(parsed, field.name) for field in fields(Options) if hasattr(parsed, field.name)}


def labeled_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """What `add_labeled` parsed, but the data, as the functions of `experiment` call it."""
    keys = ("split", "model", "size", "anchor_t")
    return {key: getattr(parsed, key) for key in keys} | {"image_folder": parsed.images}

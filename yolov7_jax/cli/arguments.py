"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolov7_jax.datasets.writers import Written

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
        "--anchor-t", type=float, default=4.0, help="how many times larger or smaller a box may be (default 4)"
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


def add_detector(
    parser: argparse.ArgumentParser, *, confidence: float, iou: float, batch_size: int, rect: bool
) -> None:
    """How the detector computes."""
    parser.add_argument("--size", type=int, help="longer side of the network's input in pixels (default: the weights')")
    parser.add_argument("--confidence", type=float, default=confidence, help=f"score threshold (default {confidence})")
    parser.add_argument("--iou", type=float, default=iou, help=f"threshold of NMS (default {iou})")
    parser.add_argument("--max-detections", type=int, default=300, help="of an image (default 300)")
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help=f"images the device takes at once (default {batch_size})"
    )
    parser.add_argument(
        "--rect",
        action=argparse.BooleanOptionalAction,
        default=rect,
        help="pad images to rectangles: less work, one compilation a shape; --no-rect: to squares, one compilation "
        f"(default {'--rect' if rect else '--no-rect'})",
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that read images (default 2)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")


def new_data_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """What `add_data_sets` and `add_new_data` parsed, but the data and the folder, as functions that write call it."""
    return {"image_folder": parsed.images, "link": not parsed.copy}


def tell_written(written: Written) -> None:
    """Says what of a data set is not as it was, and where the new one is."""
    print("\n".join([*written.sentences, f"see {written.data}"]))


def detector_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Options` that `add_detector` parsed."""
    keys = ("confidence", "iou", "max_detections", "batch_size", "workers", "rect")
    return {key: getattr(parsed, key) for key in keys}


def labeled_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """What `add_labeled` parsed, but the data, as the functions of `experiment` call it."""
    keys = ("split", "model", "size", "anchor_t")
    return {key: getattr(parsed, key) for key in keys} | {"image_folder": parsed.images}

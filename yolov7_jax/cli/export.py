"""`yolov7-jax export WEIGHTS --format FORMAT`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from yolov7_jax.cli.arguments import add_weights

FORMATS = ("stablehlo", "onnx", "openvino")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument("--format", choices=FORMATS, help="of the artefact; by default that of --output's suffix")
    parser.add_argument("--output", type=Path, help="file (default: beside the weights, with the format's suffix)")
    parser.add_argument("--size", type=_size, help="of images in pixels: 640, or height and width: 480,640")
    parser.add_argument("--any-size", action="store_true", help="images of any size (stablehlo)")
    parser.add_argument("--dtype", default="float32", help="of the computation (default float32)")
    parser.add_argument(
        "--proof-images",
        type=Path,
        metavar="DIR",
        help="photographs in which the network finds something, for the comparison with its source (default: three "
        "that come with the package)",
    )


def _size(text: str) -> int | tuple[int, int]:
    sides = [int(side) if side.isdecimal() else 0 for side in text.split(",")]
    if not 1 <= len(sides) <= 2 or 0 in sides:
        raise argparse.ArgumentTypeError(f"expected 640, or height and width as 480,640, got {text!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def run(parsed: argparse.Namespace) -> int:
    """Exports, and says what was measured; 1 where the artefact does not find what its source finds."""
    from yolov7_jax.artefacts.formats import SUFFIXES
    from yolov7_jax.errors import DifferenceError, InputError
    from yolov7_jax.experiment.exporting import PHOTOGRAPHS, export

    if parsed.format is None and parsed.output is None:
        raise InputError(f"name the format (--format {FORMATS[0]}), or a file with its suffix (--output)")
    weights = Path(parsed.weights)
    file = parsed.output or weights.with_name(weights.stem + SUFFIXES[parsed.format])
    if parsed.format is not None and not str(file).endswith(SUFFIXES[parsed.format]):
        raise InputError(f"--output {file}: a file of this format ends in {SUFFIXES[parsed.format]}")
    try:
        done = export(
            weights,
            file,
            model=parsed.model,
            size=parsed.size,
            any_size=parsed.any_size,
            dtype=parsed.dtype,
            proof_images=parsed.proof_images or PHOTOGRAPHS,
            report=partial(print, file=sys.stderr),
        )
    except DifferenceError as error:
        print(f"yolov7-jax: {error}", file=sys.stderr)
        return 1
    found = done.facts.differences
    print(
        f"the same {found['detections']} detections in {found['photographs']} photographs; largest difference of "
        f"scores {found['scores']:.2g}, of boxes {found['boxes_px']:.2g} px, before suppression "
        f"{found['all_boxes_px']:.2g} px"
    )
    print(f"wrote {done.file} ({done.file.stat().st_size / 1e6:.1f} MB)")
    return 0

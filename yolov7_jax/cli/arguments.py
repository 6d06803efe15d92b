"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The weights file, and the architecture where the file does not name it."""
    parser.add_argument("weights", type=Path, help="a .pt of yolov5 or yolov7, a .safetensors, or a run's folder")
    parser.add_argument("--model", help="zoo name or model YAML, for weights that do not describe their network")


def add_detector(parser: argparse.ArgumentParser, *, confidence: float, iou: float, batch_size: int) -> None:
    """How the detector computes."""
    parser.add_argument("--size", type=int, help="longer side of the network's input in pixels (default: the weights')")
    parser.add_argument("--confidence", type=float, default=confidence, help=f"score threshold (default {confidence})")
    parser.add_argument("--iou", type=float, default=iou, help=f"overlap of two boxes that removes one (default {iou})")
    parser.add_argument("--max-detections", type=int, default=300, help="of an image (default 300)")
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help=f"images the device takes at once (default {batch_size})"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads that read images (default 2)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")


def detector_options(parsed: argparse.Namespace) -> dict[str, Any]:
    """The fields of `Options` that `add_detector` parsed."""
    keys = ("confidence", "iou", "max_detections", "batch_size", "workers")
    return {key: getattr(parsed, key) for key in keys}

"""`yolov7-jax detect WEIGHTS SOURCE...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from yolov7_jax.cli.arguments import (
    add_detector,
    add_processes,
    add_weights,
    detector_options,
    join,
    load_detector,
    looking_on,
)
from yolov7_jax.config import Options

if TYPE_CHECKING:
    from yolov7_jax.experiment import DetectionRun


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders, globs, or .txt lists of them")
    parser.add_argument("--output", type=Path, default=Path("runs/detect"), help="folder (default runs/detect)")
    add_detector(parser, Options())
    parser.add_argument(
        "--classes",
        type=_class_list,
        action="extend",
        metavar="CLASS[,CLASS...]",
        help="names or numbers of the classes wanted, with commas between them: person,dog or 0,16 or "
        "'traffic light,dog'; may be given again",
    )
    parser.add_argument("--agnostic", action="store_true", help="non-maximum suppression across classes")
    parser.add_argument("--no-images", action="store_true", help="write no images with boxes")
    add_processes(parser, "the images shared by many devices or hosts, which share the folder too")


def _class_list(text: str) -> list[str]:
    classes = [part.strip() for part in text.split(",")]
    if not all(classes):
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, got {text!r}")
    return classes


def run(parsed: argparse.Namespace) -> int:
    """Detects; status 1 where images could not be read."""
    from yolov7_jax.experiment import detect
    from yolov7_jax.inference.image_paths import find_images
    from yolov7_jax.training.hosts import all_or_none, is_first

    join(parsed)
    report, progress = looking_on()
    with all_or_none():
        images = find_images(parsed.sources)
        options = Options(**detector_options(parsed))
        detector = load_detector(parsed, report)
    drawn = not parsed.no_images
    done = detect(detector, images, parsed.output, options=options, draw=drawn, progress=progress, shared=True)
    if is_first():
        _show(done)
    return 1 if done.failures else 0


def _show(done: DetectionRun) -> None:
    for reason in done.failures.values():
        print(f"skipped: {reason}", file=sys.stderr)
    if done.overflow:
        print(f"{done.overflow} candidates were left out: raise --confidence", file=sys.stderr)
    found = sum(done.counts.values())
    print(f"{found} objects in {len(done.counts)} images; see {done.folder}")

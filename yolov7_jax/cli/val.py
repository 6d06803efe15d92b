"""`yolov7-jax val WEIGHTS --data DATA`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from yolov7_jax.cli.arguments import (
    DATA,
    add_detector,
    add_image_dir,
    add_processes,
    add_weights,
    detector_options,
    join,
    load_detector,
    looking_on,
)
from yolov7_jax.config import EVALUATION

if TYPE_CHECKING:
    from yolov7_jax.experiment import ValidationRun


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument("--data", required=True, help=DATA)
    parser.add_argument("--split", default="val", help="of a data YAML: train, val or test (default val)")
    add_image_dir(parser)
    parser.add_argument(
        "--single-class",
        action="store_true",
        help="all classes count as one, those of the data and those of the weights; NMS is across classes",
    )
    parser.add_argument("--output", type=Path, default=Path("runs/val"), help="folder (default runs/val)")
    add_detector(parser, EVALUATION)
    add_processes(parser, "the images shared by many devices or hosts")


def run(parsed: argparse.Namespace) -> int:
    """Evaluates and prints the table of classes, all numbers and the speed; 1 where an image cannot be read."""
    from yolov7_jax.datasets import open_source
    from yolov7_jax.experiment import validate
    from yolov7_jax.experiment.validation import known_by_name
    from yolov7_jax.training.hosts import all_or_none, is_first

    join(parsed)
    report, progress = looking_on()
    with all_or_none():
        source = open_source(parsed.data, parsed.split, image_folder=parsed.images)
        options = replace(EVALUATION, **detector_options(parsed))
        detector = load_detector(parsed, report)
    if is_first() and not parsed.single_class and not known_by_name(source, detector.names):
        print("class names of weights and data differ; classes are taken by their number", file=sys.stderr)
    done = validate(
        detector,
        source,
        options=options,
        folder=parsed.output,
        progress=progress,
        shared=True,
        single_class=parsed.single_class,
    )
    if is_first():
        _show(done)
    return 1 if done.failures else 0


def _show(done: ValidationRun) -> None:
    from rich.console import Console

    from yolov7_jax.cli.console import class_table

    Console().print(class_table(done.result))
    print("\n" + "  ".join(f"{name} {value:.4f}" for name, value in done.result.numbers().items()))
    print("ms an image: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in done.speed_ms.items()))
    if done.overflow:
        print(f"{done.overflow} candidates were left out: raise --confidence", file=sys.stderr)
    for failure in done.failures.values():
        print(f"counted as an image without detections: {failure}", file=sys.stderr)
    print(f"see {done.folder}")

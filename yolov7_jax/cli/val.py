"""`yolov7-jax val WEIGHTS --data DATA`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from yolov7_jax.cli.arguments import DATA, add_detector, add_image_dir, add_weights, detector_options, load_detector
from yolov7_jax.config import EVALUATION


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_weights(parser)
    parser.add_argument("--data", required=True, help=DATA)
    parser.add_argument("--split", default="val", help="of a data YAML: train, val or test (default val)")
    add_image_dir(parser)
    parser.add_argument("--output", type=Path, default=Path("runs/val"), help="folder (default runs/val)")
    add_detector(parser, EVALUATION)


def run(parsed: argparse.Namespace) -> int:
    """Evaluates and prints the table of classes, the twelve numbers and the speed; 1 where an image cannot be read."""
    from rich.console import Console

    from yolov7_jax.cli.console import Display, class_table
    from yolov7_jax.datasets import open_source
    from yolov7_jax.experiment import validate
    from yolov7_jax.experiment.inference import known_by_name

    source = open_source(parsed.data, parsed.split, image_folder=parsed.images)
    display = Display()
    options = replace(EVALUATION, **detector_options(parsed))
    detector = load_detector(parsed, display.log)
    if not known_by_name(source, detector.names):
        print("class names of weights and data differ; classes are taken by their number", file=sys.stderr)
    done = validate(detector, source, options=options, folder=parsed.output, progress=display.progress)
    Console().print(class_table(done.result))
    print("\n" + "  ".join(f"{name} {value:.4f}" for name, value in done.result.numbers().items()))
    print("ms an image: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in done.speed_ms.items()))
    if done.overflow:
        print(f"{done.overflow} candidates were left out: raise --confidence", file=sys.stderr)
    for failure in done.failures.values():
        print(f"counted as an image without detections: {failure}", file=sys.stderr)
    print(f"see {done.folder}")
    return 1 if done.failures else 0

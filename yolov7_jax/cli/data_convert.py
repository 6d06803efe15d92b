"""`yolov7-jax data convert IN OUT --to FORMAT`."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolov7_jax.cli.arguments import add_copy, add_data_sets


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    add_data_sets(parser)
    parser.add_argument("output", metavar="OUT", type=Path, help="new folder")
    parser.add_argument("--to", required=True, choices=("yolo", "coco", "voc"), help="format of OUT")
    add_copy(parser)


def run(parsed: argparse.Namespace) -> int:
    """Converts, and says what the new format cannot hold."""
    from yolov7_jax.cli.console import progress
    from yolov7_jax.datasets.curate.conversion import convert_data

    written = convert_data(
        parsed.data,
        parsed.output,
        to=parsed.to,
        splits=parsed.split,
        image_folder=parsed.images,
        link=not parsed.copy,
        progress=progress,
    )
    for sentence in written.sentences:
        print(sentence)
    print(f"see {written.data}")
    return 0

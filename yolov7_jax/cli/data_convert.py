"""`yolov7-jax data convert IN OUT --to FORMAT`."""

from __future__ import annotations

import argparse

from yolov7_jax.cli.arguments import add_data_sets, add_new_data, new_data_options, tell_written


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    add_data_sets(parser)
    add_new_data(parser)
    parser.add_argument("--to", required=True, choices=("yolo", "coco", "voc"), help="format of OUT")


def run(parsed: argparse.Namespace) -> int:
    """Converts, and says what the new format cannot hold."""
    from yolov7_jax.cli.console import progress
    from yolov7_jax.datasets.curate.conversion import convert_data

    written = convert_data(
        parsed.data,
        parsed.output,
        to=parsed.to,
        splits=parsed.split,
        progress=progress,
        **new_data_options(parsed),
    )
    tell_written(written)
    return 0

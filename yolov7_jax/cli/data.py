"""`yolov7-jax data show CONFIG [KEY=VALUE...]`."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "draw training samples as they are augmented"
    show = actions.add_parser("show", help=text, description=text.capitalize() + ".")
    show.add_argument("config", help="name of a configuration, or a YAML file (yolov7-tiny-coco, mine.yaml)")
    show.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings such as data.path=mine.yaml")
    show.add_argument("--images", type=int, default=8, help="how many samples (default 8)")
    show.add_argument(
        "--assign", action="store_true", help="also draw which cells are candidates and positives for each box"
    )
    show.add_argument("--output", type=Path, default=Path("runs/show"), help="folder (default runs/show)")


def run(parsed: argparse.Namespace) -> int:
    """Draws, and names the pictures."""
    from yolov7_jax.cli.console import TrainingConsole
    from yolov7_jax.config_file import read_config
    from yolov7_jax.experiment import show_samples

    config = read_config(parsed.config, parsed.overrides)
    with TrainingConsole() as console:
        files = show_samples(
            config, parsed.output, images=parsed.images, assign=parsed.assign, watcher=console, track=console.track
        )
    for file in files:
        print(file)
    return 0

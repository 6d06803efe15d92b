"""`yolov7-jax data ACTION ...`: each action has a file of its own."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping

ACTIONS: Mapping[str, str] = {
    "check": "name all that is wrong or odd with images and labels, and leave it out of a new data set",
    "convert": "write a data set in another format",
    "split": "divide images into training, validation and test, each with its share of every class",
    "stats": "count and plot classes, sizes, shapes and places of objects, and the fit of anchors",
    "show": "draw labels on their images, or training samples as they are augmented",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text.capitalize() + ".")
        importlib.import_module(f"yolov7_jax.cli.data_{name}").configure(action)


def run(parsed: argparse.Namespace) -> int:
    """Runs the action; returns its exit status."""
    status: int = importlib.import_module(f"yolov7_jax.cli.data_{parsed.action}").run(parsed)
    return status

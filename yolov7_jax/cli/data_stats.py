"""`yolov7-jax data stats DATA`."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolov7_jax.cli.arguments import add_labeled, labeled_options, tell_left_out


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    add_labeled(parser)
    parser.add_argument("--output", type=Path, default=Path("runs/stats"), help="folder (default runs/stats)")


def run(parsed: argparse.Namespace) -> int:
    """Counts, draws and prints a summary."""
    from yolov7_jax.cli.console import progress
    from yolov7_jax.experiment import label_statistics

    done = label_statistics(parsed.data, parsed.output, **labeled_options(parsed), progress=progress)
    print("\n".join(done.counts.lines()))
    tell_left_out(done.issues)
    print(f"see {done.folder}")
    return 0

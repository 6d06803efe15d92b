"""`yolov7-jax data stats DATA`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from yolov7_jax.cli.arguments import add_labelled, labelled_options


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the action."""
    add_labelled(parser)
    parser.add_argument("--output", type=Path, default=Path("runs/stats"), help="folder (default runs/stats)")


def run(parsed: argparse.Namespace) -> int:
    """Counts, draws and prints a summary."""
    from yolov7_jax.cli.progress import track
    from yolov7_jax.experiment import label_statistics

    done = label_statistics(parsed.data, parsed.output, **labelled_options(parsed), track=track)
    print("\n".join(done.counts.lines()))
    if done.faults:
        print(
            f"{len(done.faults)} faulty objects or images were left out; the first: {done.faults[0]}", file=sys.stderr
        )
    print(f"see {done.folder}")
    return 0

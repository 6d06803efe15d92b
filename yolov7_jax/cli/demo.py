"""`yolov7-jax demo`."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings such as train.epochs=10")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder (default runs/demo)")


def run(parsed: argparse.Namespace) -> int:
    """Draws, trains, evaluates, reports."""
    from yolov7_jax.cli.console import TrainingConsole, class_table
    from yolov7_jax.cli.train import outcome
    from yolov7_jax.experiment import run_demo

    with TrainingConsole() as console:
        done = run_demo(parsed.output, overrides=parsed.overrides, callbacks=[console], progress=console.progress)
    if done.result is None:
        return outcome(done.training)
    from rich.console import Console

    Console().print(class_table(done.result))
    print(f"AP50 {done.result.AP50:.3f}, AP {done.result.AP:.3f} on the held-out images; open {done.page}")
    return 0

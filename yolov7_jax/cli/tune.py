"""`yolov7-jax tune CONFIG [KEY=VALUE...] [--space SPACE]` and `yolov7-jax tune --report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolov7_jax.experiment import Tuning

SHOWN = 5  # settings with a column; trials.csv has all


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("config", nargs="?", help="name of a configuration, or a YAML file, which the search varies")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of all trials: train.size=320")
    parser.add_argument("--space", default="evolve", help="YAML file of what is varied (default evolve, as in yolov5)")
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="how many there are to be (default 50)")
    parser.add_argument("--sampler", default="tpe", help="Optuna's tpe (default), random, qmc or cmaes")
    parser.add_argument("--pruner", default="median", help="what ends trials early: median (default), hyperband, none")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler (default 0)")
    parser.add_argument("--keep-all", action="store_true", help="keep weights of all trials, not of the best alone")
    parser.add_argument("--output", type=Path, default=Path("runs/tune"), help="folder (default runs/tune)")
    parser.add_argument("--report", action="store_true", help="write and print the report of the folder, and stop")


def run(parsed: argparse.Namespace) -> int:
    """Searches, or reports what was found; 128 + its number where a signal stopped the search."""
    from yolov7_jax.cli.console import TrainingConsole
    from yolov7_jax.config_file import read_config
    from yolov7_jax.errors import InputError
    from yolov7_jax.experiment import tune, tune_report

    if parsed.report:
        _show(tune_report(parsed.output))
        return 0
    if parsed.config is None:
        raise InputError("give a configuration: tune CONFIG, or tune --report for what was found")
    config = read_config(parsed.config, parsed.overrides)
    options = {name: getattr(parsed, name) for name in ("trials", "sampler", "pruner", "seed", "keep_all")}
    with TrainingConsole() as console:
        found = tune(config, parsed.space, parsed.output, **options, callbacks=[console], progress=console.progress)
    _show(found)
    if found.signal is not None:
        print("saved; the same command goes on")
        return 128 + found.signal
    return 0


def _show(found: Tuning) -> None:
    from rich.console import Console
    from rich.text import Text

    from yolov7_jax.cli.console import new_table

    keys = found.ranked()[:SHOWN]
    best = found.best
    table = new_table("trial", "state", numbers=(found.measure, *keys))
    scores = ["" if trial.score is None else f"{trial.score:.4f}" for trial in found.trials]
    for trial, score in zip(found.trials, scores, strict=True):
        values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in map(trial.settings.get, keys)]
        table.add_row(
            str(trial.number), trial.state, score, *map(Text, values), style="bold" if trial == best else None
        )
    Console().print(table)
    for trial in found.trials:
        if trial.failure:
            print(f"trial {trial.number} failed: {trial.failure.splitlines()[-1]}")
    if found.importances:
        print(f"importance: {', '.join(f'{key} {found.importances[key]:.2f}' for key in keys)}")
    if best is not None:
        own = scores[0] or found.trials[0].state
        print(f"best: trial {best.number}, {found.measure} {best.score:.4f} (trial 0: {own})")
        print(f"train with its settings: yolov7-jax train {found.folder / 'best.yaml'}")
    print(f"see {found.folder}")

"""`yolov7-jax train CONFIG [KEY=VALUE...]` and `yolov7-jax train --resume RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolov7_jax.experiment import TrainingRun


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "config", nargs="?", help="name of a configuration, or a YAML file (yolov7-tiny-coco, mine.yaml)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings such as train.batch_size=8")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument("--output", type=Path, default=Path("runs/train"), help="folder (default runs/train)")
    parser.add_argument("--settings", action="store_true", help="show all settings and their meaning, and stop")


def run(parsed: argparse.Namespace) -> int:
    """Trains; 128 + its number where a signal stopped the run."""
    from yolov7_jax.cli.console import TrainingConsole
    from yolov7_jax.config import Config
    from yolov7_jax.config_file import read_config
    from yolov7_jax.config_help import settings_text
    from yolov7_jax.errors import InputError
    from yolov7_jax.experiment import resume, train

    if parsed.settings:
        print(settings_text(read_config(parsed.config, parsed.overrides) if parsed.config else Config()))
        return 0
    if (parsed.config is None) == (parsed.resume is None):
        raise InputError("give a configuration, or --resume with the folder of a run, and not both")
    with TrainingConsole() as console:
        if parsed.resume is not None:
            done = resume(parsed.resume, callbacks=[console], progress=console.progress)
        else:
            config = read_config(parsed.config, parsed.overrides)
            done = train(config, parsed.output, callbacks=[console], progress=console.progress)
    return outcome(done)


def outcome(done: TrainingRun) -> int:
    """Says what came of a run; 128 + its number where a signal stopped it."""
    if done.best_score is not None:
        print(f"best AP {done.best_score:.3f} after {done.best_step} iterations")
    print(f"{done.step} iterations done; see {done.folder}")
    if done.finished or done.signal is None:
        return 0
    print(f"saved; go on with: yolov7-jax train --resume {done.folder}")
    return 128 + done.signal

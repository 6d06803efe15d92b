"""`yolov7-jax train CONFIG [--hyp FILE] [KEY=VALUE...]` and `yolov7-jax train --resume RUN [KEY=VALUE...]`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from yolov7_jax.cli.arguments import add_processes, join

if TYPE_CHECKING:
    from yolov7_jax.config import Config
    from yolov7_jax.experiment import TrainingRun


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument(
        "config", nargs="?", help="name of a configuration, or a YAML file (yolov7-tiny-coco, mine.yaml)"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings such as train.batch_size=8")
    parser.add_argument(
        "--hyp",
        type=Path,
        metavar="FILE",
        help="hyper-parameters of yolov5 or yolov7 (hyp.scratch.p5.yaml): over CONFIG, below KEY=VALUE",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="resume the run in this folder; KEY=VALUE of settings that may change",
    )
    parser.add_argument(
        "--single-class", action="store_true", help="all objects are of one class: data.single_class=true"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/train"), help="folder (default runs/train)")
    add_processes(parser, "one network, trained on many devices or hosts")
    parser.add_argument("--settings", action="store_true", help="show all settings and their meaning, and stop")


def run(parsed: argparse.Namespace) -> int:
    """Trains; 128 + its number where a signal stopped the run."""
    from yolov7_jax.cli.console import TrainingConsole
    from yolov7_jax.config import Config
    from yolov7_jax.config_file import settings_text
    from yolov7_jax.errors import InputError
    from yolov7_jax.experiment import resume, train

    if parsed.resume is not None and "=" in (parsed.config or ""):  # no name: the first of the settings
        parsed.config, parsed.overrides = None, [parsed.config, *parsed.overrides]
    if parsed.single_class:
        parsed.overrides = [*parsed.overrides, "data.single_class=true"]
    if parsed.hyp is not None and parsed.config is None:
        raise InputError("--hyp changes a configuration; name it too: train CONFIG --hyp FILE")
    if (parsed.config is None) == (parsed.resume is None) and not parsed.settings:
        raise InputError("give a configuration, or --resume with the folder of a run, and not both")
    if parsed.config is not None and "=" in parsed.config:
        raise InputError(
            f"{parsed.config}: is no configuration; name one before settings: train finetune {_setting(parsed.config)}"
        )
    config = Config() if parsed.config is None else _config(parsed)
    if parsed.settings:
        print(settings_text(config))
        return 0
    join(parsed)
    with TrainingConsole() as console:
        if parsed.resume is not None:
            done = resume(parsed.resume, parsed.overrides, callbacks=[console], progress=console.progress)
        else:
            done = train(config, parsed.output, callbacks=[console], progress=console.progress)
    return outcome(done)


def _setting(text: str) -> str:
    """A setting as it was typed, or the words for what users of other projects call so."""
    from yolov7_jax.config_peers import peer_argument

    known = peer_argument(text)
    return f"section.key=value; {known}" if known else text


def _config(parsed: argparse.Namespace) -> Config:
    from yolov7_jax.config_file import read_config

    report = partial(print, file=sys.stderr)
    return read_config(parsed.config, parsed.overrides, hyp=parsed.hyp, report=report)


def outcome(done: TrainingRun) -> int:
    """Says what came of a run, in the first process; 128 + its number where a signal stopped it."""
    from yolov7_jax.training.hosts import is_first

    signal = None if done.finished else done.signal
    if is_first():
        if done.best_score is not None:
            print(f"best evaluation after {done.best_step} iterations: {done.best_by} {done.best_score:.3f}")
        print(f"{done.step} iterations done; see {done.folder}")
        if signal is not None:
            print(f"saved; resume with: yolov7-jax train --resume {done.folder}")
    return 0 if signal is None else 128 + signal

"""A training run: put together from a configuration, begun or resumed, in a folder that describes itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from signal import Signals
from typing import Any, Unpack

import jax

from yolov7_jax.config import Config, TrainConfig
from yolov7_jax.config_file import check_config, config_dict, read_config
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.artifacts import Publisher, draw_labels, evaluator, loader_by_ap, score, shown_batches
from yolov7_jax.experiment.beginning import CHECKPOINTS, CONFIG, Beginning
from yolov7_jax.experiment.preparation import Data, expectations, open_data, starting_weights
from yolov7_jax.experiment.run_log import RunLog
from yolov7_jax.experiment.run_page import RunPage
from yolov7_jax.experiment.setup import Given, Setup, check_names, kinds_of, make_loggers, reporting_step, set_up
from yolov7_jax.experiment.step_compiler import with_batch_size
from yolov7_jax.experiment.validation_loss import validation_losses
from yolov7_jax.graph.zoo import zoo_names
from yolov7_jax.nn.network import init
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training import hosts
from yolov7_jax.training.callbacks import Callback, Callbacks, RunInfo, TimeLimit, attempt
from yolov7_jax.training.checkpoint import Checkpoints, RunStatus
from yolov7_jax.training.in_step import in_step
from yolov7_jax.training.log import Log, Row
from yolov7_jax.training.loop import LoopDependencies, Plan
from yolov7_jax.training.loop import train as run_loop
from yolov7_jax.training.state import init_state
from yolov7_jax.training.stop import ASKED, StopSignals


@dataclass(frozen=True)
class TrainingRun:
    """What came of a run. finished: all epochs are done; else signal says what stopped it, or reason if none did.

    folder: of the run. step: iterations done. best_score, best_step: of the best evaluation, which has most of best_by.
    reason: the run ended without better evaluations (train.patience), in time (train.time_limit), or as a callback
    asked it to; of several processes, the first one knows the last two.
    """

    folder: Path
    step: int
    best_score: float | None
    best_step: int | None
    best_by: str
    finished: bool
    signal: int | None
    reason: str = ""


def train(
    config: Config,
    folder: Path | str,
    *,
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar = no_progress,
    **given: Unpack[Given],
) -> TrainingRun:
    """Trains a network as a configuration says, in a new folder.

    The folder gets config.yaml, network.json, metrics.jsonl, checkpoints, weights.safetensors (averaged weights at the
    last checkpoint), best.safetensors (those of the best evaluation), figures, run.log, results.csv, and index.html,
    a page of it all. SIGTERM and Ctrl-C save and stop.

    Args:
        config: settings.
        folder: where the run is kept; a number is added to its name if it is there.
        callbacks: look on.
        progress: shows the progress of work before and between steps.
        given: data=(train, val), assigner, loss, optimizer, transforms in place of what the configuration names, see
            `Given`.

    Raises:
        InputError: a setting, the data or the weights to start from cannot be used, or too many losses in a row were
            not finite.
    """
    with hosts.all_or_none():
        kinds = kinds_of(given)
        check_config(config, where="config")
        check_names(config)
        loggers = make_loggers(config.train.loggers)
    with hosts.new_folder(Path(folder)) as folder:  # before the data are read, should it not be writable
        watching, progress = _watching([*callbacks, *loggers], progress, folder)
        hosts.check_shared(folder)
        with hosts.all_or_none():
            data = open_data(config, watching, progress, given=given.get("data"))
            weights, report = starting_weights(config, data.train.names)
            watching.log(report)
        config = with_batch_size(config, weights.graph, images=len(data.train), given=given, report=watching.log)
        with hosts.all_or_none():
            setup = set_up(config, weights.graph, data, given)
            for line in expectations(config, weights.graph, data.train, setup.plan.steps_per_epoch):
                watching.log(line)
            config = with_whole_paths(config)
            began = Beginning(weights.graph, weights.names, len(data.train), kinds, config_dict(config))
        began.keep(config, folder)
    return _run(config, weights, data, setup, folder, watching, progress)


def resume(
    folder: Path | str,
    overrides: Sequence[str] = (),
    *,
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar = no_progress,
    **given: Unpack[Given],
) -> TrainingRun:
    """Resumes a run from its last checkpoint, to the same result as if it had never been interrupted.

    What `train` was given in place of what the configuration names has to be given again.

    Args:
        folder: of the run.
        overrides: texts such as "train.epochs=400", of settings in `CHANGEABLE`: more epochs train longer, with the
            schedule of the new length from here on.
        callbacks: look on.
        progress: shows the progress of work before and between steps.
        given: as `train` was given it.

    Raises:
        InputError: the folder is not that of a run, its settings are others than it began with, or its data or
            checkpoint cannot be used.
    """
    folder = Path(folder)
    with hosts.all_or_none():
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder}: has no {CONFIG}; expected the folder of a training run")
    hosts.check_shared(folder)
    with hosts.all_or_none():
        config = with_whole_paths(read_config(folder / CONFIG, overrides))
        check_names(config)
        loggers = make_loggers(config.train.loggers)
        watching, progress = _watching([*callbacks, *loggers], progress, folder)
        began = Beginning.read(folder)
        for change in began.changes(config, folder):
            watching.log(change)
        began.check_given(kinds_of(given), folder)
        data = open_data(config, watching, progress, given=given.get("data"))
        if _has_checkpoint(folder):
            began.check_data(data.train, folder)
            weights = Weights(began.graph, {}, began.names)
        else:  # it was interrupted before
            weights, _ = starting_weights(config, data.train.names)
        setup = set_up(config, weights.graph, data, given)
    began.keep(config, folder)
    return _run(config, weights, data, setup, folder, watching, progress)


def _watching(callbacks: Sequence[Callback], progress: ProgressBar, folder: Path) -> tuple[Callbacks, ProgressBar]:
    """What looks on in the first process; in others nothing does."""
    if not hosts.is_first():
        return Callbacks(), no_progress
    return Callbacks([RunLog(folder), *callbacks, RunPage(folder)]), progress


def with_whole_paths(config: Config) -> Config:
    """The configuration with whole paths of files and folders, so that a run can be resumed from anywhere."""

    def whole(section: Any, *keys: str) -> Any:
        texts = {key: getattr(section, key) for key in keys}
        files = {key: Path(text) for key, text in texts.items() if text and text not in zoo_names()}
        there = {key: str(file.absolute()) for key, file in files.items() if file.exists()}
        return replace(section, **there)

    data = whole(config.data, "path", "val_path", "images", "val_images")
    return replace(config, model=whole(config.model, "name", "weights"), data=data)


def _has_checkpoint(folder: Path) -> bool:
    checkpoints = folder / CHECKPOINTS
    return checkpoints.is_dir() and any(step.name.isdecimal() for step in checkpoints.iterdir())


def _run(
    config: Config,
    weights: Weights,
    data: Data,
    setup: Setup,
    folder: Path,
    callbacks: Callback,
    progress: ProgressBar,
) -> TrainingRun:
    start = hosts.arrays_of_first(weights.variables or init(weights.graph, jax.random.key(config.train.seed)))
    state = init_state(*setup.parts, start, mesh=setup.mesh, shard=config.train.shard_state)
    if config.train.time_limit and hosts.is_first():
        callbacks = Callbacks([callbacks, TimeLimit(config.train.time_limit)])
    log = Log(folder, writes=hosts.is_first())
    with StopSignals() as signals, Checkpoints(folder / CHECKPOINTS) as checkpoints:
        restored = checkpoints.restore(state)
        state, status = restored or (state, RunStatus())
        if status.step > setup.plan.steps:
            done = setup.plan.epoch(status.step)
            raise InputError(f"{folder}: train.epochs is {config.train.epochs}, but the run is in epoch {done} already")
        log.rewind(status.step)
        if config.train.figures and hosts.is_first():
            attempt("drawing labels", callbacks, draw_labels, data.train, weights, config, folder)
        try:
            callbacks.on_start(RunInfo(folder, config, setup.plan.steps, status.step, signals.ask))
            drawn_into = folder if config.train.figures else None
            loader_at = partial(loader_by_ap, setup.loader, config, data.train, folder)
            own_batches = partial(shown_batches, loader_at, drawn_into, weights.names, callbacks)
            batches, stop = in_step(own_batches, setup.mesh, signals)
            deps = LoopDependencies(
                plan=setup.plan,
                train_step=reporting_step(setup, callbacks),
                batches=batches,
                evaluate=_evaluation(config, weights, data, setup, folder, signals, callbacks, progress),
                score=partial(score, config.train.best_by),
                publish=Publisher(config, weights, data.train.category_ids, folder, setup.plan).write,
                checkpoints=checkpoints,
                log=log,
                stop=stop,
                callbacks=callbacks,
                folder=folder,
            )
            with hosts.or_gone():
                state, status = run_loop(state, status, deps)
        except BaseException as error:
            callbacks.on_fault(error)
            raise
    return _ended(config, setup.plan, folder, status, signals, stop, callbacks)


def _evaluation(
    config: Config,
    weights: Weights,
    data: Data,
    setup: Setup,
    folder: Path,
    signals: StopSignals,
    callbacks: Callback,
    progress: ProgressBar,
) -> Callable[[Any], Row]:
    """What evaluates averaged weights: AP, and the loss of the validation images where that is wanted."""
    losses = None
    if config.train.val_loss and data.val is not None:
        losses = validation_losses(config, setup.parts, data.val, setup.mesh)
    return evaluator(config, weights, data.val, folder, signals, callbacks, progress, losses)


def _ended(
    config: Config,
    plan: Plan,
    folder: Path,
    status: RunStatus,
    signals: StopSignals,
    stop: StopSignals,
    callbacks: Callback,
) -> TrainingRun:
    """What came of a run, after it is told why it ends. signals, stop: what asked this process to, and all of them."""
    finished = status.step == plan.steps
    signal = None if stop.received == ASKED else stop.received
    reason = _reason(config.train, plan, status, signals)
    if reason:
        callbacks.log(f"ended: {reason}")
    elif signal is not None and not finished:
        callbacks.log(f"stopped by {Signals(signal).name}")
    callbacks.on_end(status.step, finished=finished)
    return TrainingRun(
        folder,
        status.step,
        status.best_score,
        status.best_step,
        config.train.best_by,
        finished,
        signal=signal,
        reason=reason,
    )


def _reason(settings: TrainConfig, plan: Plan, status: RunStatus, asked: StopSignals) -> str:
    """Why the run ended before its last epoch, unless a signal asked it to."""
    if status.step == plan.steps or asked.received not in (None, ASKED):
        return ""
    if plan.gives_up(status):
        return f"no evaluation was better than that after {status.best_step} iterations ({settings.patience} epochs)"
    return asked.reason

"""The training loop: steps, evaluations, checkpoints, until the epochs are done or somebody asks to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from yolov7_jax.errors import InputError
from yolov7_jax.training import hosts
from yolov7_jax.training.callbacks import Callback, attempt
from yolov7_jax.training.checkpoint import Checkpoints, RunStatus
from yolov7_jax.training.log import NONFINITE, TRAIN, VAL, Log, Pace, Row, mean_row, read_log
from yolov7_jax.training.state import TrainState
from yolov7_jax.training.stop import ASKED, Stopped, StopSignals
from yolov7_jax.types import Batch

STEPS_OF_A_ROW = 10
"""Iterations that one row of the log tells of."""


@dataclass(frozen=True)
class Plan:
    """How long a run is, and how often it does what; see `config.TrainConfig`.

    renews_batches: they depend on the last evaluation, so they are asked for anew after each.
    """

    steps_per_epoch: int
    epochs: int
    val_every_epochs: int
    checkpoint_every_steps: int
    max_nonfinite: int
    patience: int = 0
    save_period: int = 0
    renews_batches: bool = False

    @property
    def steps(self) -> int:
        """Iterations of the whole run."""
        return self.steps_per_epoch * self.epochs

    def epoch(self, step: int) -> int:
        """The epoch that a step, counted from 1, belongs to; counted from 1 too."""
        return (step - 1) // self.steps_per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with this step, counted from 1."""
        return step > 0 and step % self.steps_per_epoch == 0

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after this step."""
        if not self.val_every_epochs or not self.ends_epoch(step):
            return False
        return step == self.steps or (step // self.steps_per_epoch) % self.val_every_epochs == 0

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after this step: always with an evaluation and at the end."""
        regular = step % self.checkpoint_every_steps == 0 if self.checkpoint_every_steps else self.ends_epoch(step)
        return regular or self.evaluates_at(step) or self.keeps_at(step) or step == self.steps

    def keeps_at(self, step: int) -> bool:
        """Whether the weights of this step are kept beside those of later ones."""
        return self.save_period > 0 and self.ends_epoch(step) and self.epoch(step) % self.save_period == 0

    def gives_up(self, status: RunStatus) -> bool:
        """Whether there was no better evaluation in so many epochs that the run is to end."""
        if not (self.patience and status.evaluated) or status.best_step is None:
            return False
        return self.epoch(status.step) - self.epoch(status.best_step) >= self.patience


class LoopDependencies(NamedTuple):
    """What the loop works with: all that has state, or touches devices and disks.

    train_step: (state, batch) → (state, metrics), compiled. batches: from a step on. evaluate: of averaged weights
    (host arrays) → a row of metrics; gives up with `Stopped`; of several processes all call it and end alike. score: of
    such a row; the more, the better. publish: called after every checkpoint and every evaluation: averaged weights,
    status, and whether these are the best so far.

    A step is saved before it is evaluated and published. What fails there is reported, and the run goes on.
    """

    plan: Plan
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Mapping[str, jax.Array]]]
    batches: Callable[[int], Generator[Batch, None, None]]
    evaluate: Callable[[Any], Row]
    score: Callable[[Row], float]
    publish: Callable[[Any, RunStatus, bool], None]
    checkpoints: Checkpoints
    log: Log
    stop: StopSignals
    callbacks: Callback
    folder: Path


class DivergedError(InputError):
    """Too many losses in a row were not finite."""


class _Running(NamedTuple):
    """A step that the device is working on."""

    step: int
    metrics: Mapping[str, jax.Array]
    batch: Batch


def train(state: TrainState, status: RunStatus, deps: LoopDependencies) -> tuple[TrainState, RunStatus]:
    """Goes on from a state to the end of the plan, or to the step at which it is asked to stop; saves before it leaves.

    Raises:
        DivergedError: too many losses in a row were not finite; names the last checkpoint.
        DataError: a sample could not be made, where the settings say to stop then.
        InputError: a checkpoint cannot be written.
    """
    plan = deps.plan
    status = _known(status, deps)
    if plan.evaluates_at(status.step) and not status.evaluated:
        status = _evaluate(_averaged(state), status, deps)
    pace, goes_on = Pace(), status.step < plan.steps and not _leaves(status, deps)
    while goes_on:
        state, status, goes_on = _steps(state, status, deps, pace)
    deps.checkpoints.wait()
    return state, status


def _known(status: RunStatus, deps: LoopDependencies) -> RunStatus:
    """The status with what the log knows of evaluations up to its step."""

    def evaluations() -> list[Row]:
        return [row for row in read_log(deps.log.file) if row["kind"] == VAL and row["step"] <= status.step]

    known = status
    for row in hosts.from_first(evaluations):
        known = _scored(known, row, deps)
    return known


def _scored(status: RunStatus, row: Row, deps: LoopDependencies) -> RunStatus:
    """The status after an evaluation, which may be that of an earlier step."""
    score, step = deps.score(row), row["step"]
    status = replace(status, score=score, evaluated=step == status.step)
    if status.best_score is None or score > status.best_score:
        status = replace(status, best_score=score, best_step=step)
    deps.checkpoints.best_step = status.best_step
    return status


def _leaves(status: RunStatus, deps: LoopDependencies) -> bool:
    """Whether the run ends here, before the end of its plan."""
    return deps.stop.received is not None or deps.plan.gives_up(status)


def _steps(
    state: TrainState, status: RunStatus, deps: LoopDependencies, pace: Pace
) -> tuple[TrainState, RunStatus, bool]:
    """Steps until the run ends, or needs new batches; and whether it goes on."""
    plan = deps.plan
    running: _Running | None = None
    with closing(deps.batches(status.step)) as batches:
        try:
            for step, batch in enumerate(pace.of(batches), start=status.step + 1):
                state, metrics = deps.train_step(state, batch)
                if running is not None:  # the device works on the next step while this one is reported
                    status = _settle(running, status, deps, pace)
                running = _Running(step, metrics, batch)
                leaves = deps.stop.received is not None or step == plan.steps
                if plan.saves_at(step) or leaves:
                    status, running = _settle(running, status, deps, pace), None
                    averaged = _averaged(state)
                    _save(state, averaged, status, deps)
                    asked = deps.stop.received == ASKED and plan.val_every_epochs > 0
                    if plan.evaluates_at(step) or asked:
                        status = _evaluate(averaged, status, deps)
                    pace.restart()
                    leaves = leaves or _leaves(status, deps)
                    if leaves or (plan.renews_batches and status.evaluated):
                        return state, status, not leaves
        except DivergedError:
            raise
        except Exception:  # no next batch, mostly: what is done is saved
            if running is not None and not state.step.is_deleted():
                status = _settle(running, status, deps, pace)
                _save(state, _averaged(state), status, deps)
            raise
    return state, status, False


def _settle(running: _Running, status: RunStatus, deps: LoopDependencies, pace: Pace) -> RunStatus:
    """Waits for a step, reports it, and watches over losses that are not finite."""
    metrics = {key: float(value) for key, value in jax.device_get(dict(running.metrics)).items()}
    step, plan = running.step, deps.plan
    deps.callbacks.on_step(step, plan.steps, metrics)
    finite = metrics.pop("finite") > 0
    epoch = plan.epoch(step)
    pending = (*status.pending, metrics) if finite else status.pending
    if not finite:
        _report_nonfinite(running, metrics, epoch, deps)
    if pending and (len(pending) >= STEPS_OF_A_ROW or plan.ends_epoch(step)):
        _log({"kind": TRAIN, "step": step, "epoch": epoch, **mean_row(pending), **pace.facts()}, deps)
        pending = ()
    return replace(status, step=step, evaluated=False, pending=pending)


def _log(row: Row, deps: LoopDependencies) -> None:
    attempt("the log", deps.callbacks, deps.log.write, row)
    deps.callbacks.on_row(row)


def _report_nonfinite(running: _Running, metrics: Mapping[str, float], epoch: int, deps: LoopDependencies) -> None:
    own_part = "" if hosts.is_first() else f"-process-{hosts.place()[0]}"
    file = deps.folder / "nonfinite" / f"step-{running.step}{own_part}.npz"
    attempt("saving the batch", deps.callbacks, save_batch, file, running.batch)
    _log({"kind": NONFINITE, "step": running.step, "epoch": epoch, "batch": file.name}, deps)
    deps.callbacks.log(f"step {running.step}: the loss or its gradient is not finite; skipped, the batch is in {file}")
    if metrics["nonfinite_in_row"] >= deps.plan.max_nonfinite:
        deps.checkpoints.wait()
        good = deps.checkpoints.latest
        place = (
            "no checkpoint was written yet"
            if good is None
            else f"the last one is {deps.checkpoints.folder / str(good)}"
        )
        raise DivergedError(
            f"{deps.folder}: {metrics['nonfinite_in_row']:.0f} losses in a row were not finite (step {running.step}); "
            f"weights and checkpoints are as they were before ({place}): look at {file}, or lower optim.lr0"
        )


def save_batch(file: Path, batch: Batch) -> None:
    """Writes a batch as .npz, each array by its name, for whoever wants to see what went wrong."""
    file.parent.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    arrays: dict[str, Any] = {jax.tree_util.keystr(path, simple=True, separator="."): _local(x) for path, x in leaves}
    np.savez_compressed(file, **arrays)


def _local(leaf: Any) -> np.ndarray:
    """The part of an array that this host has."""
    if isinstance(leaf, jax.Array):
        return np.concatenate([np.asarray(shard.data) for shard in leaf.addressable_shards])
    return np.asarray(leaf)


def _averaged(state: TrainState) -> Any:
    """The moving averages, in host memory."""

    def whole(leaf: jax.Array) -> np.ndarray:
        if not leaf.is_fully_replicated:
            leaf = _gather(leaf)
        return np.asarray(leaf.addressable_data(0))

    return jax.tree.map(whole, state.ema)


def _gather(leaf: jax.Array) -> jax.Array:
    """An array of which each device has a part, whole on every device."""
    assert isinstance(leaf.sharding, NamedSharding)
    return jax.device_put(leaf, NamedSharding(leaf.sharding.mesh, PartitionSpec()))


def _evaluate(averaged: Any, status: RunStatus, deps: LoopDependencies) -> RunStatus:
    """Evaluates and publishes the averaged weights; nothing changes where it fails or a signal breaks it off."""
    began = time.perf_counter()
    found, signal = _found(averaged, deps)
    if signal is not None:
        deps.stop.received = signal
    if found is None:
        return status
    epoch = deps.plan.epoch(status.step)
    row = {"kind": VAL, "step": status.step, "epoch": epoch, **found, "seconds": time.perf_counter() - began}
    status = _scored(status, row, deps)
    best = status.best_step == status.step
    attempt("writing the weights", deps.callbacks, deps.publish, averaged, status, best)
    _log(row, deps)  # last: an evaluation that it has is done wholly
    deps.callbacks.on_evaluation(row, best=best)
    return status


def _found(averaged: Any, deps: LoopDependencies) -> tuple[Row | None, int | None]:
    """What the evaluation finds, and the signal that breaks it off."""
    try:
        return attempt("the evaluation", deps.callbacks, deps.evaluate, averaged), None
    except Stopped as stopped:
        return None, stopped.signal


def _save(state: TrainState, averaged: Any, status: RunStatus, deps: LoopDependencies) -> None:
    deps.checkpoints.save(state, status)
    attempt("writing the weights", deps.callbacks, deps.publish, averaged, status, False)
    deps.callbacks.on_checkpoint(status.step, deps.folder)

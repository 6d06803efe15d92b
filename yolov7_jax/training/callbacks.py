"""What looks on at a run: consoles, loggers, whatever users bring. Their failures are reported, and the run goes on."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from yolov7_jax.config import Config
from yolov7_jax.errors import GoneError, InputError
from yolov7_jax.training.stop import Stopped

R = TypeVar("R")

LOGGER = logging.getLogger("yolov7_jax")

GOES_ON = "the run goes on"
"""In every report of what failed and ends no run."""


def described(error: BaseException) -> str:
    """The sentence of an error that speaks to the user, else the traceback without the frame that caught it."""
    if isinstance(error, InputError):
        return str(error)
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def attempt(what: str, callbacks: Callback, work: Callable[..., R], *args: Any) -> R | None:
    """The result of work that no run should end for; None, and a report, where it fails.

    Raises:
        Stopped: the work was given up because the run is to stop. GoneError: another process of the run is gone.
    """
    try:
        return work(*args)
    except (Stopped, GoneError):
        raise
    except Exception as error:
        callbacks.log(f"{what} failed, {GOES_ON}: {described(error)}")
        return None


def _no_stop(_: str) -> None:
    """Stops nothing."""


class RunInfo(NamedTuple):
    """What a run is, at its start. step: iterations done before, which is 0 but in a resumed run.

    stop: ends the run, for a reason: after the step at hand it evaluates, saves and leaves, on all processes at the
    same one. From `on_evaluation` it ends right there; of several processes, within two steps.
    """

    folder: Path
    config: Config
    steps: int
    step: int
    stop: Callable[[str], None] = _no_stop


class Callback:
    """Looks on at a run. Override what you need; each method is called on the thread that trains, between steps.

    What a callback raises is reported with its traceback, and the run goes on; it is called again at the next event.
    `KeyboardInterrupt` and `SystemExit` end the run.
    """

    def on_start(self, run: RunInfo) -> None:
        """The run begins, or goes on."""

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Step number `step`, counted from 1, of `steps` is done; metrics are those of `training.step.make_step`."""

    def on_row(self, row: Mapping[str, Any]) -> None:
        """A row is added to metrics.jsonl: means over some steps, an evaluation, a batch that was skipped."""

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:
        """An evaluation is done, whose row in metrics.jsonl this is: step, epoch, AP, AP50 and more."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Weights of this step are written to the run's folder; its checkpoint is being written."""

    def on_end(self, step: int, *, finished: bool) -> None:
        """The run ends after this step. finished: all epochs are done."""

    def on_fault(self, error: BaseException) -> None:
        """The run is broken off by an error, which is raised after this; what is saved stays."""

    def log(self, text: str) -> None:
        """Something that people should know."""


class TimeLimit(Callback):
    """Ends a run some hours after its first step began."""

    def __init__(self, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hours, self._clock = hours, clock

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`."""
        self._stop, self._end = run.stop, self._clock() + 3600 * self._hours

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        """See `Callback`."""
        if self._clock() >= self._end:
            self._stop(f"train.time_limit, {self._hours:g} hours, is over")


class Callbacks(Callback):
    """Several callbacks as one that does not fail."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = tuple(callbacks)

    def _call(self, name: str, *args: Any, **options: Any) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, name, _nothing)(*args, **options)
            except Exception as error:
                LOGGER.error("the callback %s failed in %s; %s\n%s", callback, name, GOES_ON, described(error))

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`."""
        self._call("on_start", run)

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """See `Callback`."""
        self._call("on_step", step, steps, metrics)

    def on_row(self, row: Mapping[str, Any]) -> None:
        """See `Callback`."""
        self._call("on_row", row)

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:
        """See `Callback`."""
        self._call("on_evaluation", row, best=best)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """See `Callback`."""
        self._call("on_checkpoint", step, folder)

    def on_end(self, step: int, *, finished: bool) -> None:
        """See `Callback`."""
        self._call("on_end", step, finished=finished)

    def on_fault(self, error: BaseException) -> None:
        """See `Callback`."""
        self._call("on_fault", error)

    def log(self, text: str) -> None:
        """See `Callback`."""
        self._call("log", text)


def _nothing(*_: Any, **__: Any) -> None:
    """What a callback does that lacks a method."""

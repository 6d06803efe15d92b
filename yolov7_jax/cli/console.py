"""Work on the console: how far it is, a training run with its losses and evaluations, the table of an evaluation.

A terminal shows a bar; where standard error is none, the same facts come as plain lines.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from yolov7_jax.training.callbacks import Callback, RunInfo
from yolov7_jax.types import CocoResult

T = TypeVar("T")

LINES_S = 10.0
"""Seconds between two plain lines, at the least."""

_PACE_S = 30.0  # that a pace is measured over, and at least two steps
_LOSSES = ("box", "obj", "cls", "total")
_OVERFLOWS = {"overflow_boxes": "boxes were left out of samples; raise data.max_boxes"}


class Pace:
    """How quickly something goes on at present."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._before: float | None = None

    def mark(self, done: int) -> None:
        """So much is done now."""
        now = self._clock()
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] < now - _PACE_S:
            self._marks.popleft()

    def pause(self) -> None:
        """Something else comes first; the pace is as it was until two more marks."""
        self._before = self.per_second
        self._marks.clear()

    @property
    def per_second(self) -> float | None:
        """None before two marks."""
        if len(self._marks) < 2:
            return self._before
        (began, before), (ended, done) = self._marks[0], self._marks[-1]
        return (done - before) / max(ended - began, 1e-9)


def work_facts(what: str, done: int, total: int, per_second: float | None, elapsed: float) -> str:
    """How far some work is, at which pace, and the seconds left; at its end, or where the total is 0, those it took."""
    facts = f"{what} {done}/{total}" if total else f"{what} {done}"
    if not per_second:
        return facts
    time_of_it = f"in {_duration(elapsed)}" if done >= total else f"{_duration((total - done) / per_second)} left"
    return f"{facts}  {_rate(per_second)}/s  {time_of_it}"


def training_facts(
    run: RunInfo, step: int, metrics: Mapping[str, float], per_second: float | None, overall: float | None
) -> str:
    """Where a run is after a step.

    per_second: steps at present, for the time left of the epoch. overall: steps since the run began or was resumed,
    evaluations included, for the time left of the run.
    """
    epochs, steps = run.config.train.epochs, run.steps // run.config.train.epochs
    epoch, iteration = (step - 1) // steps + 1, (step - 1) % steps + 1
    losses = "".join(f"  {name} {metrics[name]:.4f}" for name in _LOSSES if name in metrics)
    facts = f"epoch {epoch}/{epochs}  it {iteration}/{steps}{losses}"
    if not (per_second and overall):
        return facts
    images = per_second * run.config.train.batch_size
    of_epoch, of_run = _duration((steps - iteration) / per_second), _duration((run.steps - step) / overall)
    return f"{facts}  {_rate(images)} images/s  left: epoch {of_epoch}, run {of_run}"


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class Display:
    """How far some work is, on standard error: a bar below the lines of a terminal, else a line each ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = Console(stderr=True)
        self._has_bar = sys.stderr.isatty() and self._console.is_interactive
        self._bar: Progress | None = None
        self._next_line = clock() + LINES_S

    def show(self, done: int, total: int, facts: str) -> None:
        """So much of it is done, and what there is to say of it."""
        if not self._has_bar:
            if self._clock() >= self._next_line:
                self._next_line = self._clock() + LINES_S
                self.log(facts)
            return
        if self._bar is None:
            text = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
            self._bar = Progress(BarColumn(bar_width=10), text, console=self._console)
            self._bar.add_task("")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total or None, description=facts)

    def clear(self) -> None:
        """Leaves the bar as it is above what comes next; work that is shown then has a new one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def log(self, text: str) -> None:
        """Adds a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def progress(self, items: Iterable[T], total: int, *, what: str = "images") -> Iterator[T]:
        """Hands items on and shows how far it is."""
        pace = Pace(self._clock)
        pace.mark(0)
        began = self._clock()
        self.clear()
        try:
            self.show(0, total, work_facts(what, 0, total, None, 0))
            for done, item in enumerate(items, start=1):
                yield item
                pace.mark(done)
                self.show(done, total, work_facts(what, done, total, pace.per_second, self._clock() - began))
        finally:
            self.clear()


def progress(items: Iterable[T], total: int, *, what: str = "images") -> Iterator[T]:
    """Hands items on and shows on standard error how far it is."""
    return Display().progress(items, total, what=what)


class TrainingConsole(Display, Callback):
    """A `Callback` on standard error; as a context it draws the bar."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._run: RunInfo | None = None
        self._pace = Pace(clock)
        self._first: tuple[float, int] = (0.0, 0)  # when the first step was done, and its number
        self._told: set[str] = set()

    def __enter__(self) -> TrainingConsole:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`."""
        self.clear()
        self._run, self._pace = run, Pace(self._clock)

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Shows where the run is."""
        assert self._run is not None
        now = self._clock()
        if step == self._run.step + 1:
            self._first = now, step
        self._pace.mark(step)
        overall = (step - self._first[1]) / max(now - self._first[0], 1e-9)
        self.show(step, steps, training_facts(self._run, step, metrics, self._pace.per_second, overall))
        for key, text in _OVERFLOWS.items():
            if metrics.get(key) and key not in self._told:
                self._told.add(key)
                self.log(f"step {step}: {metrics[key]:.0f} {text}; metrics.jsonl counts them from here on")

    def progress(self, items: Iterable[T], total: int, *, what: str = "images") -> Iterator[T]:
        """Shows how far something else is, in place of the run."""
        self._pace.pause()
        return super().progress(items, total, what=what)

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:
        """Adds a line with average precision, and precision and recall where F1 is best."""
        mark = "  best so far" if best else ""
        numbers = {"AP": "AP", "AP50": "AP50", "P": "precision", "R": "recall"}
        told = "  ".join(f"{name} {row[key]:.3f}" for name, key in numbers.items())
        self.log(f"epoch {row['epoch']}: {told}{mark}")


def new_table(*headings: str, numbers: Iterable[str] = (), title: str | None = None) -> Table:
    """A table without lines, with columns of text and, after these, of numbers."""
    table = Table(title=title, box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def class_table(result: CocoResult) -> Table:
    """Boxes, AP50 and AP of all classes and of each, for the console; a dash where a class has no boxes."""
    table = new_table("class", numbers=("boxes", "AP50", "AP"))
    total = sum(row.boxes for row in result.per_class)
    table.add_row("all", str(total), _three(result.AP50), _three(result.AP), style="bold", end_section=True)
    for row in result.per_class:
        table.add_row(Text(row.name), str(row.boxes), _three(row.AP50), _three(row.AP))
    return table


def _three(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

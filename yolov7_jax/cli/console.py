"""Work on the console: progress bars, a training run with its losses and evaluations, the table of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from yolov7_jax.training.callbacks import Callback
from yolov7_jax.types import CocoResult

T = TypeVar("T")

_LOSSES = ("box", "obj", "cls", "total")
_OVERFLOWS = {"overflow_boxes": "boxes were left out of samples; raise data.max_boxes"}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """Hands items on and shows on standard error how far it is."""
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total)


class TrainingConsole(Callback):
    """A `Callback` on standard error; as a context it draws the bar."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._progress = Progress(*columns, console=self._console)
        self._task: Any = None
        self._told: set[str] = set()

    def __enter__(self) -> TrainingConsole:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Moves the bar."""
        if self._task is not None and step < self._progress.tasks[0].completed:  # another run begins
            self._progress.remove_task(self._task)
            self._task = None
        if self._task is None:
            self._task = self._progress.add_task("", total=steps, completed=step - 1, losses="", rate="")
        self._progress.start()  # it rests while something else shows a bar of its own
        speed = self._progress.tasks[0].speed
        losses = "  ".join(f"{name} {metrics[name]:.4f}" for name in _LOSSES if name in metrics)
        self._progress.update(
            self._task, completed=step, losses=losses, rate=f"{speed:.2f} it/s" if speed is not None else ""
        )

        for key, text in _OVERFLOWS.items():
            if metrics.get(key) and key not in self._told:
                self._told.add(key)
                self.log(f"step {step}: {metrics[key]:.0f} {text}; metrics.jsonl counts them from here on")

    def progress(self, items: Iterable[T], total: int) -> Iterator[T]:
        """Shows the progress of something else in place of the bar."""
        self._progress.stop()
        yield from progress(items, total)

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:
        """Adds a line with average precision."""
        mark = "  best so far" if best else ""
        self.log(f"epoch {row['epoch']}: AP {row['AP']:.3f}  AP50 {row['AP50']:.3f}{mark}")

    def log(self, text: str) -> None:
        """Adds a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


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

"""A training run on the console: a bar with losses, rate and time left, and a line for each evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from yolov7_jax.cli.progress import progress
from yolov7_jax.training.callbacks import Callback

T = TypeVar("T")

_LOSSES = ("box", "obj", "cls", "total")
_OVERFLOWS = {"overflow_boxes": "boxes were left out of samples; raise data.max_boxes"}


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

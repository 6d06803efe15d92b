"""The web page of a run, rewritten while it goes on, and the table of its epochs."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from yolov7_jax.config import Config
from yolov7_jax.config_file import by_name, config_dict
from yolov7_jax.experiment.artifacts import AP_OF_CLASS, FIGURES, draw_curves, score
from yolov7_jax.experiment.beginning import CONFIG
from yolov7_jax.experiment.run_log import RUN_LOG
from yolov7_jax.files import write_atomically
from yolov7_jax.training import log, results
from yolov7_jax.training.callbacks import GOES_ON, Callback, RunInfo, described
from yolov7_jax.viz import page

RELOAD_S = 60
"""Seconds after which a page is read again, and written at the most, while the run goes on."""

_MOST_SHOWN = 100  # texts that the run told
_MOST_STEPS_SHOWN = 20

SHOWN_FIGURES = {
    "Losses, precision and learning rates": "curves.png",
    "F1, precision and recall over the confidence": "confidence.png",
    "Precision and recall": "precision_recall.png",
    "Confusion of classes": "confusion.png",
    "Validation images: labels on the left, predictions on the right": "predictions.png",
    "First training batch": "batch-1.png",
    "Second training batch": "batch-2.png",
    "Third training batch": "batch-3.png",
    "Labels of the training images": "labels.png",
}
"""On the page, in this order, those that are there."""

_AT_BEST_F1 = {"precision": "precision", "recall": "recall", "F1": "f1", "at confidence": "confidence"}


@dataclass
class Progress:
    """Where a run is. state: in words, with the kind of their box. fault: what broke it off.

    step: iterations done. train: the last row of training. evaluations, nonfinite: such rows, by their steps.
    """

    run: RunInfo
    step: int
    state: str = "training"
    kind: Literal["neutral", "good", "bad"] = "neutral"
    fault: str = ""
    train: Mapping[str, Any] = field(default_factory=dict)
    evaluations: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    nonfinite: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl."""
        if row["kind"] == log.TRAIN:
            self.train = row
        elif row["kind"] == log.VAL:
            self.evaluations[row["step"]] = row
        elif row["kind"] == log.NONFINITE:
            self.nonfinite[row["step"]] = row

    @property
    def goes_on(self) -> bool:
        """Whether there is more to come."""
        return self.state == "training"

    def seconds_left(self) -> float | None:
        """Of steps at the pace of the last row, and of evaluations; None before there is a pace."""
        pace, config = self.train.get("images_per_second"), self.run.config.train
        if not (self.goes_on and pace):
            return None
        seconds = (self.run.steps - self.step) * config.batch_size / pace
        if self.evaluations and config.val_every_epochs:
            took = [row["seconds"] for row in self.evaluations.values()]
            per_evaluation = self.run.steps / config.epochs * config.val_every_epochs
            seconds += (self.run.steps - self.step) / per_evaluation * sum(took) / len(took)
        return seconds


class RunPage(Callback):
    """Keeps index.html, results.csv and the curves of a run up to date."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._told = folder, "stopped"
        self._progress: Progress | None = None
        self._written, self._has_news = -math.inf, True

    def on_start(self, run: RunInfo) -> None:
        """See `Callback`."""
        self._progress = Progress(run, run.step)
        for row in log.read_log(self._folder / log.FILE):
            self._progress.add(row)
        self._write()

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        """See `Callback`."""
        if self._progress is not None:
            self._progress.step = step

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Writes the table at the end of an epoch, and the page if the last one is old."""
        if self._progress is None:
            return
        self._progress.add(row)
        self._has_news = True
        run = self._progress.run
        if row["kind"] == log.TRAIN and row["step"] % (run.steps // run.config.train.epochs) == 0:
            write_results(self._folder)
        if time.monotonic() - self._written >= RELOAD_S:
            self._write()

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:  # noqa: ARG002
        """See `Callback`."""
        self._write_all()

    def on_end(self, step: int, *, finished: bool) -> None:  # noqa: ARG002
        """What was told last is why it ends."""
        if self._progress is not None:
            self._progress.state = "finished" if finished else self._told
            self._progress.kind = "good" if finished else "neutral"
            self._write_all()

    def on_fault(self, error: BaseException) -> None:
        """See `Callback`."""
        if self._progress is not None:
            self._progress.state, self._progress.kind = f"broken off by an error ({type(error).__name__})", "bad"
            self._progress.fault = described(error)
            self._write_all()

    def log(self, text: str) -> None:
        """See `Callback`."""
        self._told = text

    def _write_all(self) -> None:
        """Table and curves too, if there are rows that they have not."""
        try:
            if self._has_news:
                write_results(self._folder)
                assert self._progress is not None
                if self._progress.run.config.train.figures:
                    draw_curves(self._folder)
                self._has_news = False
        finally:
            self._write()

    def _write(self) -> None:
        assert self._progress is not None
        self._written = time.monotonic()
        write_page(self._progress, self._folder)


def write_results(folder: Path) -> None:
    """Writes results.csv of a run from its log.

    Raises:
        InputError: it cannot be written.
    """
    write_atomically(folder / results.FILE, results.results_csv(log.read_log(folder / log.FILE)))


def write_page(progress: Progress, folder: Path) -> Path:
    """Writes index.html of a run, which shows what is in its folder now.

    Raises:
        InputError: it cannot be written.
    """
    file = folder / RUN_LOG
    told = re.split(r"\n(?! )", file.read_text(encoding="utf-8").rstrip()) if file.is_file() else []
    files = [place for name in (results.FILE, log.FILE, RUN_LOG, CONFIG) if (place := folder / name).is_file()]
    drawn = {title: place for title, name in SHOWN_FIGURES.items() if (place := folder / FIGURES / name).is_file()}
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    parts = [
        page.notice(f"{progress.state} (as of {now})", progress.fault, kind=progress.kind),
        *_troubles(progress, told),
        page.cards(_facts(progress)),
        *(page.figure(title, place, folder, version=progress.step) for title, place in drawn.items()),
        *_classes(progress),
        *_settings(progress.run.config),
        page.heading("What the run told, the last first"),
        page.listing("\n".join(told[: -_MOST_SHOWN - 1 : -1])),
        page.links(files, folder),
    ]
    return page.write_page(folder, folder.absolute().name, parts, reload_s=RELOAD_S if progress.goes_on else None)


def _troubles(progress: Progress, told: Sequence[str]) -> list[str]:
    """What went wrong and did not end the run."""
    lines = [text for text in told if GOES_ON in text]
    if progress.nonfinite:
        steps = sorted(progress.nonfinite)
        shown = ", ".join(map(str, steps[-_MOST_STEPS_SHOWN:]))
        lines.append(f"{len(steps)} iterations skipped, as loss or gradient was not finite; the last: {shown}")
    return [page.notice("What went wrong", "\n".join(lines[-_MOST_SHOWN:]), kind="bad")] if lines else []


def _facts(progress: Progress) -> dict[str, page.Fact]:
    run, config = progress.run, progress.run.config.train
    epoch = -(-progress.step * config.epochs // run.steps)
    facts: dict[str, page.Fact] = {
        "epoch": f"{epoch} of {config.epochs}",
        "iteration": f"{progress.step} of {run.steps}",
    }
    if progress.evaluations:
        best = max(progress.evaluations.values(), key=lambda row: (score(config.best_by, row), -row["step"]))
        facts[f"best {config.best_by}, epoch {best['epoch']}"] = score(config.best_by, best)
        last = progress.evaluations[max(progress.evaluations)]
        names = {"AP": "AP", "AP50": "AP50", **_AT_BEST_F1}
        facts |= {name: _number(last.get(key)) for name, key in names.items()}
    if progress.train.get("images_per_second"):
        facts["images a second"] = f"{progress.train['images_per_second']:.1f}"
        facts["waiting for data"] = f"{100 * progress.train['waiting']:.0f} %"
    left = progress.seconds_left()
    return facts if left is None else {**facts, "time left": str(timedelta(seconds=round(left)))}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _classes(progress: Progress) -> list[str]:
    """AP of each class in the last evaluation."""
    if not progress.evaluations:
        return []
    last = progress.evaluations[max(progress.evaluations)]
    rows = [(name, _number(AP)) for name, AP in last.get(AP_OF_CLASS, {}).items()]
    return [page.heading(f"Classes after epoch {last['epoch']}"), page.table(("class", "AP"), rows)] if rows else []


def _settings(config: Config) -> list[str]:
    """Those that are not the default, and all of them."""
    default = by_name(config_dict(Config()))
    own = {name: str(value) for name, value in by_name(config_dict(config)).items()}
    changed = [(name, value) for name, value in own.items() if value != str(default[name])]
    headings = ("setting", "value")
    return [
        page.heading("Settings that differ from the defaults"),
        page.table(headings, changed),
        page.folded("All settings", page.table(headings, list(own.items()))),
    ]

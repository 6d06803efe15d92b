"""Everything once, on images that the program draws: train, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from yolov7_jax.config_file import read_config
from yolov7_jax.datasets import open_source
from yolov7_jax.demo.scenes import write_scenes
from yolov7_jax.experiment.artifacts import FIGURES
from yolov7_jax.experiment.training import TrainingRun, train
from yolov7_jax.experiment.validation import validate
from yolov7_jax.files import new_folder
from yolov7_jax.inference.detector import Detector
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training.callbacks import Callback, Callbacks, RunInfo
from yolov7_jax.training.cluster import refuse_several
from yolov7_jax.types import CocoResult
from yolov7_jax.viz.page import report_page

TRAIN_IMAGES, VAL_IMAGES = 512, 128


class DemoRun(NamedTuple):
    """The report of the demonstration, its training run, and the result on the held-out images."""

    page: Path | None
    training: TrainingRun
    result: CocoResult | None


def run_demo(
    folder: Path | str = "runs/demo",
    *,
    overrides: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    progress: ProgressBar = no_progress,
) -> DemoRun:
    """Draws images, trains the network of the configuration `demo` on them from scratch, evaluates and reports.

    The folder, a new one, gets scenes (an ordinary data set), train (the run), val, and index.html with what came out.
    If a signal stops the run, `resume` continues it, and there is no report.

    Raises:
        InputError: the folder cannot be written, or an override is wrong.
    """
    refuse_several("the demonstration")
    times = _Times()
    folder = new_folder(Path(folder))
    data = write_scenes(folder / "scenes", train=TRAIN_IMAGES, val=VAL_IMAGES)
    times.ends("drawing the images")
    config = read_config("demo", [f"data.path={data}", *overrides])
    trained = train(config, folder / "train", callbacks=[times, *callbacks], progress=progress)
    if not trained.finished:
        return DemoRun(None, trained, None)
    detector = Detector.load(trained.folder, report=Callbacks(callbacks).log, devices=jax.local_devices())
    result = validate(detector, open_source(data), folder=folder / "val", progress=progress).result
    times.ends("evaluation")
    page = _report(folder, trained, result, times.seconds, epochs=config.train.epochs)
    return DemoRun(page, trained, result)


class _Times(Callback):
    """What takes how long: the seconds of each part, in the order in which they begin."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def ends(self, part: str) -> None:
        """All since the end of the part before belongs to this one."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def on_start(self, run: RunInfo) -> None:  # noqa: ARG002
        """See `Callback`."""
        self.ends("reading the data, first weights")

    def on_step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        """See `Callback`."""
        self.ends("training" if step > 1 else "compiling the training step")

    def on_evaluation(self, row: Mapping[str, Any], *, best: bool) -> None:  # noqa: ARG002
        """See `Callback`."""
        self.ends("evaluation")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _report(
    folder: Path, trained: TrainingRun, result: CocoResult, seconds: Mapping[str, float], *, epochs: int
) -> Path:
    facts: dict[str, str | int | float] = {
        "AP50": result.AP50,
        "AP": result.AP,
        "time": _clock(sum(seconds.values())),
        **{part: _clock(spent) for part, spent in seconds.items()},
        "training images": TRAIN_IMAGES,
        "held-out images": VAL_IMAGES,
        "epochs": epochs,
    }
    drawn = trained.folder / FIGURES
    figures = [
        ("Held-out images: labels on the left, predictions on the right", drawn / "predictions.png"),
        ("Losses and average precision", drawn / "curves.png"),
        ("A training batch", drawn / "batch-1.png"),
        ("Precision and recall", folder / "val/precision_recall.png"),
        ("Confusion of classes", folder / "val/confusion.png"),
    ]
    title = "yolov7_jax: a detector trained on drawn shapes and digits"
    return report_page(folder, title, facts, result.per_class, figures)

"""Everything once, on images that the program draws: train, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from yolov7_jax.config_file import read_config
from yolov7_jax.datasets import open_source
from yolov7_jax.demo.scenes import write_scenes
from yolov7_jax.experiment.artifacts import FIGURES
from yolov7_jax.experiment.inference import validate
from yolov7_jax.experiment.training import TrainingRun, train
from yolov7_jax.files import new_folder
from yolov7_jax.inference.detector import Detector
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.training.callbacks import Callback, Callbacks
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
    began = time.perf_counter()
    folder = new_folder(Path(folder))
    data = write_scenes(folder / "scenes", train=TRAIN_IMAGES, val=VAL_IMAGES)
    config = read_config("demo", [f"data.path={data}", *overrides])
    trained = train(config, folder / "train", callbacks=callbacks, progress=progress)
    if not trained.finished:
        return DemoRun(None, trained, None)
    detector = Detector.load(trained.folder, report=Callbacks(callbacks).log)
    result = validate(detector, open_source(data), folder=folder / "val", progress=progress).result
    page = _report(folder, trained, result, seconds=round(time.perf_counter() - began), epochs=config.train.epochs)
    return DemoRun(page, trained, result)


def _report(folder: Path, trained: TrainingRun, result: CocoResult, *, seconds: int, epochs: int) -> Path:
    facts: dict[str, str | int | float] = {
        "AP50": result.AP50,
        "AP": result.AP,
        "time": f"{seconds // 60} min {seconds % 60:02d} s",
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

"""What a run shows and leaves while it trains: evaluations, figures, weights for others."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax import __version__
from yolov7_jax.config import EVALUATION, Config, Options
from yolov7_jax.config_file import config_dict
from yolov7_jax.convert.load import RUN_WEIGHTS
from yolov7_jax.convert.weights_file import Weights, save
from yolov7_jax.data.loader import Loader
from yolov7_jax.experiment.inference import ProgressBar, validate
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.source import SourceMixin
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.checkpoint import RunStatus
from yolov7_jax.training.log import FILE, Row, read_log
from yolov7_jax.training.stop import StopSignals
from yolov7_jax.types import Batch
from yolov7_jax.viz.figures import curves_figure, save_figure
from yolov7_jax.viz.sheet import draw_batch, draw_comparison

BEST = "best.safetensors"
"""In the folder of a run, beside its weights: those of the best evaluation."""

FIGURES = "figures"
"""In the folder of a run: batches, predictions, curves."""

BATCHES_SHOWN = 3
IMAGES_SHOWN = 8


def evaluation_options(config: Config) -> Options:
    """How a configuration's network is evaluated."""
    return replace(EVALUATION, **vars(config.val), workers=max(config.data.workers, 1))


def evaluator(
    config: Config,
    weights: Weights,
    val: SourceMixin | None,
    folder: Path,
    stop: StopSignals,
    progress: ProgressBar,
) -> Callable[[Any], Row]:
    """Average precision of averaged weights on the validation images, by what `validate` does for anyone."""
    options = evaluation_options(config)
    detector: Detector | None = None

    def stoppable(items: Iterable[Any], total: int) -> Iterable[Any]:
        for item in progress(items, total):
            stop.check()
            yield item

    def evaluate(averaged: Any) -> Row:
        nonlocal detector  # compiled once
        assert val is not None
        if detector is None:
            detector = Detector(replace(weights, variables=averaged), size=config.train.size)
        else:
            detector = detector.with_variables(averaged)
        result = validate(detector, val, options=options, progress=stoppable).result
        _draw_predictions(detector, val, options, folder)
        return result.numbers()

    return evaluate


def score(best_by: str, row: Row) -> float:
    """What the best evaluation has most of (`TrainConfig.best_by`); 0 where there was nothing to find."""
    parts = {"AP": 0.9, "AP50": 0.1} if best_by == "fitness" else {best_by: 1.0}
    found = {name: row[name] for name in parts}
    if any(value is None or math.isnan(value) for value in found.values()):
        return 0.0
    return sum(share * found[name] for name, share in parts.items())


def _draw_predictions(detector: Detector, val: SourceMixin, options: Options, folder: Path) -> None:
    """Draws what is found in the first images beside their labels, by the program that evaluates."""
    samples = [val[index] for index in range(min(IMAGES_SHOWN, len(val)))]
    shown = replace(options, confidence=Options.confidence, iou=Options.iou)
    found = detector([sample.image for sample in samples], **vars(shown))
    write_image(folder / FIGURES / "predictions.png", draw_comparison(samples, found, detector.names))


def draw_curves(folder: Path) -> None:
    """Draws losses and average precision over time from the log of a run."""
    save_figure(curves_figure(read_log(folder / FILE)), folder / FIGURES / "curves.png")


def shown_batches(
    loader: Loader, folder: Path, names: Sequence[str], callbacks: Callback, start: int
) -> Generator[Batch, None, None]:
    """The batches from a step on; the first of the run are drawn with their labels, and unreadable images reported."""
    reported = 0
    with closing(loader.batches(start)) as batches:
        for step, batch in enumerate(batches, start=start):
            for error in loader.errors[reported:]:
                callbacks.log(f"gray in its place: {error}")
            reported = len(loader.errors)
            if step < BATCHES_SHOWN:
                sheet = draw_batch(batch, names)
                write_image(folder / FIGURES / f"batch-{step + 1}.png", sheet)
            yield batch


class Publisher(NamedTuple):
    """Writes averaged weights with all that one needs to use them and to know where they come from."""

    config: Config
    weights: Weights
    category_ids: Sequence[int]
    folder: Path

    def write(self, averaged: Any, status: RunStatus, best: bool) -> None:
        """Writes weights.safetensors, best.safetensors too if these are the best; after an evaluation the curves."""
        meta = {
            "input_size": self.config.train.size,
            "category_ids": list(self.category_ids),
            "step": status.step,
            "AP": status.score if status.evaluated else None,
            "trained_with": f"yolov7_jax {__version__}",
            "started_from": self.config.model.weights or None,
            "config": config_dict(self.config),
        }
        weights = replace(self.weights, variables=averaged, meta=meta)
        for name in (RUN_WEIGHTS, BEST) if best else (RUN_WEIGHTS,):
            save(self.folder / name, weights)
        if status.evaluated:
            draw_curves(self.folder)

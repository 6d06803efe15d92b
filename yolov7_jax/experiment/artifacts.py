"""What a run shows and leaves while it trains: evaluations, figures, weights for others."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from yolov7_jax import __version__
from yolov7_jax.config import EVALUATION, Config, Options
from yolov7_jax.config_file import config_dict
from yolov7_jax.convert.load import RUN_WEIGHTS
from yolov7_jax.convert.weights_file import Weights, save
from yolov7_jax.data.loader import Loader
from yolov7_jax.datasets.curate.statistics import objects_of, statistics
from yolov7_jax.experiment.preparation import repeats
from yolov7_jax.experiment.validation import draw_evaluation, read_truth, validate
from yolov7_jax.experiment.validation_loss import Losses
from yolov7_jax.image import write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.prefetch import ProgressBar
from yolov7_jax.source import SourceMixin
from yolov7_jax.training import hosts
from yolov7_jax.training.callbacks import Callback, attempt
from yolov7_jax.training.checkpoint import RunStatus
from yolov7_jax.training.log import FILE, VAL, Row, read_log
from yolov7_jax.training.loop import Plan
from yolov7_jax.training.stop import StopSignals
from yolov7_jax.types import Batch, CocoResult
from yolov7_jax.viz.figures import curves_figure, save_figure
from yolov7_jax.viz.label_figures import label_figure
from yolov7_jax.viz.sheet import draw_batch, draw_comparison

BEST = "best.safetensors"
"""In the folder of a run, beside its weights: those of the best evaluation."""

FIGURES = "figures"
"""In the folder of a run: labels, batches, curves, predictions and other figures of the last evaluation."""

AP_OF_CLASS = "AP_of_class"
"""In the row of an evaluation: the AP of each class by its name, None where there is nothing to find."""

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
    callbacks: Callback,
    progress: ProgressBar,
    losses: Losses | None = None,
) -> Callable[[Any], Row]:
    """The numbers of averaged weights on the validation images, by what `validate` does for anyone, and AP by class.

    The ground truth is read once, now: labels that change while the run goes on do not change what is measured. All
    processes of a run share the images, so all have to have the same. losses: what else is computed of them.

    Raises:
        InputError: they have not.
    """
    options = evaluation_options(config)
    with hosts.all_or_none():
        truth = None if val is None else read_truth(val, weights.names)
    given = {"that there are images to evaluate on": truth is not None}
    hosts.check_same(lambda: given if truth is None else {**given, **truth.facts()})
    detector: Detector | None = None
    reported: set[str] = set()

    def stoppable(items: Iterable[Any], total: int) -> Iterable[Any]:
        for item in progress(items, total):
            stop.check()
            yield item

    def evaluate(averaged: Any) -> Row:
        nonlocal detector  # compiled once
        assert truth is not None
        with hosts.all_or_none():
            if detector is None:
                now, size = replace(weights, variables=averaged), config.train.size
                detector = Detector(now, size=size, report=callbacks.log, devices=jax.local_devices())
            else:
                detector = detector.with_variables(averaged)
        found = validate(detector, truth, options=options, progress=stoppable, shared=True)
        for failure in sorted(set(found.failures.values()) - reported):
            callbacks.log(f"counted as an image without detections: {failure}")
        reported.update(found.failures.values())
        if config.train.figures and hosts.is_first():
            attempt("drawing predictions", callbacks, _draw_predictions, detector, truth.source, options, folder)
            drawn = found.result, found.confusion, truth.source.names, folder / FIGURES
            attempt("drawing the evaluation", callbacks, draw_evaluation, *drawn)
        row = {**found.result.numbers(), AP_OF_CLASS: _by_class(found.result)}
        if losses is not None:
            what = "the loss of the validation images"
            row |= attempt(what, callbacks, losses, averaged, stop.check) or {}
        return row

    return evaluate


def _by_class(result: CocoResult) -> dict[str, float | None]:
    """AP of each class; None where there is nothing to find."""
    return {row.name: None if math.isnan(row.AP) else row.AP for row in result.per_class}


def score(best_by: str, row: Mapping[str, Any]) -> float:
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
    save_figure(curves_figure(read_log(folder / FILE)), folder / FIGURES / "curves.png", trim=False)


def draw_labels(data: SourceMixin, weights: Weights, config: Config, folder: Path) -> None:
    """Draws what the labels of the training images hold, unless that is done or there is none."""
    file = folder / FIGURES / "labels.png"
    objects = objects_of(data.labels(index) for index in range(0 if file.exists() else len(data)))
    if len(objects.image):
        size, anchor_t = config.train.size, config.loss.anchor_t
        counts = statistics(objects, data.names, size=size, anchors=weights.graph.anchors, anchor_t=anchor_t)
        save_figure(label_figure(counts), file)


def shown_batches(
    loader_at: Callable[[int], Loader], folder: Path | None, names: Sequence[str], callbacks: Callback, start: int
) -> Generator[Batch, None, None]:
    """The batches from a step on; unreadable images are reported.

    folder: of the run, into which its first batches are drawn with their labels; None: they are not.
    """
    loader, reported = loader_at(start), 0
    with closing(loader.batches(start)) as batches:
        for step, batch in enumerate(batches, start=start):
            for error in loader.errors[reported:]:
                hosts.report(f"gray in its place: {error}", callbacks)
            reported = len(loader.errors)
            if folder is not None and step < BATCHES_SHOWN and hosts.is_first():
                file = folder / FIGURES / f"batch-{step + 1}.png"
                attempt("drawing a batch", callbacks, _draw_batch, batch, names, file)
            yield batch


def _draw_batch(batch: Batch, names: Sequence[str], file: Path) -> None:
    write_image(file, draw_batch(batch, names))


def loader_by_ap(loader: Loader, config: Config, source: SourceMixin, folder: Path, start: int) -> Loader:
    """The loader of the steps from `start` on: where images follow AP, by the last evaluation that the log has."""
    if config.data.sampling != "by_ap":
        return loader

    def last() -> list[float | None]:
        rows = [row for row in read_log(folder / FILE) if row["kind"] == VAL and row["step"] <= start]
        return [rows[-1][AP_OF_CLASS].get(name) for name in source.names] if rows else []

    occurring = repeats(config, source, hosts.from_first(last))
    assert occurring is not None
    return loader.with_repeats(occurring)


class Publisher(NamedTuple):
    """Writes averaged weights with all that one needs to use them and to know where they come from."""

    config: Config
    weights: Weights
    category_ids: Sequence[int]
    folder: Path
    plan: Plan

    def write(self, averaged: Any, status: RunStatus, best: bool) -> None:
        """Writes weights.safetensors, best.safetensors too if these are the best, and those to be kept of this epoch.

        Of several processes, one does.
        """
        if not hosts.is_first():
            return
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
        kept = f"epoch-{self.plan.epoch(status.step)}.safetensors"
        names = {RUN_WEIGHTS: True, BEST: best, kept: self.plan.keeps_at(status.step)}
        for name in (name for name, wanted in names.items() if wanted):
            save(self.folder / name, weights)

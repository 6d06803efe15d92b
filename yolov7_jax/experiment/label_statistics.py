"""Numbers and figures of what a labeled data set holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.convert.load import Model
from yolov7_jax.datasets.curate.statistics import Statistics, statistics
from yolov7_jax.errors import InputError
from yolov7_jax.evaluation.report import write_json
from yolov7_jax.experiment.inference import ProgressBar, new_folder, no_progress
from yolov7_jax.experiment.labeled import network, objects_in, open_labeled
from yolov7_jax.viz.figure import save_figure
from yolov7_jax.viz.label_figures import class_figure, label_figure

STATISTICS = "stats.json"


class StatisticsRun(NamedTuple):
    """Counts of the images that can be used, sentences on what was left out, and the folder if one was written."""

    counts: Statistics
    issues: tuple[str, ...]
    folder: Path | None


def label_statistics(
    data: Path | str,
    folder: Path | str | None = None,
    *,
    split: str = "train",
    image_folder: Path | str | None = None,
    size: int | None = None,
    model: Model = "yolov7-tiny",
    anchor_t: float = 4.0,
    progress: ProgressBar[Any] = no_progress,
) -> StatisticsRun:
    """Counts sizes, shapes, places and classes of objects, and how well a network's anchors fit them.

    With a folder, a new one is made with stats.json, labels.png and classes.png.

    Args:
        data: what `open_source` opens.
        folder: where to write.
        split: of the data.
        image_folder: of the images of a COCO JSON.
        size: the longer side of images in training, in pixels; by default the one the network is published for.
        model: whose anchors: a zoo name, a model YAML, weights, or a run's folder.
        anchor_t: how many times larger or smaller than an anchor a box may be.
        progress: a display of progress.

    Raises:
        InputError: the data or the model cannot be used, or there are no objects.
    """
    graph = network(model)
    side = graph.default_size if size is None else size
    if side < 1:
        raise InputError(f"the size is {side}; expected a number of pixels, such as 640")
    labeled = open_labeled(data, split, image_folder=image_folder, progress=progress)
    objects = objects_in(labeled, where=f"{data} ({split})")
    counts = statistics(objects, labeled.source.names, size=side, anchors=graph.anchors, anchor_t=anchor_t)
    if folder is not None:
        folder = new_folder(Path(folder))
        write_json(folder / STATISTICS, counts.as_json())
        save_figure(label_figure(counts), folder / "labels.png")
        save_figure(class_figure(counts), folder / "classes.png")
    return StatisticsRun(counts, labeled.found.sentences, folder)

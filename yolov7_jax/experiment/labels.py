"""Labels of a data set: opened and audited, for all that needs them; counted and plotted."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from yolov7_jax.config import LossConfig
from yolov7_jax.convert.load import RUN_WEIGHTS, Model, load, resolve
from yolov7_jax.datasets import open_source, with_one_class
from yolov7_jax.datasets.audit import Audit, audit, readable
from yolov7_jax.datasets.curate.statistics import Objects, Statistics, objects_of, statistics
from yolov7_jax.datasets.label_cache import CacheMode, cached_findings
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.files import new_folder, write_json
from yolov7_jax.graph.spec import Graph
from yolov7_jax.prefetch import ProgressBar, no_progress
from yolov7_jax.source import Source, SourceMixin, complete
from yolov7_jax.viz.figures import save_figure
from yolov7_jax.viz.label_figures import class_figure, label_figure


class Labeled(NamedTuple):
    """Images with their labels, and what is wrong with them or with others that were left out."""

    source: SourceMixin
    found: Audit


def audit_data(
    data: Path | str | Source,
    split: str,
    *,
    image_folder: Path | str | None,
    cache: CacheMode,
    progress: ProgressBar,
    single_class: bool = False,
) -> Labeled:
    """All images of a data set, usable or not, and what is wrong with them.

    data: what `open_source` takes, or an open source, of whose labels nothing is kept between runs. single_class: its
    classes are one, see `with_one_class`.

    Raises:
        DataError: the data set cannot be used.
    """
    if not isinstance(data, str | Path):
        source, cache = complete(data), "off"
    else:
        source = open_source(data, split, image_folder=Path(image_folder) if image_folder else None, on_error="skip")
    source = with_one_class(source) if single_class else source
    return Labeled(source, audit(source, cached_findings(source, mode=cache, progress=progress)))


def open_labeled(data: Path | str, split: str, *, image_folder: Path | str | None, progress: ProgressBar) -> Labeled:
    """Images of a data set that can be used, and what is known of their labels, which are read if they have changed.

    Raises:
        DataError: the data set or all of its images cannot be used.
    """
    source, found = audit_data(data, split, image_folder=image_folder, cache="times", progress=progress)
    return Labeled(readable(source, found), found)


def objects_in(source: SourceMixin, *, where: str) -> Objects:
    """All objects; `where` they are from begins the error.

    Raises:
        DataError: there are none.
    """
    objects = objects_of(source.labels(index) for index in range(len(source)))
    if not len(objects.image):
        raise DataError(f"{where}: its {len(source)} images have no objects; name data or a split with labeled objects")
    return objects


def network(model: Model) -> Graph:
    """The network that a zoo name, a model YAML, weights or a run's folder stand for."""
    if isinstance(model, str | Path) and (Path(model) / RUN_WEIGHTS).is_file():
        return load(model).graph
    return resolve(model)


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
    anchor_t: float = LossConfig.anchor_t,
    progress: ProgressBar = no_progress,
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
    source, found = open_labeled(data, split, image_folder=image_folder, progress=progress)
    objects = objects_in(source, where=f"{data} ({split})")
    counts = statistics(objects, source.names, size=side, anchors=graph.anchors, anchor_t=anchor_t)
    return StatisticsRun(counts, found.sentences, None if folder is None else _write(counts, Path(folder)))


def _write(counts: Statistics, folder: Path) -> Path:
    folder = new_folder(folder)
    write_json(folder / "stats.json", counts.as_json())
    save_figure(label_figure(counts), folder / "labels.png")
    save_figure(class_figure(counts), folder / "classes.png")
    return folder

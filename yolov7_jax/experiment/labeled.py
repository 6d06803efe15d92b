"""Labeled images opened and audited, for commands on labels alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.convert.load import RUN_WEIGHTS, Model, load, resolve
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.audit import Audit, audit, readable
from yolov7_jax.datasets.curate.statistics import Objects, objects_of
from yolov7_jax.datasets.label_cache import CacheMode, cached_findings
from yolov7_jax.errors import DataError
from yolov7_jax.experiment.inference import ProgressBar
from yolov7_jax.graph.spec import Graph
from yolov7_jax.source import Source, SourceMixin, complete


class Labeled(NamedTuple):
    """Images with their labels, and what is wrong with them or with others that were left out."""

    source: SourceMixin
    found: Audit


def open_labeled(
    data: Path | str, split: str, *, image_folder: Path | str | None, progress: ProgressBar[Any]
) -> Labeled:
    """Images of a data set that can be used, and what is known of their labels, which are read if they have changed.

    Raises:
        DataError: the data set or all of its images cannot be used.
    """
    source, found = look_over(data, split, image_folder=image_folder, cache="times", progress=progress)
    return Labeled(readable(source, found), found)


def look_over(
    data: Path | str | Source,
    split: str,
    *,
    image_folder: Path | str | None,
    cache: CacheMode,
    progress: ProgressBar[Any],
) -> Labeled:
    """All images of a data set, usable or not, and what is wrong with them.

    data: what `open_source` takes, or an open source, of whose labels nothing is kept between runs.

    Raises:
        DataError: the data set cannot be used.
    """
    if not isinstance(data, str | Path):
        data = complete(data)
        return Labeled(data, audit(data, cached_findings(data, mode="off", progress=progress)))
    source = open_source(data, split, image_folder=Path(image_folder) if image_folder else None, on_error="skip")
    return Labeled(source, audit(source, cached_findings(source, mode=cache, progress=progress)))


def objects_in(labeled: Labeled, *, where: str) -> Objects:
    """All objects; `where` they are from begins the error.

    Raises:
        DataError: there are none.
    """
    source = labeled.source
    objects = objects_of(source.labels(index) for index in range(len(source)))
    if not len(objects.image):
        raise DataError(f"{where}: its {len(source)} images have no objects; name data or a split with labeled objects")
    return objects


def network(model: Model) -> Graph:
    """The network that a zoo name, a model YAML, weights or a run's folder stand for."""
    if isinstance(model, str | Path) and (Path(model) / RUN_WEIGHTS).is_file():
        return load(model).graph
    return resolve(model)

"""Data sets as yolov5 and yolov7 have them: data.yaml, images/SPLIT/*, labels/SPLIT/*.txt."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.labels import label_file
from yolov7_jax.datasets.writers.content import (
    Content,
    Losses,
    Object,
    clipped,
    count_new_ids,
    distinct,
    objects,
    tolerance,
)
from yolov7_jax.datasets.writers.files import ImageFiles
from yolov7_jax.files import yaml_text
from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.types import Labels

_IGNORED = "objects to be ignored left out, as YOLO labels have none"
_SEVERAL = "several polygons of an object left out, as a line of YOLO labels has one polygon or a box"
_AROUND = "boxes replaced by those around their polygons, as a line of YOLO labels has only one of the two"
_CUT = "polygons clipped to their image"


def write_yolo(folder: Path, content: Content, images: ImageFiles, losses: Losses) -> Path:
    """Writes a data set; returns its data YAML.

    An object with exactly one polygon is a line of its corners, any other a line of its box.
    """
    for split, items in content.splits.items():
        ids: dict[Path, int] = {}
        for item in items:
            file = images.put(item, folder / "images" / split)
            lines = label_lines(item.labels, losses)
            labels = label_file(file)
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            ids[file] = item.image_id
        if content.has_ids:
            count_new_ids(sorted(ids), [ids[file] for file in sorted(ids)], losses)
    places = {split: f"images/{split}" for split in content.splits}
    yaml = folder / "data.yaml"
    yaml.write_text(yaml_text({"path": ".", **places, "names": list(content.names)}), encoding="utf-8")
    return yaml


def label_lines(labels: Labels, losses: Losses) -> list[str]:
    """A line for each object: its class, and its box or polygon in fractions of the image."""
    wanted = [one for one in objects(labels, losses) if not one.is_ignored]
    losses[_IGNORED] += len(labels.ignored_class_ids)
    return distinct([_line(one, labels.size, losses) for one in clipped(wanted, labels.size, losses)], losses)


def _line(one: Object, size: tuple[int, int], losses: Losses) -> str:
    scale = np.array(size[::-1], np.float64)
    if len(one.polygons) == 1:
        points_px = one.polygons[0].astype(np.float64)
        inside_px = np.clip(points_px, 0, scale)
        around_px = np.concatenate([inside_px.min(axis=0), inside_px.max(axis=0)])
        if (around_px[2:] > around_px[:2]).all():
            losses[_CUT] += int((inside_px != points_px).any())
            losses[_AROUND] += int(np.abs(around_px - one.box_xyxy_px).max() > tolerance(size))
            return _text(one.class_id, inside_px / scale)
    losses[_SEVERAL] += len(one.polygons) > 1
    losses[_CUT] += len(one.polygons) == 1
    return _text(one.class_id, xyxy_to_cxcywh(one.box_xyxy_px / np.tile(scale, 2)))


def _text(class_id: int, fractions: NDArray[np.float64]) -> str:
    numbers: Iterable[float] = fractions.ravel().tolist()
    return " ".join([str(class_id), *map(repr, numbers)])

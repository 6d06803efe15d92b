"""Data sets with COCO annotation files: annotations/instances_SPLIT.json, images/SPLIT/*."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.coco import annotation_file
from yolov7_jax.datasets.writers.content import Content, Losses, Object, objects
from yolov7_jax.datasets.writers.files import ImageFiles
from yolov7_jax.ops.boxes import xyxy_to_xywh

_IDS = "image ids counted on, as two images of a split have the same"


def write_coco(folder: Path, content: Content, images: ImageFiles, losses: Losses) -> Path:
    """Writes a data set; returns its annotation file or, if it has several splits, its folder.

    Areas are those of the polygons, else of the boxes; objects to be ignored are crowds. Images and categories keep
    their ids; annotations count from 1.
    """
    categories = [
        {"id": number, "name": name} for number, name in zip(content.category_ids, content.names, strict=True)
    ]
    (folder / "annotations").mkdir()
    for split, items in content.splits.items():
        rows: dict[int, dict[str, Any]] = {}
        annotations: list[dict[str, Any]] = []
        largest = 0
        for item in items:
            image_id = item.image_id if item.image_id not in rows else largest + 1
            losses[_IDS] += image_id != item.image_id
            largest = max(largest, image_id)
            height, width = item.labels.size
            file = images.put(item, folder / "images" / split)
            rows[image_id] = {"id": image_id, "file_name": file.name, "width": width, "height": height}
            for one in objects(item.labels, losses):
                mine = {"id": len(annotations) + 1, "image_id": image_id}
                annotations.append(mine | _annotation(one, content.category_ids))
        text = json.dumps({"images": [*rows.values()], "annotations": annotations, "categories": categories})
        annotation_file(folder, split).write_text(text, encoding="utf-8")
    return annotation_file(folder, *content.splits) if len(content.splits) == 1 else folder


def _annotation(one: Object, category_ids: tuple[int, ...]) -> dict[str, Any]:
    box = xyxy_to_xywh(one.box_xyxy_px).tolist()
    return {
        "category_id": category_ids[one.class_id],
        "bbox": box,
        "area": sum(map(_area, one.polygons)) if len(one.polygons) else box[2] * box[3],
        "iscrowd": int(one.is_ignored),
        "segmentation": [_short(polygon) for polygon in one.polygons],
    }


def _area(polygon: NDArray[np.float32]) -> float:
    """By the shoelace formula."""
    x, y = (polygon.astype(np.float64) - polygon[0]).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _short(polygon: NDArray[np.float32]) -> list[float]:
    """The corners with as few digits as tell them from their neighbors in float32."""
    numbers: list[float] = polygon.ravel().astype(str).astype(np.float64).tolist()
    return numbers

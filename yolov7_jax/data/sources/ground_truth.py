"""A COCO dict of images and objects that other formats name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class LabelledImage(NamedTuple):
    """What evaluation knows of an image.

    size: (h, w) in pixels. class_ids: int32 [n]. boxes_xywh_px: float64 [n, 4]. ignored: how many of the objects, the
    last ones, are neither wanted nor held against a detector.
    """

    id: int
    path: Path
    size: tuple[int, int]
    class_ids: NDArray[np.int32]
    boxes_xywh_px: NDArray[np.float64]
    ignored: int = 0


def coco_dict(names: Sequence[str], images: Iterable[LabelledImage]) -> dict[str, Any]:
    """Images, annotations and categories as COCO has them; categories and annotations count from 1."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        height, width = image.size
        rows.append({"id": image.id, "file_name": image.path.name, "width": width, "height": height})
        objects = zip(image.class_ids.tolist(), image.boxes_xywh_px.tolist(), strict=True)
        for number, (class_id, box) in enumerate(objects):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.id,
                    "category_id": class_id + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(number >= len(image.class_ids) - image.ignored),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": rows, "annotations": annotations, "categories": categories}

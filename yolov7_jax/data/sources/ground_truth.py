"""A COCO dict of images and objects that other formats name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from yolov7_jax.data.sources.objects import Labels
from yolov7_jax.ops.boxes import xyxy_to_xywh


def coco_dict(categories: Iterable[tuple[int, str]], images: Iterable[tuple[int, Path, Labels]]) -> dict[str, Any]:
    """Images, annotations and categories as COCO has them, from (id, name) and (id, file, labels); ignored are crowds.

    An object's area is that of its box. Annotations count from 1. Outlines are left out.
    """
    names = list(categories)
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, path, labels in images:
        height, width = labels.size
        rows.append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        class_ids = np.concatenate([labels.class_ids, labels.ignored_class_ids])
        boxes_xywh_px = xyxy_to_xywh(np.concatenate([labels.boxes_xyxy_px, labels.ignored_boxes_xyxy_px]))
        for number, (class_id, box) in enumerate(zip(class_ids.tolist(), boxes_xywh_px.tolist(), strict=True)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": names[class_id][0],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(number >= len(labels.class_ids)),
                }
            )
    return {"images": rows, "annotations": annotations, "categories": [{"id": n, "name": name} for n, name in names]}

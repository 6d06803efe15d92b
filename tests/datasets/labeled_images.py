"""Labeled images for tests of data sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Labels

Polygon = Sequence[Sequence[float]]


def write_png(file: Path, width: int = 40, height: int = 20, value: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, 0, 255)).save(file)
    return file


def write_text(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def labels_of(
    *objects: tuple[int, Sequence[float]] | tuple[int, Sequence[float], Sequence[Polygon]],
    ignored: Sequence[tuple[int, Sequence[float]]] = (),
    size: tuple[int, int] = (20, 40),
) -> Labels:
    """Labels of (class, box xyxy in pixels, polygons)."""
    return Labels(
        size=size,
        class_ids=np.array([one[0] for one in objects], np.int32),
        boxes_xyxy_px=np.array([one[1] for one in objects], np.float64).reshape(-1, 4),
        polygons=as_polygons([[np.array(p) for p in one[2]] if len(one) == 3 else [] for one in objects]),
        ignored_class_ids=np.array([class_id for class_id, _ in ignored], np.int32),
        ignored_boxes_xyxy_px=np.array([box for _, box in ignored], np.float64).reshape(-1, 4),
    )

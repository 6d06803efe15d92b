"""What is known of the objects of one image before it is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Polygons

Value = TypeVar("Value")


class Row(NamedTuple):
    """An object as a label file has it, in any unit: its class, its box, its polygons, each as `packed` gives it."""

    class_id: int
    box_xyxy: tuple[float, float, float, float]
    polygons: tuple[bytes, ...] = ()


def packed(corners: Sequence[float] | NDArray[np.floating]) -> bytes:
    """The corners x, y, x, y … of a polygon, in an eighth of the memory of numbers, and as quick to compare as text."""
    return (np.asarray(corners, np.float64) + 0.0).tobytes()  # -0 becomes 0


def sift(rows: Sequence[Row]) -> tuple[list[Row], int, int]:
    """Rows that are new and have an area; the number of those that repeat, and of those new without an area."""
    distinct = list(dict.fromkeys(rows))
    kept = [row for row in distinct if row.box_xyxy[2] > row.box_xyxy[0] and row.box_xyxy[3] > row.box_xyxy[1]]
    return kept, len(rows) - len(distinct), len(distinct) - len(kept)


def as_arrays(
    rows: Sequence[Row], scale: tuple[float, float] = (1, 1)
) -> tuple[NDArray[np.int32], NDArray[np.float64], Polygons]:
    """Class int32 [n], box xyxy float64 [n, 4] and polygons of rows, in units of 1 / scale (x, y) of theirs."""
    class_ids = np.array([row.class_id for row in rows], np.int32)
    boxes = np.array([row.box_xyxy for row in rows], np.float64).reshape(-1, 4) * (*scale, *scale)
    polygons = [[np.frombuffer(polygon).reshape(-1, 2) * scale for polygon in row.polygons] for row in rows]
    return class_ids, boxes, as_polygons(polygons)


def pick(values: Sequence[Value], indices: Sequence[int]) -> tuple[Value, ...]:
    """The values at these places, in their order."""
    return tuple(values[index] for index in indices)

"""What is known of the objects of one image before it is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.polygons import as_polygons
from yolov7_jax.data.sources.faults import Fault
from yolov7_jax.types import NO_POLYGONS, Polygons

Value = TypeVar("Value")


class Row(NamedTuple):
    """An object as a label file has it, in any unit: its class, its box, its polygons, each as `packed` gives it."""

    class_id: int
    box_xyxy: tuple[float, float, float, float]
    polygons: tuple[bytes, ...] = ()


def packed(corners: Sequence[float] | NDArray[np.floating]) -> bytes:
    """The corners x, y, x, y … of a polygon, in an eighth of the memory of numbers, and as quick to compare as text."""
    return (np.asarray(corners, np.float64) + 0.0).tobytes()  # -0 becomes 0


def _no_boxes() -> NDArray[np.float64]:
    return np.zeros((0, 4))


def _no_classes() -> NDArray[np.int32]:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """The objects of one image, those that are neither wanted nor held against a detector, and how many were left out.

    size: (h, w) of the image in pixels. class_ids: int32 [n]. boxes_xyxy_px: float64 [n, 4], which may reach beyond the
    image. polygons: of those objects that have an outline; their box is the one that the labels give, else the one
    around it. ignored_class_ids, ignored_boxes_xyxy_px: the same of crowds and difficult objects. duplicates: objects
    left out because an equal one came before. empty: objects left out because their box has no area. unlisted: objects
    left out because their class is not asked for. faults: what was wrong with others that were left out. missing: there
    is no file of labels.
    """

    size: tuple[int, int]
    class_ids: NDArray[np.int32]
    boxes_xyxy_px: NDArray[np.float64]
    polygons: Polygons = NO_POLYGONS
    ignored_class_ids: NDArray[np.int32] = field(default_factory=_no_classes)
    ignored_boxes_xyxy_px: NDArray[np.float64] = field(default_factory=_no_boxes)
    duplicates: int = 0
    empty: int = 0
    unlisted: int = 0
    faults: tuple[Fault, ...] = ()
    missing: bool = False


NO_LABELS = Labels(size=(0, 0), class_ids=_no_classes(), boxes_xyxy_px=_no_boxes(), missing=True)
"""Of an image of which nothing is known."""


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

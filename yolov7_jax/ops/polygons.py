"""Polygons of objects: chosen, joined, moved with their image, and the boxes around what of them shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.types import NO_POLYGONS, Polygons


def as_polygons(objects: Sequence[Sequence[NDArray[np.floating]]]) -> Polygons:
    """The polygons of each object, each [corners, 2], as one value."""
    flat = [polygon for polygons in objects for polygon in polygons]
    if not flat:
        return NO_POLYGONS
    return Polygons(
        np.concatenate(flat).astype(np.float32),
        np.array([len(polygon) for polygon in flat], np.int32),
        np.repeat(np.arange(len(objects), dtype=np.int32), [len(polygons) for polygons in objects]),
    )


def of_object(polygons: Polygons, index: int) -> list[NDArray[np.float32]]:
    """The polygons of one object, each [corners, 2]."""
    ends = np.cumsum(polygons.corners)
    mine = np.flatnonzero(polygons.owner == index)
    return [polygons.points_xy_px[ends[at] - polygons.corners[at] : ends[at]] for at in mine]


def select(polygons: Polygons, keep: NDArray[np.bool_]) -> Polygons:
    """The polygons of the objects that are kept, bool [n], which are counted anew."""
    if not len(polygons.owner):
        return polygons
    kept = keep[polygons.owner]
    number = np.cumsum(keep, dtype=np.int32) - 1
    return Polygons(
        np.compress(np.repeat(kept, polygons.corners), polygons.points_xy_px, axis=0),
        polygons.corners[kept],
        number[polygons.owner[kept]],
    )


def joined(parts: Sequence[Polygons], counts: Sequence[int]) -> Polygons:
    """The polygons of several lists of objects, `counts` of each, as those of the lists one after another."""
    if not any(len(part.owner) for part in parts):
        return NO_POLYGONS
    first = np.cumsum([0, *counts[:-1]], dtype=np.int32)
    return Polygons(
        np.concatenate([part.points_xy_px for part in parts]),
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.owner + start for part, start in zip(parts, first, strict=True)]),
    )


def scaled(polygons: Polygons, across: float, down: float) -> Polygons:
    """The polygons of an image that was resized by these factors."""
    return polygons._replace(points_xy_px=polygons.points_xy_px * np.array([across, down], np.float32))

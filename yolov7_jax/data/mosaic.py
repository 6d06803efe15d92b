"""Several images in one: where they lie on a mosaic's canvas, which is never made, and the blend of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from yolov7_jax.image import cv2
from yolov7_jax.ops.polygons import joined
from yolov7_jax.types import Sample

FOUR, NINE = 4, 9
"""How many images a mosaic has."""


class Tile(NamedTuple):
    """A sample on a canvas. x, y: where its upper left corner lies. part: the xyxy part of its pixels that shows."""

    sample: Sample
    x: int
    y: int
    part: tuple[int, int, int, int]


def place(sample: Sample, x: int, y: int, *, canvas: int) -> Tile:
    """A sample with its upper left corner at (x, y) of a square canvas, which cuts off what lies beyond it."""
    height, width = sample.image.shape[:2]
    return Tile(sample, x, y, (max(-x, 0), max(-y, 0), min(width, canvas - x), min(height, canvas - y)))


def mosaic(samples: Sequence[Sample], center: tuple[int, int], *, canvas: int) -> list[Tile]:
    """Four samples around a center (x, y): upper left, upper right, lower left, lower right."""
    tiles = []
    for index, sample in enumerate(samples):
        height, width = sample.image.shape[:2]
        x = center[0] if index % 2 else center[0] - width
        y = center[1] if index >= 2 else center[1] - height
        tiles.append(place(sample, x, y, canvas=canvas))
    return tiles


def mosaic9(samples: Sequence[Sample], corner: tuple[int, int], *, canvas: int) -> list[Tile]:
    """Nine samples in a pinwheel layout: the first in the middle, the others clockwise from its upper edge on.

    They lie on a larger canvas, on which the first has its upper left corner half a canvas from the upper left; what is
    kept is the window of which the upper left corner (x, y) is given. Samples wholly outside it are left out. Each
    side of the first has a pair that begins at one of its corners, so none overlap.
    """
    first = canvas // 2
    heights, widths = zip(*(sample.image.shape[:2] for sample in samples), strict=True)
    right, bottom = first + widths[0], first + heights[0]
    corners = [
        (first, first),
        (first, first - heights[1]),
        (first + widths[1], first - heights[2]),
        (right, first),
        (right, first + heights[3]),
        (right - widths[5], bottom),
        (right - widths[5] - widths[6], bottom),
        (first - widths[7], bottom - heights[7]),
        (first - widths[8], bottom - heights[7] - heights[8]),
    ]
    tiles = [
        place(sample, x - corner[0], y - corner[1], canvas=canvas)
        for sample, (x, y) in zip(samples, corners, strict=True)
    ]
    return [tile for tile in tiles if tile.part[0] < tile.part[2] and tile.part[1] < tile.part[3]]


def mixup(first: Sample, second: Sample, share: float) -> Sample:
    """Two samples of one shape blended, `share` of the first; all objects of both, the id of the first.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018; labels are joined, not weighted.
    """
    return Sample(
        cv2.addWeighted(first.image, share, second.image, 1 - share, 0),
        np.concatenate([first.boxes_xyxy_px, second.boxes_xyxy_px]),
        np.concatenate([first.class_ids, second.class_ids]),
        first.id,
        joined([first.polygons, second.polygons], [len(first.class_ids), len(second.class_ids)]),
    )

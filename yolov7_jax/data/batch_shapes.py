"""The shapes of batches: squares of several sizes, or a few rectangles near the shapes of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.letterbox import fit

Shape = tuple[int, int]
"""(h, w) in pixels."""

MOST_RECTANGLES = 5
"""Each is compiled for."""


def squares(size: int, multiples: Sequence[float], *, stride: int) -> tuple[Shape, ...]:
    """A square for each multiple of a size, rounded to a multiple of the stride; without multiples one of the size."""
    sides = [max(round(size * multiple / stride), 1) * stride for multiple in multiples] or [size]
    return tuple((side, side) for side in sides)


def rectangles(
    sizes: Sequence[Shape], size: int, *, stride: int, most: int = MOST_RECTANGLES
) -> tuple[tuple[Shape, ...], NDArray[np.int64]]:
    """At most `most` shapes for images of these sizes, and of each image the place of its own: the smallest it fits.

    The shapes have `size` as long side and multiples of the stride as short side. The square is always among them;
    the others are taken one after another, always the one that saves most padding. They are ordered from
    wide to high, so that images of neighboring places fit the larger of both.
    """
    wanted = np.array([fit(shape, size, stride=stride, auto=True).shape for shape in sizes]).reshape(-1, 2)
    offered, place, counts = np.unique(wanted, axis=0, return_inverse=True, return_counts=True)
    chosen = {(size, size)}
    rest = {(int(height), int(width)) for height, width in offered} - chosen
    while rest and len(chosen) < most:
        best = min(sorted(rest), key=lambda shape: float(_areas(offered, [*chosen, shape]).min(axis=1) @ counts))
        chosen.add(best)
        rest.remove(best)
    ordered = sorted(chosen, key=lambda shape: shape[0] / shape[1])
    return tuple(ordered), _areas(offered, ordered).argmin(axis=1)[place]


def _areas(wanted: NDArray[np.int64], shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """[wanted, shapes] the area of each shape; infinite where what is wanted does not fit."""
    listed = np.array(shapes)
    fits = (wanted[:, None] <= listed).all(axis=-1)
    return np.where(fits, listed.prod(axis=-1), np.inf)

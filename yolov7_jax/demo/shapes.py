"""Shapes and digits as polygons: what the objects of drawn scenes look like."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.floating[Any]]
"""Corners (x, y) [n, 2]; y points down."""


class Shape(NamedTuple):
    """A class of objects: the union of polygons around the origin, in any unit.

    least_px: the longer side, in pixels, from which it can be told from the others.
    """

    polygons: tuple[Polygon, ...]
    least_px: float


def _arc(outer: float, inner: float, start: float, end: float, *, y: float = 0, corners: int = 48) -> Polygon:
    """The part of a ring around (0, y) between two angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, corners))
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([outer * circle, inner * circle[::-1]]) + np.array([0, y])


def _star(points: int, inner: float) -> Polygon:
    """A star with one point up, of radius 1, and its notches at the inner radius."""
    turns = np.arange(2 * points)
    angles, radius = np.pi * (turns / points - 0.5), np.where(turns % 2, inner, 1)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _points(*corners: tuple[float, float]) -> Polygon:
    return np.array(corners, float)


_ARM = 0.3  # half the width of the cross's beams

SHAPES = {
    "circle": Shape((_arc(1, 0, 0, 360),), 8),
    "square": Shape((_points((-1, -1), (1, -1), (1, 1), (-1, 1)),), 8),
    "triangle": Shape((_points((0, -1), (1, 0.8), (-1, 0.8)),), 9),
    "star": Shape((_star(5, 0.42),), 13),
    "ring": Shape((_arc(1, 0.55, 0, 360),), 10),
    "cross": Shape(
        (
            _points((-1, -_ARM), (1, -_ARM), (1, _ARM), (-1, _ARM)),
            _points((-_ARM, -1), (_ARM, -1), (_ARM, 1), (-_ARM, 1)),
        ),
        9,
    ),
    "3": Shape((_arc(0.56, 0.27, -160, 90, y=-0.44), _arc(0.6, 0.3, -90, 160, y=0.4)), 15),
    "7": Shape(
        (
            _points((-0.6, -1), (0.6, -1), (0.6, -0.68), (-0.6, -0.68)),
            _points((0.22, -0.7), (0.6, -0.7), (0.02, 1), (-0.36, 1)),
        ),
        14,
    ),
}
"""The classes of drawn scenes by name, in the order of their ids."""

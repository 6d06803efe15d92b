"""Objects of drawn scenes: shapes and digits as polygons, and as the share of each pixel that they cover at a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2

_SUBPIXELS = 4  # a side: shapes are drawn this much larger, and shrunk
_FRACTION_BITS = 4  # of coordinates given to OpenCV

Polygon = NDArray[np.floating[Any]]
"""Corners (x, y) [n, 2]; y points down."""


class Shape(NamedTuple):
    """A class of objects: the union of polygons around the origin, in any unit.

    least_px: the longer side, in pixels, from which it can be told well from the others.
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
    "circle": Shape((_arc(1, 0, 0, 360),), 11),
    "square": Shape((_points((-1, -1), (1, -1), (1, 1), (-1, 1)),), 11),
    "triangle": Shape((_points((0, -1), (1, 0.8), (-1, 0.8)),), 13),
    "star": Shape((_star(5, 0.42),), 18),
    "ring": Shape((_arc(1, 0.55, 0, 360),), 14),
    "cross": Shape(
        (
            _points((-1, -_ARM), (1, -_ARM), (1, _ARM), (-1, _ARM)),
            _points((-_ARM, -1), (_ARM, -1), (_ARM, 1), (-_ARM, 1)),
        ),
        13,
    ),
    "3": Shape((_arc(0.56, 0.27, -160, 90, y=-0.44), _arc(0.6, 0.3, -90, 160, y=0.4)), 21),
    "7": Shape(
        (
            _points((-0.6, -1), (0.6, -1), (0.6, -0.68), (-0.6, -0.68)),
            _points((0.22, -0.7), (0.6, -0.7), (0.02, 1), (-0.36, 1)),
        ),
        20,
    ),
}
"""The classes of drawn scenes by name, in the order of their ids."""


class PlacedShape(NamedTuple):
    """An object of a scene, cropped to the image.

    coverage: uint8 [h, w], how much of each pixel it covers, of 255. corner: (x, y) of the first of these pixels.
    box_xyxy_px: its tight box, to a quarter of a pixel. inside: the share of its area that lies in the image.
    """

    class_id: int
    coverage: NDArray[np.uint8]
    corner: tuple[int, int]
    box_xyxy_px: tuple[float, float, float, float]
    inside: float
    color: tuple[int, int, int] = (0, 0, 0)

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image that the coverage is of."""
        (x, y), (height, width) = self.corner, self.coverage.shape
        return slice(y, y + height), slice(x, x + width)

    @property
    def solid(self) -> NDArray[np.bool_]:
        """The pixels of the window that are covered by half or more."""
        return self.coverage > 127


def place(
    class_id: int, shape: Shape, *, side: float, angle: float, center: NDArray[np.float64], size: int
) -> PlacedShape:
    """A shape in an image.

    Args:
        class_id: of the object.
        shape: of its class.
        side: the longer side of its box in pixels, were it all in the image.
        angle: how far it is rotated, in radians clockwise.
        center: (x, y) in pixels of the shape's origin.
        size: side of the image in pixels.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    rotated = [polygon @ np.array([[cosine, sine], [-sine, cosine]]) for polygon in shape.polygons]
    scale = side / np.ptp(np.concatenate(rotated), axis=0).max()
    return _rasterize(class_id, [polygon * scale + center for polygon in rotated], size)


def paint(background: NDArray[np.uint8], shapes: Sequence[PlacedShape]) -> NDArray[np.uint8]:
    """A copy of the background with the objects on it, the last on top."""
    canvas = background.copy()
    for shape in shapes:
        add_shape(canvas, shape)
    return canvas


def add_shape(canvas: NDArray[np.uint8], shape: PlacedShape) -> None:
    """Paints one object in place."""
    window, weight = canvas[shape.window], shape.coverage[..., None] / np.float32(255)
    window[:] = np.rint(window + weight * (np.array(shape.color, np.float32) - window)).astype(np.uint8)


def _rasterize(class_id: int, polygons: Sequence[Polygon], size: int) -> PlacedShape:
    """The union of polygons given in pixels, cropped to the image."""
    points = np.concatenate(polygons)
    low, high = np.floor(points.min(axis=0)).astype(int) - 1, np.ceil(points.max(axis=0)).astype(int) + 1
    width, height = (high - low).tolist()
    mask = np.zeros((height * _SUBPIXELS, width * _SUBPIXELS), np.uint8)
    for polygon in polygons:
        # OpenCV's integers are the middles of pixels.
        corners = ((polygon - low) * _SUBPIXELS - 0.5) * 2**_FRACTION_BITS
        cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255, shift=_FRACTION_BITS)
    whole = cv2.countNonZero(mask)
    first, end = np.clip(low, 0, size), np.clip(high, 0, size)
    (left, top), (right, bottom) = (first - low) * _SUBPIXELS, (end - low) * _SUBPIXELS
    mask = mask[top:bottom, left:right]
    if not mask.any():
        return PlacedShape(class_id, mask, (0, 0), (0, 0, 0, 0), 0)
    x, y, across, down = cv2.boundingRect(mask)
    box = np.array([x, y, x + across, y + down]) / _SUBPIXELS + np.tile(first, 2)
    corner, far = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    coverage = cv2.resize(mask, tuple((end - first).tolist()), interpolation=cv2.INTER_AREA)
    (column, row), (last_column, last_row) = corner - first, far - first
    return PlacedShape(
        class_id=class_id,
        coverage=coverage[row:last_row, column:last_column],
        corner=(int(corner[0]), int(corner[1])),
        box_xyxy_px=tuple(box.tolist()),
        inside=cv2.countNonZero(mask) / whole,
    )

"""Random warps of images as 3×3 matrices, and what they make of boxes. Coordinates are edges of pixels, as in boxes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import AugmentConfig

Matrix = NDArray[np.float64]
"""[3, 3], takes homogeneous (x, y, 1) from one image's pixels to another's."""

MIN_SIDE_PX = 2.0
MIN_AREA = 0.1
MIN_AREA_POLYGON = 0.01
MAX_ASPECT = 20.0
"""What a box must keep to stay a label: both sides over this, over this share of its area, and an aspect under this.

Less of its area is enough if a polygon says what shows of the object.
"""

HORIZON = 1e-6
"""Points whose third coordinate is under this are at or behind the horizon of a perspective."""


def shift(x: float, y: float) -> Matrix:
    """The matrix of a translation."""
    return scale_and_shift(1, 1, x, y)


def scale_and_shift(across: float, down: float, x: float, y: float) -> Matrix:
    """The matrix that scales and then translates."""
    return np.array([[across, 0, x], [0, down, y], [0, 0, 1]], np.float64)


def random_warp(
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    canvas: tuple[int, int],
    size: tuple[int, int],
    zoom: float = 1.0,
) -> tuple[Matrix, float]:
    """A random view of a canvas as seen in an image: the matrix from canvas to image, and its scale.

    About the center of the canvas: perspective, rotation with scale, shear; then the center goes to the center of the
    image, give or take a translation.

    Args:
        rng: what all of it is drawn from.
        config: the ranges.
        canvas: height and width of the canvas in pixels.
        size: height and width of the image in pixels.
        zoom: pixels of the image to one of the canvas, before the random scale; part of the scale that is returned.
    """
    draws = rng.uniform(-1, 1, 7)
    scale = zoom * (rng.uniform(1 - config.scale, 1 + config.scale_extra + config.scale) if config.scale else 1.0)
    tilt_x, tilt_y = draws[:2] * config.perspective
    angle = math.radians(draws[2] * config.degrees)
    shear_x, shear_y = (math.tan(math.radians(draw * config.shear)) for draw in draws[3:5])
    x, y = (0.5 + draws[5:] * config.translate) * size[::-1]
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    view = np.array([[1.0, 0, 0], [0, 1, 0], [tilt_x, tilt_y, 1]])
    flat = np.eye(3)
    flat[:2, :2] = np.array([[1, shear_x], [shear_y, 1]]) @ turn
    return shift(x, y) @ flat @ view @ shift(-canvas[1] / 2, -canvas[0] / 2), float(scale)


def is_upright(matrix: Matrix) -> bool:
    """Whether a warp only scales and shifts, so that rectangles stay upright rectangles."""
    bends = matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]
    return not bends and matrix[0, 0] > 0 and matrix[1, 1] > 0


def warp_boxes(boxes_xyxy_px: NDArray[np.floating], matrix: Matrix) -> NDArray[np.float64]:
    """The smallest upright boxes [n, 4] around warped boxes; what lies behind the horizon is left out.

    Args:
        boxes_xyxy_px: [n, 4].
        matrix: one for all, [3, 3], or one for each box, [n, 3, 3].
    """
    corners = np.ones((len(boxes_xyxy_px), 4, 3))  # [n, 4, 3]
    corners[:, :, 0] = boxes_xyxy_px[:, [0, 2, 2, 0]]  # clockwise: neighbors share an edge
    corners[:, :, 1] = boxes_xyxy_px[:, [1, 1, 3, 3]]
    points = corners @ matrix.swapaxes(-1, -2)  # [n, 4, 3]
    visible = points[..., 2] >= HORIZON
    if not visible.all():
        points = np.concatenate([points, _at_horizon(points)], axis=1)  # [n, 8, 3]
        visible = points[..., 2] >= HORIZON
    place = points[..., :2] / np.where(visible, points[..., 2], 1)[..., None]
    low = np.where(visible[..., None], place, np.inf).min(axis=1)  # [n, 2]
    high = np.where(visible[..., None], place, -np.inf).max(axis=1)
    gone = ~visible.any(axis=1)
    low[gone] = high[gone] = 0
    return np.concatenate([low, high], axis=1)


def _at_horizon(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the edges of quadrilaterals [n, 4, 3] (homogeneous) cross the horizon; edges that do not: zeros."""
    after = np.roll(points, -1, axis=1)
    here, there = points[..., 2:], after[..., 2:]
    crosses = (here >= HORIZON) != (there >= HORIZON)
    along = (HORIZON - here) / np.where(crosses, there - here, 1)
    crossing = points + along * (after - points)
    crossing[..., 2] = HORIZON  # exactly, whatever the rounding
    return np.where(crosses, crossing, 0)


def still_labels(
    before_xyxy_px: NDArray[np.floating],
    after_xyxy_px: NDArray[np.floating],
    scale: float | NDArray[np.float64],
    *,
    least: float | NDArray[np.float64] = MIN_AREA,
) -> NDArray[np.bool_]:
    """Which boxes [n, 4] are enough of an object after a warp and clipping to be kept; bool [n].

    Args:
        before_xyxy_px: before the warp.
        after_xyxy_px: after it.
        scale: of the warp, one for all or [n].
        least: share of its area that a box must keep, one for all or [n].
    """
    width, height = (after_xyxy_px[:, 2:] - after_xyxy_px[:, :2]).T
    former = np.prod(before_xyxy_px[:, 2:] - before_xyxy_px[:, :2], axis=1) * scale**2
    is_large = (width > MIN_SIDE_PX) & (height > MIN_SIDE_PX) & (width * height > least * former)
    return is_large & (width < MAX_ASPECT * height) & (height < MAX_ASPECT * width)

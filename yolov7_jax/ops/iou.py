"""Overlap of boxes: one body for numpy and JAX."""

from __future__ import annotations

from yolov7_jax.types import Array


def pairwise_iou(boxes_xyxy: Array, others_xyxy: Array) -> Array:
    """Intersection over union [n, m] of every box [n, 4] with every other [m, 4], in one unit.

    Boxes without area (or with corners in the wrong order) overlap nothing: their row or column is 0, never NaN.
    """
    xp = boxes_xyxy.__array_namespace__()
    a, b = boxes_xyxy[:, None, :], others_xyxy[None, :, :]
    width = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
    height = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
    intersection = xp.maximum(width, 0) * xp.maximum(height, 0)
    union = _area(a) + _area(b) - intersection
    return intersection / xp.where(union > 0, union, 1)


def _area(boxes_xyxy: Array) -> Array:
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])

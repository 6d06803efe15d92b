"""Overlap of boxes."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from yolov7_jax.types import ArrayT

IouType = Literal["ciou", "diou", "giou", "iou"]
"""Measures of how well boxes agree, for training."""

EPSILON = 1e-7
"""added to what is divided by in `bbox_iou`"""


def pairwise_iou(boxes_xyxy: ArrayT, others_xyxy: ArrayT) -> ArrayT:
    """Intersection over union [n, m] of every box [n, 4] with every other [m, 4], in one unit, of numpy or JAX.

    Boxes without area (or with corners in the wrong order) overlap nothing: their row or column is 0, never NaN.
    """
    xp = boxes_xyxy.__array_namespace__()
    a, b = boxes_xyxy[:, None, :], others_xyxy[None, :, :]
    width = xp.minimum(a[..., 2], b[..., 2]) - xp.maximum(a[..., 0], b[..., 0])
    height = xp.minimum(a[..., 3], b[..., 3]) - xp.maximum(a[..., 1], b[..., 1])
    intersection = xp.maximum(width, 0) * xp.maximum(height, 0)
    union = _area(a) + _area(b) - intersection
    return intersection / xp.where(union > 0, union, 1)


def bbox_iou(boxes_cxcywh: jax.Array, others_cxcywh: jax.Array, *, iou_type: IouType = "ciou") -> jax.Array:
    """How well boxes [..., 4] agree with as many others, in one unit: [...], 1 where they are the same.

    iou: intersection over union. giou: less the share of the enclosing box that neither covers (arXiv:1902.09630).
    diou: IoU less the squared distance of the centers over the squared diagonal of the enclosing box. ciou: that less
    α · v, where v is the difference of the shapes; α carries no gradient (both arXiv:1911.08287). Value and gradient
    are finite for all boxes whose sizes are not negative (and may be 0) and whose numbers are not over 1e18.
    """
    size, other = boxes_cxcywh[..., 2:], others_cxcywh[..., 2:]
    offset = boxes_cxcywh[..., :2] - others_cxcywh[..., :2]
    apart = jnp.maximum(offset, -offset)  # abs, but of slope 0 at 0
    # From the distance of the centers, not from corners: so nothing is lost to rounding far from the origin.
    shared = jnp.maximum(jnp.minimum(jnp.minimum(size, other), (size + other) / 2 - apart), 0)
    enclosing = jnp.maximum(jnp.maximum(size, other), (size + other) / 2 + apart)
    intersection = shared.prod(-1)
    union = size.prod(-1) + other.prod(-1) - intersection + EPSILON
    iou = intersection / union
    if iou_type == "iou":
        return iou
    if iou_type == "giou":
        return iou - (1 - union / (enclosing.prod(-1) + EPSILON))
    distance = jnp.square(apart).sum(-1) / (jnp.square(enclosing).sum(-1) + EPSILON)
    if iou_type == "diou":
        return iou - distance
    v = jnp.square(_angle(size) - _angle(other)) * (4 / math.pi**2)
    alpha = lax.stop_gradient(v / (jnp.maximum(1 - iou, 0) + v + EPSILON))
    return iou - distance - alpha * v


def _angle(size_wh: jax.Array) -> jax.Array:
    """Arctangent of width over height; that of two arguments, whose gradient stays finite without height."""
    return jnp.arctan2(size_wh[..., 0], size_wh[..., 1] + EPSILON)


def _area(boxes_xyxy: ArrayT) -> ArrayT:
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])

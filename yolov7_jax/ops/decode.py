"""From raw outputs to boxes and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolov7_jax.types import Grid

UNBOUNDED = 1.0
"""The `Grid.center_bound` that the farthest cells of an auxiliary head need (YOLOv7, arXiv:2207.02696)."""


def make_grid(
    anchors: Sequence[Sequence[tuple[float, float]]], strides: Sequence[int], image_size: tuple[int, int]
) -> Grid:
    """Where the predictions of images of one size (height, width) live: level, row, column, anchor.

    The size may be symbolic, while a program for any size is traced.
    """
    xp: Any = np if all(isinstance(side, int) for side in image_size) else jnp
    cells, steps, sizes, levels = [], [], [], []
    start = 0
    for level, stride in zip(anchors, strides, strict=True):
        h, w, a = image_size[0] // stride, image_size[1] // stride, len(level)
        columns, rows = xp.broadcast_to(xp.arange(w), (h, w)), xp.broadcast_to(xp.arange(h)[:, None], (h, w))
        cell = xp.stack([columns, rows], -1).reshape(h * w, 1, 2)
        cells.append(xp.broadcast_to(cell, (h * w, a, 2)).reshape(h * w * a, 2))
        steps.append(xp.full(h * w * a, stride, np.float32))
        anchor = np.asarray(level, np.float32)
        sizes.append(xp.broadcast_to(anchor, (h * w, a, 2)).reshape(h * w * a, 2))
        levels.append(slice(start, start := start + h * w * a))
    return Grid(xp.concatenate(cells).astype(np.float32), xp.concatenate(steps), xp.concatenate(sizes), tuple(levels))


def center_in_cell(sigma_xy: jax.Array, center_bound: float) -> jax.Array:
    """Centers from the corner of their cell, in cells: 2σ − 0.5 where the bound is 0.5, 3σ − 1 where it is 1."""
    return (1 + 2 * center_bound) * sigma_xy - center_bound


def decode(raw: jax.Array, grid: Grid) -> jax.Array:
    """Raw outputs [..., N, 5 + C] → [..., N, (cx, cy, w, h in pixels, objectness, classes)] after sigmoid.

    With σ the sigmoid: center = (2σ − 0.5 + cell) · stride, size = (2σ)² · anchor (YOLOv5 v6.0, box regression); the
    grid's `center_bound` takes the place of 0.5.
    """
    sigma = jax.nn.sigmoid(raw)
    leading = (1,) * (raw.ndim - 2)
    cell, stride, anchor = (
        jnp.asarray(part, raw.dtype).reshape(*leading, -1, width)
        for part, width in ((grid.cell, 2), (grid.stride, 1), (grid.anchor_px, 2))
    )
    center = (center_in_cell(sigma[..., 0:2], grid.center_bound) + cell) * stride
    size = jnp.square(2 * sigma[..., 2:4]) * anchor
    return jnp.concatenate([center, size, sigma[..., 4:]], axis=-1)


def class_scores(predictions: jax.Array, *, single_class_score: str) -> jax.Array:
    """Scores [..., N, C] of decoded predictions [..., N, 5 + C]: objectness times class.

    With one class and `single_class_score` "objectness" it is objectness alone (YOLOv7 never trains that class).
    """
    if predictions.shape[-1] == 6 and single_class_score == "objectness":
        return predictions[..., 4:5]
    return predictions[..., 4:5] * predictions[..., 5:]

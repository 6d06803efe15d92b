"""From raw outputs to boxes and scores."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from yolov7_jax.types import Grid

UNBOUNDED = 1.0
"""The `Grid.center_bound` that the farthest cells of an auxiliary head need (YOLOv7, arXiv:2207.02696)."""


def make_grid(
    anchors: Sequence[Sequence[tuple[float, float]]], strides: Sequence[int], image_size: tuple[int, int]
) -> Grid:
    """Where the predictions of images of one size (height, width) live: level, row, column, anchor."""
    cells, steps, sizes, levels = [], [], [], []
    start = 0
    for level, stride in zip(anchors, strides, strict=True):
        h, w, a = image_size[0] // stride, image_size[1] // stride, len(level)
        rows, columns = np.mgrid[0:h, 0:w]
        cells.append(np.stack([columns, rows], -1).reshape(-1, 1, 2).repeat(a, 1).reshape(-1, 2))
        steps.append(np.full(h * w * a, stride))
        sizes.append(np.tile(np.asarray(level), (h * w, 1)))
        levels.append(slice(start, start := start + h * w * a))
    return Grid(
        np.concatenate(cells).astype(np.float32),
        np.concatenate(steps).astype(np.float32),
        np.concatenate(sizes).astype(np.float32),
        tuple(levels),
    )


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

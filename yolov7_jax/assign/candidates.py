"""Which predictions may be assigned to a box, from the box and the anchors alone; numpy, for data workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.types import Candidates

FINE_NEIGHBOR_OFFSET = 0.5
"""of the lead head: a center's own cell and the nearest ones, at most one to a side and one above or below"""
COARSE_NEIGHBOR_OFFSET = 1.0
"""of an auxiliary head: the own cell and all four around it"""


def candidates(
    boxes_cxcywh_px: NDArray[np.floating],
    valid: NDArray[np.bool_],
    *,
    anchors: Sequence[Sequence[tuple[float, float]]],
    strides: Sequence[int],
    image_size: tuple[int, int],
    anchor_t: float,
    neighbor_offset: float,
    capacity: int | None = None,
) -> tuple[Candidates, int]:
    """The candidates of every box of one image, and how many there were over the capacity.

    An anchor is taken where no side of the box is `anchor_t` times larger or smaller than the anchor's; of each such
    anchor the box gets its center's cell and those neighbors that are within `neighbor_offset` of the center
    (YOLOv5; the coarse set: YOLOv7, arXiv:2207.02696). No prediction is twice in a box's list.

    Args:
        boxes_cxcywh_px: [M, 4] in pixels of the image; a center outside of it counts for the nearest border cell.
        valid: [M], False for padding, which has no candidates.
        anchors: [L][A](width, height) in pixels.
        strides: [L] pixels of a cell.
        image_size: (h, w) in pixels.
        anchor_t: how many times larger or smaller than an anchor a box may be.
        neighbor_offset: in cells, over 0 and at most 1; see FINE_NEIGHBOR_OFFSET and COARSE_NEIGHBOR_OFFSET.
        capacity: K, the slots of a box. By default all that can be needed: 3 for each anchor of each level where
            neighbor_offset is at most one half, 5 where it is more.

    Returns:
        Candidates of shape [M, K], whose index counts level, row, column, anchor as `ops.decode.make_grid` does, valid
        ones first, own cells before neighbors; and the number of those left out.
    """
    tables = _tables(tuple(tuple(map(tuple, level)) for level in anchors), tuple(strides), image_size)
    boxes = np.asarray(boxes_cxcywh_px, np.float64)[valid][:, None, :]
    size = boxes[..., 2:]
    fits = np.all((size < anchor_t * tables.anchor_px) & (size * anchor_t > tables.anchor_px), axis=-1)
    index, found = _cells_around(boxes[..., :2] / tables.stride, tables, neighbor_offset)
    return _packed(index, found & fits[:, None, :], np.flatnonzero(valid), len(valid), capacity)


class _Tables(NamedTuple):
    """One entry for each anchor of each level, J in all."""

    anchor_px: NDArray[np.float64]  # [J, 2]
    stride: NDArray[np.float64]  # [J, 1]
    grid_wh: NDArray[np.int64]  # [J, 2]
    first: NDArray[np.int64]  # [J], of the level's first cell, for this anchor
    step: NDArray[np.int64]  # [J, 2], from a cell to the next column and the next row


@lru_cache(maxsize=8)
def _tables(
    anchors: tuple[tuple[tuple[float, float], ...], ...], strides: tuple[int, ...], image_size: tuple[int, int]
) -> _Tables:
    rows, start = [], 0
    for level, stride in zip(anchors, strides, strict=True):
        h, w, a = image_size[0] // stride, image_size[1] // stride, len(level)
        rows += [((*pair, stride), (w, h, start + place, a, a * w)) for place, pair in enumerate(level)]
        start += h * w * a
    sizes, counts = np.array([row[0] for row in rows], np.float64), np.array([row[1] for row in rows], np.int64)
    return _Tables(sizes[:, :2], sizes[:, 2:], counts[:, :2], counts[:, 2], counts[:, 3:])


def _cells_around(
    center: NDArray[np.float64], tables: _Tables, neighbor_offset: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index [n, S, J] of the own cell and its neighbors in S - 1 directions, and which of them are there.

    center: [n, J, 2] in cells. A neighbor in grid order lies `neighbor_offset` from the center; where that point is
    still in the own cell (a center on the edge of two cells, or of the image) it is no neighbor.
    """
    last, far = tables.grid_wh - 1, tables.grid_wh - center

    def cell(point: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.minimum(np.maximum(point.astype(np.int64), 0), last)

    own = cell(center)
    before, after = cell(center - neighbor_offset) - own, cell(center + neighbor_offset) - own
    before *= (center % 1 < neighbor_offset) & (center > 1)
    after *= (far % 1 < neighbor_offset) & (far > 1)
    # Within half a cell there is one neighbor or none along each axis: the two directions share a slot.
    moves = np.concatenate([before + after] if neighbor_offset <= FINE_NEIGHBOR_OFFSET else [before, after], axis=-1)
    steps = np.tile(tables.step, moves.shape[-1] // 2)
    index = tables.first + (own * tables.step).sum(-1)
    around = (index[..., None] + moves * steps).transpose(0, 2, 1)
    return (
        np.concatenate([index[:, None, :], around], axis=1),
        np.concatenate([np.ones_like(index[:, None, :], bool), (moves != 0).transpose(0, 2, 1)], axis=1),
    )


def _packed(
    index: NDArray[np.int64], found: NDArray[np.bool_], rows: NDArray[np.intp], M: int, capacity: int | None
) -> tuple[Candidates, int]:
    """What was found for the boxes in `rows` of M, in the first slots of each, as far as there is place."""
    slots = found.shape[1] * found.shape[2]
    K = slots if capacity is None else capacity
    box, place = np.nonzero(found.reshape(-1, slots))
    slot = np.arange(len(box)) - np.searchsorted(box, box)
    kept = slot < K
    packed = Candidates(np.zeros((M, K), np.int32), np.zeros((M, K), np.bool_))
    at = rows[box[kept]], slot[kept]
    packed.index[at] = index.reshape(-1, slots)[box[kept], place[kept]]
    packed.valid[at] = True
    return packed, int(len(kept) - kept.sum())

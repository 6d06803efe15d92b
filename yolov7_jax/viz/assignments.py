"""Which cells of which levels are assigned to the boxes of an image, drawn on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.types import Assignment, Candidates, Grid
from yolov7_jax.viz.draw import Color, class_color, draw_frame
from yolov7_jax.viz.sheet import LEAST_CELL, arrange, headed

Image = NDArray[np.uint8]

CANDIDATE_TINT, POSITIVE_TINT = 0.2, 0.6
"""How much of a box's color the cells of its candidates and of its positives have."""


class HeadCells(NamedTuple):
    """What one head has of an image. name: in words. candidates: [M, K]. assignment: [P]."""

    name: str
    candidates: Candidates
    assignment: Assignment


def draw_cells(image: Image, boxes_cxcywh_px: NDArray[np.floating[Any]], heads: list[HeadCells], grid: Grid) -> Image:
    """One image a level and head, heads below each other: boxes, their candidates, and the positives among these.

    Every box has a color; the cells of its candidates are tinted with it, those of its positives strongly, and the
    anchors of the positives are framed around their cells.

    Args:
        image: uint8 [H, W, 3] RGB.
        boxes_cxcywh_px: [M, 4]; a box without candidates is drawn nowhere.
        heads: lead, and auxiliary if there is one.
        grid: where the predictions live.
    """
    factor = max(-(-LEAST_CELL // min(image.shape[:2])), 1)
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    drawn = [
        _level(large, factor, boxes_cxcywh_px, head, grid, level) for head in heads for level in range(len(grid.levels))
    ]
    return arrange(drawn, len(grid.levels))


def _level(
    image: Image, factor: int, boxes_cxcywh_px: NDArray[np.floating[Any]], head: HeadCells, grid: Grid, level: int
) -> Image:
    canvas = image.copy()
    candidates = list(_of_level(_pairs_of_candidates(head.candidates), grid, level))
    positives = list(_of_level(_pairs_of_positives(head.assignment), grid, level))
    for tint, pairs in ((CANDIDATE_TINT, candidates), (POSITIVE_TINT, positives)):
        for box, cell in dict.fromkeys((box, tuple(grid.cell[at])) for box, at in pairs):
            _tint(canvas, np.array(cell), float(grid.stride[grid.levels[level].start]) * factor, class_color(box), tint)
    for box in sorted({box for box, _ in candidates}):
        draw_frame(canvas, _corners(canvas, boxes_cxcywh_px[box] * factor), class_color(box), 2)
    for box, at in positives:
        center = (grid.cell[at] + 0.5) * grid.stride[at]
        anchor = np.concatenate([center, grid.anchor_px[at]]) * factor
        draw_frame(canvas, _corners(canvas, anchor), class_color(box), 1)
    stride = int(grid.stride[grid.levels[level].start])
    return headed(canvas, f"{head.name}, stride {stride}: {len(positives)} of {len(candidates)} candidates")


def _pairs_of_candidates(candidates: Candidates) -> Iterator[tuple[int, int]]:
    """Boxes and predictions."""
    for box, slot in np.argwhere(candidates.valid):
        yield int(box), int(candidates.index[box, slot])


def _pairs_of_positives(assignment: Assignment) -> Iterator[tuple[int, int]]:
    for slot in np.flatnonzero(assignment.positive):
        yield int(assignment.truth[slot]), int(assignment.index[slot])


def _of_level(pairs: Iterator[tuple[int, int]], grid: Grid, level: int) -> Iterator[tuple[int, int]]:
    here = grid.levels[level]
    return ((box, at) for box, at in pairs if here.start <= at < here.stop)


def _tint(canvas: Image, cell: NDArray[np.floating[Any]], side: float, color: Color, share: float) -> None:
    left, top = (cell * side).astype(int)
    part = canvas[top : top + int(side), left : left + int(side)]
    part[:] = np.rint((1 - share) * part + share * np.array(color))


def _corners(canvas: Image, box_cxcywh: NDArray[np.floating[Any]]) -> NDArray[np.int_]:
    height, width = canvas.shape[:2]
    return np.rint(cxcywh_to_xyxy(box_cxcywh)).clip(0, [width, height] * 2).astype(int)

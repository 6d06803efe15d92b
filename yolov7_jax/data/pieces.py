"""Samples, or objects cut out of them, in an image that they are put into: what is left of their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.clip import visible_boxes, visible_region
from yolov7_jax.data.geometry import MIN_AREA, MIN_AREA_POLYGON, Matrix, still_labels, warp_boxes
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.ops.polygons import joined, select
from yolov7_jax.types import Sample


class Piece(NamedTuple):
    """A sample in an image. part: the xyxy part of its pixels that shows. matrix: from its pixels to the image's.

    scale: of the matrix, for judging how much of a box is left.
    """

    sample: Sample
    part: tuple[int, int, int, int]
    matrix: Matrix
    scale: float


class Shown(NamedTuple):
    """The objects of pieces in their image, all in a row. boxes_xyxy_px: float64 [n, 4]; zero where nothing shows.

    class_ids: int32 [n]. enough: bool [n], whether what shows of each is enough to be a label.
    """

    boxes_xyxy_px: NDArray[np.float64]
    class_ids: NDArray[np.int32]
    enough: NDArray[np.bool_]


def shown(pieces: Sequence[Piece], shape: tuple[int, int]) -> Shown:
    """What an image of `shape` (h, w) shows of the objects of pieces, at least one.

    The box of an object that has polygons is the box of what shows of them; that of another is around what
    shows of its box.
    """
    counts = [len(piece.sample.class_ids) for piece in pieces]
    boxes = np.concatenate([piece.sample.boxes_xyxy_px for piece in pieces]).astype(np.float64)
    parts = np.repeat([piece.part for piece in pieces], counts, axis=0)
    showing = np.clip(boxes, parts[:, [0, 1, 0, 1]], parts[:, [2, 3, 2, 3]])
    warped = clip_boxes(warp_boxes(showing, np.repeat([piece.matrix for piece in pieces], counts, axis=0)), shape)
    least = np.full(len(boxes), MIN_AREA)
    polygons = joined([piece.sample.polygons for piece in pieces], counts)
    shows = np.all(warped[:, 2:] > warped[:, :2], axis=1)
    visible = select(polygons, shows)
    if len(visible.owner):
        place = np.repeat(np.arange(len(pieces)), counts)[shows][visible.owner]
        regions = [visible_region(piece.part, piece.matrix, shape) for piece in pieces]
        with_polygons, exact = visible_boxes(visible, place, regions)
        with_polygons = np.flatnonzero(shows)[with_polygons]
        warped[with_polygons], least[with_polygons] = clip_boxes(exact, shape), MIN_AREA_POLYGON
    scales = np.repeat([piece.scale for piece in pieces], counts)
    class_ids = np.concatenate([piece.sample.class_ids for piece in pieces]).astype(np.int32)
    return Shown(warped, class_ids, still_labels(showing, warped, scales, least=least))


def cut_out(sample: Sample, index: int) -> Sample:
    """One object of a sample that has polygons: its box, class and polygons alone, in the same image."""
    chosen = np.arange(len(sample.class_ids)) == index
    return sample._replace(
        boxes_xyxy_px=sample.boxes_xyxy_px[chosen],
        class_ids=sample.class_ids[chosen],
        polygons=select(sample.polygons, chosen),
    )

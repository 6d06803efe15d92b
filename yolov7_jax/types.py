"""The values that cross between packages. Sizes are named as in the documentation.

`B` images, `M` padded boxes of an image, `N` predictions of an image over all levels, `L` levels, `A` anchors of a
level, `C` classes, `K` candidate slots of a box, `P` = M·K, `D` detections kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of numpy or of JAX."""


class Grid(NamedTuple):
    """Where the predictions of one image size live: rows are ordered level, row, column, anchor.

    cell: float [N, 2], column and row (x, y) of the cell. stride: float [N], pixels of a cell.
    anchor_px: float [N, 2], width and height of the anchor. levels: the slice of N that each level owns.
    """

    cell: Array
    stride: Array
    anchor_px: Array
    levels: tuple[slice, ...]


class Outputs(NamedTuple):
    """Raw outputs of a network, before any sigmoid: lead [B, N, 5 + C] and, in training forms that have one, aux."""

    lead: Array
    aux: Array | None = None


class Candidates(NamedTuple):
    """The predictions that may become positives of each box, from boxes and anchors alone; slots not `valid` hold 0.

    index: int32 [B, M, K] into N. valid: bool [B, M, K].
    """

    index: Array
    valid: Array


class Assignment(NamedTuple):
    """Which candidates are positives, and of which box.

    index: int32 [B, P] into N. truth: int32 [B, P] into M. positive: bool [B, P].
    """

    index: Array
    truth: Array
    positive: Array


class Batch(NamedTuple):
    """What a training step sees; padded boxes are zero and not `valid`.

    image: uint8 [B, H, W, 3] RGB. boxes_cxcywh_px: float32 [B, M, 4]. class_ids: int32 [B, M]. valid: bool [B, M].
    fine: candidates of the lead head. coarse: those of an auxiliary head, where the loss has one.
    overflow: int32 [B, 2], boxes over M and candidates over K, which were left out.
    index: int32 [B], which image of the source each one was made around.
    """

    image: Array
    boxes_cxcywh_px: Array
    class_ids: Array
    valid: Array
    fine: Candidates
    coarse: Candidates | None
    overflow: Array
    index: Array


class PaddedDetections(NamedTuple):
    """Detections of fixed size on the device, best score first; rows that are not `valid` are zero.

    boxes_xyxy_px: float [B, D, 4]. scores: float [B, D]. class_ids: int32 [B, D]. valid: bool [B, D].
    overflow: int32 [B], candidates beyond the capacity of suppression, which were left out.
    """

    boxes_xyxy_px: Array
    scores: Array
    class_ids: Array
    valid: Array
    overflow: Array


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best score first.

    boxes_xyxy_px: float32 [n, 4] in pixels of the source image. scores: float32 [n]. class_ids: int32 [n].
    names: the names of all classes. overflow: candidates that suppression had no room for (0 but in crowds).
    """

    boxes_xyxy_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    names: tuple[str, ...]
    overflow: int = 0

    def __len__(self) -> int:
        return len(self.scores)


class Polygons(NamedTuple):
    """The outlines of the objects of an image, all in a row; an object has several polygons, one or none.

    points_xy_px: float32 [p, 2], their corners. corners: int32 [k], how many each polygon has. owner: int32 [k], the
    object that each is of, ascending.
    """

    points_xy_px: NDArray[np.float32]
    corners: NDArray[np.int32]
    owner: NDArray[np.int32]


NO_POLYGONS = Polygons(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), np.zeros(0, np.int32))


class Sample(NamedTuple):
    """One labelled image of a data source.

    image: uint8 [h, w, 3] RGB. boxes_xyxy_px: float32 [n, 4] in its pixels. class_ids: int32 [n].
    id: what the data set calls it (the image id of COCO JSON, else the position). polygons: of those objects that have
    an outline, whose box is the box around it.
    """

    image: NDArray[np.uint8]
    boxes_xyxy_px: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    id: int
    polygons: Polygons = NO_POLYGONS

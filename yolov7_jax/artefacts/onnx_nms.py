"""Non-maximum suppression as ONNX operators: what `ops.nms.non_max_suppression` gives, of any number of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from yolov7_jax.artefacts.onnx_steps import Steps
from yolov7_jax.artefacts.program import CAPACITY

CONFIDENCE, IOU, CLASS_MASK = "confidence", "iou", "class_mask"
MULTI_LABEL, AGNOSTIC, MAX_DETECTIONS = "multi_label", "agnostic", "max_detections"

INPUTS: Mapping[str, Any] = {
    CONFIDENCE: np.float32,
    IOU: np.float32,
    MULTI_LABEL: np.bool_,
    AGNOSTIC: np.bool_,
    MAX_DETECTIONS: np.int64,
    CLASS_MASK: np.bool_,
}
"""Inputs of a model that say how, and their dtypes; all but the mask are numbers without axes."""


class _Rows(NamedTuple):
    """The predictions of each image that may be detections, K of them, in their order.

    boxes [b, K, 4]; scores [b, K, C], 0 for what is no candidate; best_class [b, K]; across [b, K]: whether a box
    suppresses those of another class, and so its own of another class too: then its best score alone is there, in place
    of class 0.
    """

    boxes: str
    scores: str
    best_class: str
    across: str


def suppress(
    s: Steps, boxes: str, objectness: str, scores: str, classes: int, predictions: int
) -> tuple[str, str, str, str]:
    """Adds what turns boxes [b, N, 4], objectness [b, N, 1] and scores [b, N, C] into detections.

    Returns:
        Names of boxes [b, 300, 4], scores [b, 300], classes int32 [b, 300] and counts int32 [b]; best first, zero
        beyond the count.
    """
    rows = _candidates(s, *_passing(s, boxes, objectness, scores, predictions), classes)
    return _best(s, rows, _survivors(s, rows), classes)


def _unsqueezed(s: Steps, x: str, axis: int) -> str:
    return s.op("Unsqueeze", x, np.array([axis]))


def _passing(s: Steps, boxes: str, objectness: str, scores: str, predictions: int) -> tuple[str, str, str]:
    """The predictions whose objectness and best score pass, [b, K, ...], in their order: boxes, scores, is there one.

    K is their number in the image that has most of them. All that follows is of these few.
    """
    best = s.op("ReduceMax", scores, axes=(2,), keepdims=0)
    objects = s.op("Greater", s.op("Squeeze", objectness, np.array([2])), CONFIDENCE)
    passes = s.op("And", objects, s.op("Greater", best, CONFIDENCE))
    number = s.op("ReduceSum", s.op("Cast", passes, to="int64"), np.array([1]), keepdims=0)
    most = s.op("Max", s.op("ReduceMax", number, keepdims=0), np.array(1))
    order = np.arange(predictions, 0, -1, dtype=np.float32)[None]
    keys, places = s.ops(
        2,
        "TopK",
        s.op("Where", passes, order, np.float32(0)),
        s.op("Reshape", most, np.array([1])),
        axis=1,
        largest=1,
        sorted=1,
    )
    index = _unsqueezed(s, places, 2)
    there = _unsqueezed(s, s.op("Greater", keys, np.float32(0)), 2)
    return (
        s.op("GatherND", boxes, index, batch_dims=1),
        s.op("GatherND", scores, index, batch_dims=1),
        there,
    )


def _candidates(s: Steps, boxes: str, scores: str, there: str, classes: int) -> _Rows:
    """Scores of candidates alone. Every class that is wanted may be one, or the best alone if it is wanted."""
    mask = s.op("Reshape", CLASS_MASK, np.array([1, 1, classes]))
    passes = s.op("And", s.op("Greater", scores, CONFIDENCE), s.op("And", mask, there))
    wanted = s.op("Where", passes, scores, np.float32(0))
    best = s.op("ReduceMax", wanted, axes=(2,), keepdims=1)
    best_class = s.op("ArgMax", wanted, axis=2, keepdims=1)
    number = np.arange(classes)[None, None]
    is_best = s.op("Equal", best_class, number)
    among_all = s.op("Equal", best, s.op("ReduceMax", scores, axes=(2,), keepdims=1))
    alone = s.op("And", is_best, s.op("Or", among_all, MULTI_LABEL))
    # At IoU 1, and without area, a box does not suppress its own other classes.
    corners = [s.op("Slice", boxes, *map(np.array, ([i], [i + 2], [2]))) for i in (0, 2)]
    area = s.op("ReduceProd", s.op("Sub", *reversed(corners)), axes=(2,), keepdims=1)
    overlaps = s.op("And", s.op("Less", IOU, np.float32(1)), s.op("Greater", area, np.float32(0)))
    across = s.op("And", AGNOSTIC, overlaps)
    every = s.op("And", MULTI_LABEL, s.op("Not", across))
    kept = s.op("Where", s.op("Or", every, alone), wanted, np.float32(0))
    first = s.op("Where", number == 0, s.op("ReduceMax", kept, axes=(2,), keepdims=1), np.float32(0))
    return _Rows(
        boxes,
        s.op("Where", across, first, kept),
        s.op("Squeeze", best_class, np.array([2])),
        s.op("Squeeze", across, np.array([2])),
    )


def _survivors(s: Steps, rows: _Rows) -> str:
    """Scores [b, K, C] with 0 in place of what other boxes suppress."""
    by_class = s.op("Transpose", rows.scores, perm=(0, 2, 1))
    selected = s.op(
        "NonMaxSuppression", rows.boxes, by_class, MAX_DETECTIONS, IOU, CONFIDENCE
    )  # rows of image, class, prediction
    where = s.op("Gather", selected, np.array([0, 2, 1]), axis=1)
    nothing = s.op("Expand", np.float32(0), s.op("Shape", rows.scores))
    return s.op("ScatterND", nothing, where, s.op("GatherND", rows.scores, where))


def _best(s: Steps, rows: _Rows, scores: str, classes: int) -> tuple[str, str, str, str]:
    """The best of each image, in order: equal scores by prediction, then class."""
    flat = s.op("Reshape", scores, np.array([0, -1]))
    padded = s.op("Pad", flat, np.array([0, 0, 0, CAPACITY]), np.float32(0), mode="constant")
    values, places = s.ops(2, "TopK", padded, np.array([CAPACITY]), axis=1, largest=1, sorted=1)
    within = s.op("Less", np.arange(CAPACITY)[None], MAX_DETECTIONS)
    valid = s.op("And", s.op("Greater", values, np.float32(0)), within)
    places = s.op("Where", valid, places, np.array(0))
    row = _unsqueezed(s, s.op("Div", places, np.array(classes)), 2)
    class_ids = s.op(
        "Where",
        s.op("GatherND", rows.across, row, batch_dims=1),
        s.op("GatherND", rows.best_class, row, batch_dims=1),
        s.op("Mod", places, np.array(classes)),
    )
    boxes = s.op("GatherND", rows.boxes, row, batch_dims=1)
    counts = s.op("ReduceSum", s.op("Cast", valid, to="int64"), np.array([1]), keepdims=0)
    return (
        s.op("Where", _unsqueezed(s, valid, 2), boxes, np.float32(0)),
        s.op("Where", valid, values, np.float32(0)),
        s.op("Cast", s.op("Where", valid, class_ids, np.array(0)), to="int32"),
        s.op("Cast", counts, to="int32"),
    )

"""Whether an artefact finds what its source finds: in scores and boxes before suppression, and in detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DifferenceError
from yolov7_jax.ops.iou import pairwise_iou

SAME_BOX_IOU = 0.9
"""Detections of one class that overlap so much are one in source and artefact."""


class Tolerance(NamedTuple):
    """The largest differences between source and artefact.

    scores: of all predictions. boxes_px: of detections, in pixels. all_boxes_px: of all predictions.
    """

    scores: float
    boxes_px: float
    all_boxes_px: float


EXACT = Tolerance(0.0, 0.0, 0.0)
FLOAT32 = Tolerance(1e-5, 0.01, 0.01)
"""Of another runtime: other orders of sums, in float32."""
FLOAT16 = Tolerance(0.01, 1.0, 16.0)
"""Of a network in float16, from one in float32: 0.005, 0.4 and 6.4 were seen in 23 photographs."""


@dataclass(frozen=True)
class Found:
    """Detections in one image: boxes_xyxy_px [n, 4], scores [n], class_ids [n]."""

    boxes_xyxy_px: NDArray[np.floating]
    scores: NDArray[np.floating]
    class_ids: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.scores)


class Differences(NamedTuple):
    """What was measured; see `Tolerance`.

    detections: compared. set_aside: whose score or overlap is at a threshold, or whose score is tied with another's.
    """

    scores: float = 0.0
    boxes_px: float = 0.0
    all_boxes_px: float = 0.0
    detections: int = 0
    set_aside: int = 0

    def __add__(self, other: object) -> Differences:
        """The larger ones, and all detections."""
        assert isinstance(other, Differences)
        return Differences(
            max(self.scores, other.scores),
            max(self.boxes_px, other.boxes_px),
            max(self.all_boxes_px, other.all_boxes_px),
            self.detections + other.detections,
            self.set_aside + other.set_aside,
        )

    def check(self, tolerance: Tolerance, what: str) -> None:
        """Refuses differences over the tolerance.

        Raises:
            DifferenceError: says which, and by how much.
        """
        for name, unit in (("scores", ""), ("boxes_px", " px"), ("all_boxes_px", " px")):
            difference, most = getattr(self, name), getattr(tolerance, name)
            if not difference <= most:
                raise DifferenceError(
                    f"{what}: {name.removeprefix('all_').removesuffix('_px')} differ from those of the source by up to "
                    f"{difference:.3g}{unit}; at most {most:g}{unit} may be rounding, so nothing was written"
                )


def largest_difference(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> float:
    """Of two arrays of one shape; infinite where one has what is no number."""
    if ours.shape != theirs.shape:
        return float("inf")
    difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def compare_detections(
    source: Found, found: Found, *, confidence: float, iou: float, capacity: int, tolerance: Tolerance
) -> Differences:
    """How detections in one image differ, matched by class and IoU.

    Detections that only one side has are set aside where their score is within the tolerance of the threshold, or where
    the other side kept a box in their place whose score is tied with theirs, or a better one whose overlap with theirs
    is at the threshold: by as much as boxes within the tolerance can change it.

    Args:
        source: detections of the source.
        found: those of the artefact.
        confidence: the threshold of both.
        iou: that of suppression.
        capacity: how many detections both have room for: where there are so many, the least score is a threshold too.
        tolerance: of scores and boxes.

    Raises:
        DifferenceError: a detection has no partner.
    """
    overlap = _ious(source, found)
    full = [float(side.scores.min()) for side in (source, found) if len(side) >= capacity]
    confidence = max(confidence, *full, confidence)
    scores, boxes_px, pairs = 0.0, 0.0, 0
    partners: dict[int, int] = {}
    for row, column in _by_overlap(overlap):
        if row not in partners and column not in partners.values():
            partners[row] = column
            pairs += 1
            scores = max(scores, float(abs(source.scores[row] - found.scores[column])))
            boxes_px = max(boxes_px, float(np.abs(source.boxes_xyxy_px[row] - found.boxes_xyxy_px[column]).max()))
    aside = 0
    for side, other, table, done, name in (
        (source, found, overlap, set(partners), "the artefact does not find"),
        (found, source, overlap.T, set(partners.values()), "the artefact alone finds"),
    ):
        for place in (place for place in range(len(side)) if place not in done):
            tied = (table[place] > iou) & (np.abs(other.scores - side.scores[place]) <= tolerance.scores)
            width, height = side.boxes_xyxy_px[place, 2:] - side.boxes_xyxy_px[place, :2]
            slack = 4 * tolerance.boxes_px / max(min(width, height), 1)
            close = (np.abs(table[place] - iou) <= slack) & (other.scores > side.scores[place])
            if side.scores[place] > confidence + tolerance.scores and not (tied | (slack > 0) & close).any():
                raise DifferenceError(
                    f"{name} an object of class {int(side.class_ids[place])} with score {side.scores[place]:.4f}; "
                    "nothing was written"
                )
            aside += 1
    return Differences(scores, boxes_px, boxes_px, pairs, aside)


def _by_overlap(overlap: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Pairs that are one detection, the largest overlap first."""
    rows, columns = np.nonzero(overlap > SAME_BOX_IOU)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _ious(these: Found, others: Found) -> NDArray[np.floating]:
    """IoU [n, m] of detections of one class; 0 across classes."""
    same = these.class_ids[:, None] == others.class_ids[None]
    return np.asarray(pairwise_iou(these.boxes_xyxy_px, others.boxes_xyxy_px)) * same

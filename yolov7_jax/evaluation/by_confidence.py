"""Precision, recall and F1 of detections over the confidence that they must exceed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from yolov7_jax.types import CONFIDENCES

IOU = 0.5
"""What a detection must reach with an object of its class to be right."""

RIGHT, WRONG, IGNORED = 1, 0, -1
"""A detection found an object, found none, or found a crowd, where it counts neither way."""


def outcomes(ious: Sequence[Sequence[float]], crowd: Sequence[bool]) -> list[int]:
    """What each detection of one class in one image is, as COCO decides: the best first, each object once.

    Args:
        ious: [D][G], of detections by falling score with objects.
        crowd: [G], which objects are crowds.
    """
    free = [not one for one in crowd]
    found = []
    for row in ious:
        largest, partner = IOU, None
        for place, iou in enumerate(row):
            if free[place] and iou >= largest:
                largest, partner = iou, place
        if partner is not None:
            free[partner] = False
        within_crowd = any(of_crowd and iou >= IOU for of_crowd, iou in zip(crowd, row, strict=True))
        found.append(RIGHT if partner is not None else IGNORED if within_crowd else WRONG)
    return found


def over_confidence(
    ious: Mapping[tuple[int, int], ArrayLike],
    truths: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    *,
    capacity: int,
) -> NDArray[np.float64]:
    """Precision, recall and F1 [3, S, K] over `CONFIDENCES` and classes; NaN for classes without boxes.

    Precision is 0 where no detection of a class scores so much.

    Args:
        ious: of each image and category that count, those of `outcomes`, for objects in the order of truths.
        truths: image_id, category_id and iscrowd of each object.
        found: image_id, category_id and score of each detection.
        category_ids: of the classes.
        capacity: how many detections of a class in an image count, the best ones.
    """
    crowds: dict[tuple[int, int], list[bool]] = defaultdict(list)
    boxes = dict.fromkeys(category_ids, 0)
    for row in truths:
        crowds[row["image_id"], row["category_id"]].append(bool(row["iscrowd"]))
        boxes[row["category_id"]] += not row["iscrowd"]
    kept: dict[int, list[tuple[float, int]]] = {number: [] for number in category_ids}
    for pair, scores in _scores(found).items():
        if pair in ious:
            best = sorted(scores, reverse=True)[:capacity]
            crowd = crowds.get(pair, [])
            table = np.reshape(ious[pair], (-1, len(crowd))).tolist() if crowd else [[]] * len(best)
            kept[pair[1]] += zip(best, outcomes(table, crowd), strict=True)
    curves = [_curves(np.array(kept[number], float).reshape(-1, 2), boxes[number]) for number in category_ids]
    return np.stack(curves, axis=-1)


def _scores(found: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], list[float]]:
    """Of the detections of each image and category."""
    scores: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in found:
        scores[row["image_id"], row["category_id"]].append(row["score"])
    return scores


def _curves(detections: NDArray[np.float64], boxes: int) -> NDArray[np.float64]:
    """Precision, recall and F1 [3, S] of detections [n, 2], score and what it is, and so many boxes."""
    if not boxes:
        return np.full((3, len(CONFIDENCES)), np.nan)
    counted = detections[detections[:, 1] != IGNORED]
    score, right = counted[np.argsort(counted[:, 0])].T
    first = np.searchsorted(score, CONFIDENCES, side="right")  # the first that scores more
    count = len(score) - first
    correct = np.append(np.cumsum(right[::-1])[::-1], 0)[first]
    return np.stack([correct / np.maximum(count, 1), correct / boxes, 2 * correct / (count + boxes)])


def at_best_f1(curves: NDArray[np.float64]) -> dict[str, float]:
    """Precision, recall and F1, and the confidence at which the last is largest, the lowest of several; NaN if none is.

    curves: [3, S, K]; means are over the classes that have boxes.
    """
    names = ("precision", "recall", "f1", "confidence")
    there = curves[:, :, ~np.isnan(curves).any(axis=(0, 1))]
    if not there.shape[2]:
        return dict.fromkeys(names, math.nan)
    means = there.mean(axis=2)
    best = int(np.argmax(means[2]))
    return dict(zip(names, [*means[:, best].tolist(), float(CONFIDENCES[best])], strict=True))

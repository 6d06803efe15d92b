"""How good detections are by COCO: average precision and recall, by faster-coco-eval, and what F1 is best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.evaluation.by_confidence import at_best_f1, over_confidence
from yolov7_jax.types import ClassResult, CocoResult

CocoEntry = dict[str, Any]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # T

_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}  # under 32² pixels, under 96², above
_CAPACITIES = {1: 0, 10: 1, 100: 2}  # detections that count, of one class in one image
_ABSENT = -1  # what the evaluation writes where there is nothing to find


def evaluate(
    ground_truth: dict[str, Any], detections: list[CocoEntry], *, image_ids: Collection[int] | None = None
) -> CocoResult:
    """COCO average precision of detections, and precision, recall and F1; neither argument is changed.

    Args:
        ground_truth: COCO dict: images, annotations, categories; crowds are honored, a missing area is the box's.
        detections: rows of a COCO results file: image_id, category_id, bbox (x, y, width, height in pixels), score.
        image_ids: images to evaluate, all of the ground truth by default; detections in others do not count.

    Raises:
        DataError: no categories, an unknown image or category, or a number that is not finite.
    """
    categories = sorted(ground_truth["categories"], key=lambda row: row["id"])
    if not categories:
        raise DataError("the ground truth has no categories; there is nothing to evaluate")
    images = _evaluated(ground_truth["images"], image_ids)
    truths = _truths(ground_truth["annotations"], images)
    _check(detections, {image["id"] for image in ground_truth["images"]}, {row["id"] for row in categories})
    found = [_found(number, row) for number, row in enumerate(detections, start=1)]
    skeleton = {
        "images": [{"id": number} for number in images],
        "categories": [{"id": row["id"]} for row in categories],
    }
    run = COCOeval_faster(_index(skeleton, truths), _index(skeleton, found), "bbox", print_function=_silent)
    run.evaluate()
    run.accumulate()
    precision = np.where(run.eval["precision"] == _ABSENT, np.nan, run.eval["precision"])
    recall = np.where(run.eval["recall"] == _ABSENT, np.nan, run.eval["recall"])
    category_ids = [row["id"] for row in categories]
    curves = over_confidence(run.ious, truths, found, category_ids, capacity=max(_CAPACITIES))
    return _result(precision, recall, curves, categories, truths)


def _evaluated(images: list[CocoEntry], image_ids: Collection[int] | None) -> dict[int, None]:
    known = {image["id"] for image in images}
    chosen = sorted(known if image_ids is None else image_ids)
    unknown = [number for number in chosen if number not in known]
    if unknown:
        raise DataError(f"image {unknown[0]} is to be evaluated but is not in the ground truth; use its image ids")
    return dict.fromkeys(chosen)


def _truths(annotations: list[CocoEntry], images: Collection[int]) -> list[CocoEntry]:
    """What of the annotations counts, numbered anew from 1: an id 0 would mean "not matched" to the evaluation."""
    chosen = (row for row in annotations if row["image_id"] in images)
    return [
        {
            "id": number,
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": row["bbox"],
            "area": row["area"] if "area" in row else row["bbox"][2] * row["bbox"][3],
            "iscrowd": int(row.get("iscrowd") or 0),
        }
        for number, row in enumerate(chosen, start=1)
    ]


def _found(number: int, row: CocoEntry) -> CocoEntry:
    return {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}


def _check(detections: list[CocoEntry], image_ids: Collection[int], category_ids: Collection[int]) -> None:
    for key, known in (("image_id", image_ids), ("category_id", category_ids)):
        unknown = {row[key] for row in detections}.difference(known)
        if unknown:
            raise DataError(f"detections have {key} {min(unknown)}, which the ground truth has not; use its ids")
    numbers = np.array([(*row["bbox"], row["score"]) for row in detections], np.float64).reshape(-1, 5)
    if not np.isfinite(numbers).all():
        bad = detections[int(np.flatnonzero(~np.isfinite(numbers).all(axis=1))[0])]
        raise DataError(
            f"a detection in image {bad['image_id']} is not finite: {bad}; the network's outputs are broken"
        )


def _index(skeleton: CocoEntry, annotations: list[CocoEntry]) -> COCO:
    coco = COCO(print_function=_silent)
    coco.dataset = {**skeleton, "annotations": annotations}
    coco.createIndex()
    return coco


def _silent(*_: object) -> None:
    """Takes the place of print."""


def _result(
    precision: NDArray[np.float64],
    recall: NDArray[np.float64],
    by_confidence: NDArray[np.float64],
    categories: list[CocoEntry],
    truths: list[CocoEntry],
) -> CocoResult:
    """The numbers of precision [T, R, K, areas, capacities] and recall [T, K, areas, capacities], NaN where absent."""

    def average_precision(area: str, iou: slice = slice(None)) -> float:
        return _mean(precision[iou, :, :, _AREAS[area], _CAPACITIES[100]])

    def average_recall(area: str, capacity: int = 100) -> float:
        return _mean(recall[:, :, _AREAS[area], _CAPACITIES[capacity]])

    curves = precision[:, :, :, _AREAS["all"], _CAPACITIES[100]]  # [T, R, K]
    boxes = Counter(row["category_id"] for row in truths if not row["iscrowd"])
    per_class = tuple(
        ClassResult(row.get("name", str(row["id"])), _mean(curves[:, :, k]), _mean(curves[0, :, k]), boxes[row["id"]])
        for k, row in enumerate(categories)
    )
    return CocoResult(
        AP=average_precision("all"),
        AP50=average_precision("all", _at(0.5)),
        AP75=average_precision("all", _at(0.75)),
        AP_small=average_precision("small"),
        AP_medium=average_precision("medium"),
        AP_large=average_precision("large"),
        AR_1=average_recall("all", 1),
        AR_10=average_recall("all", 10),
        AR_100=average_recall("all"),
        AR_small=average_recall("small"),
        AR_medium=average_recall("medium"),
        AR_large=average_recall("large"),
        **at_best_f1(by_confidence),
        per_class=per_class,
        precision_over_recall=curves,
        by_confidence=by_confidence,
    )


def _at(iou: float) -> slice:
    index = int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
    return slice(index, index + 1)


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan

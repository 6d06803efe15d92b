"""Which classes are taken for which: the confusion matrix of detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import Options
from yolov7_jax.ops.boxes import xywh_to_xyxy
from yolov7_jax.ops.iou import pairwise_iou
from yolov7_jax.types import Detections

Objects = tuple[NDArray[np.float32], NDArray[np.int32]]
"""The objects of an image: boxes_xyxy_px [n, 4] and class_ids [n]."""


def objects_by_image(ground_truth: dict[str, Any], category_ids: Sequence[int]) -> dict[int, Objects]:
    """The objects of every image of a COCO dict by its id, crowds and boxes without area left out.

    category_ids: the category of each class.
    """
    class_index = {category_id: index for index, category_id in enumerate(category_ids)}
    rows: dict[int, list[tuple[list[float], int]]] = {image["id"]: [] for image in ground_truth["images"]}
    for row in ground_truth["annotations"]:
        if not row.get("iscrowd") and row["bbox"][2] > 0 and row["bbox"][3] > 0:
            rows[row["image_id"]].append((row["bbox"], class_index[row["category_id"]]))
    return {image_id: _objects(found) for image_id, found in rows.items()}


def _objects(rows: list[tuple[list[float], int]]) -> Objects:
    boxes_xywh_px = np.array([box for box, _ in rows], np.float64).reshape(-1, 4)  # [n, 4]
    return xywh_to_xyxy(boxes_xywh_px).astype(np.float32), np.array([class_id for _, class_id in rows], np.int32)


def confusion_matrix(
    detections: Detections,
    boxes_xyxy_px: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    *,
    num_classes: int,
    confidence: float = Options.confidence,
    iou: float = Options.iou,
) -> NDArray[np.int64]:
    """Counts [C + 1, C + 1] of one image: row the detected class, column the true one, the last of each background.

    Detections over `confidence` and objects are paired whatever their classes, largest IoU over `iou` first (at a
    tie the higher score), each once. Objects left over were taken for background, detections left over were background.
    Matrices of several images are added.

    Args:
        detections: what was found in the image.
        boxes_xyxy_px: the objects, [n, 4].
        class_ids: their classes, [n].
        num_classes: C.
        confidence: scores must be above it.
        iou: the IoU of a pair must be above it.
    """
    sure = detections.scores > confidence
    order = np.argsort(-detections.scores[sure], kind="stable")
    found_px, found_ids = detections.boxes_xyxy_px[sure][order], detections.class_ids[sure][order]
    partner = _pair(pairwise_iou(boxes_xyxy_px, found_px), above=iou)  # [detections], index of an object or -1
    true_ids = np.append(class_ids, num_classes)  # so that a partner of -1 is background
    missed = np.delete(class_ids, partner[partner >= 0])
    detected = np.concatenate([found_ids, np.full(len(missed), num_classes)])
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(matrix, (detected, np.concatenate([true_ids[partner], missed])), 1)
    return matrix


def _pair(ious: NDArray[np.floating], *, above: float) -> NDArray[np.int64]:
    """For each column of ious [n, m] the row it is paired with, or -1: greedy, first column first at a tie."""
    columns, rows = np.nonzero(above < ious.T)
    partner = np.full(ious.shape[1], -1, np.int64)
    taken = np.zeros(ious.shape[0], bool)
    for pair in np.argsort(-ious[rows, columns], kind="stable"):
        row, column = rows[pair], columns[pair]
        if partner[column] < 0 and not taken[row]:
            partner[column], taken[row] = row, True
    return partner

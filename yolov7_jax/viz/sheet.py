"""Contact sheets: many labeled images in one, to see what is trained on and what is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2
from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.types import Array, Detections, Sample
from yolov7_jax.viz.draw import BLACK, FONT, draw_boxes, draw_detections

MOST_IMAGES = 16
LEAST_CELL, MOST_CELL = 320, 640
"""Images whose longer side is not in this range of pixels are enlarged or shrunk: labels must be legible."""
GAP = 8
"""Pixels between the images of a sheet."""
HEADING = 28
"""Height in pixels of the line above truth and prediction."""
PAPER = 205

Image = NDArray[np.uint8]


def draw_batch(
    images: Array,
    boxes_cxcywh_px: Array,
    class_ids: Array,
    valid: Array,
    names: Sequence[str],
    *,
    columns: int = 4,
) -> Image:
    """The first 16 images of a batch with their labeled boxes, in rows of `columns` on one sheet uint8 [h, w, 3].

    Args:
        images: uint8 [B, H, W, 3] RGB.
        boxes_cxcywh_px: [B, M, 4] in their pixels.
        class_ids: [B, M] into `names`.
        valid: bool [B, M], which boxes are no padding.
        names: of the classes.
        columns: images in a row.
    """
    parts = map(np.asarray, (images, boxes_cxcywh_px, class_ids, valid))
    cells = [
        _labeled(image, cxcywh_to_xyxy(boxes[there]), classes[there], names)
        for image, boxes, classes, there in zip(*parts, strict=True)
    ]
    return arrange(cells[:MOST_IMAGES], columns)


def draw_comparison(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str], *, columns: int = 2
) -> Image:
    """The labels of up to 16 images beside what was found in each, in rows of `columns` pairs on one sheet.

    Args:
        samples: labeled images, of any sizes.
        detections: what was found in each of them, in its pixels.
        names: of the labels' classes.
        columns: pairs in a row.
    """
    pairs = zip(samples[:MOST_IMAGES], detections[:MOST_IMAGES], strict=True)
    return arrange([_pair(sample, found, names) for sample, found in pairs], columns)


def _pair(sample: Sample, found: Detections, names: Sequence[str]) -> Image:
    truth = _labeled(sample.image, sample.boxes_xyxy_px, sample.class_ids, names)
    image, scale = sized(sample.image)
    moved = Detections(found.boxes_xyxy_px * np.float32(scale), found.scores, found.class_ids, found.names)
    guess = draw_detections(image, moved)
    gap = np.full((len(truth) + HEADING, GAP // 4, 3), PAPER, np.uint8)
    return np.concatenate([headed(truth, "labels"), gap, headed(guess, "predictions")], axis=1)


def _labeled(
    image: Image, boxes_xyxy_px: NDArray[np.floating[Any]], class_ids: NDArray[np.integer[Any]], names: Sequence[str]
) -> Image:
    resized, scale = sized(image)
    return draw_boxes(resized, boxes_xyxy_px * scale, class_ids, [names[class_id] for class_id in class_ids])


def sized(image: Image) -> tuple[Image, float]:
    """The image in a size for sheets, and how much larger it became: whole multiples keep its pixels."""
    side = max(image.shape[:2])
    if side < LEAST_CELL:
        factor = -(-LEAST_CELL // side)
        return image.repeat(factor, axis=0).repeat(factor, axis=1), factor
    if side <= MOST_CELL:
        return image, 1
    scale = MOST_CELL / side
    height, width = (max(round(edge * scale), 1) for edge in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), scale


def headed(image: Image, text: str) -> Image:
    """The image under a line of text."""
    heading = np.full((HEADING, image.shape[1], 3), PAPER, np.uint8)
    cv2.putText(heading, text, (2, HEADING - 9), FONT, 0.6, BLACK, 1, cv2.LINE_AA)
    return np.concatenate([heading, image])


def arrange(cells: Sequence[Image], columns: int) -> Image:
    """Images in rows on gray paper with gaps between and around them; each at the upper left of its place."""
    columns = min(columns, len(cells)) or 1
    rows = -(-len(cells) // columns)
    height, width = (max((cell.shape[axis] for cell in cells), default=0) + GAP for axis in (0, 1))
    sheet = np.full((rows * height + GAP, columns * width + GAP, 3), PAPER, np.uint8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        top, left = row * height + GAP, column * width + GAP
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet

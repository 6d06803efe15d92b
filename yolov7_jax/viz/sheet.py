"""Contact sheets: many images in one, with labels as in files, as trained on, beside what is found; heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2
from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.ops.polygons import of_object
from yolov7_jax.types import Batch, Detections, Labels, Polygons, Sample
from yolov7_jax.viz.draw import (
    BLACK,
    FONT,
    LINE_OF_SIDE,
    WHITE,
    class_color,
    draw_boxes,
    draw_detections,
    draw_frame,
    draw_heat,
)

MOST_IMAGES = 16
LEAST_CELL, MOST_CELL = 320, 640
"""Images whose longer side is not in this range of pixels are enlarged or shrunk: labels must be legible."""
GAP = 8
"""Pixels between the images of a sheet."""
HEADING = 28
"""Height in pixels of the line above truth and prediction."""
PAPER = 205
_COLUMNS = 4
_DASH = 8
"""Pixels of a dash of the frames of ignored objects."""
_LETTERS = LEAST_CELL // 10
"""Of a heading: as many as fit above the narrowest image."""
_POINT_BITS = 4
"""Corners of polygons are drawn to a sixteenth of a pixel."""

Image = NDArray[np.uint8]


def draw_batch(batch: Batch, names: Sequence[str]) -> Image:
    """The first 16 images of a batch with their labeled boxes, in rows of four on one sheet uint8 [h, w, 3]."""
    rows = zip(*map(np.asarray, (batch.image, batch.boxes_cxcywh_px, batch.class_ids, batch.valid)), strict=True)
    cells = [
        _labeled(image, cxcywh_to_xyxy(boxes_cxcywh_px[valid]), class_ids[valid], names)
        for image, boxes_cxcywh_px, class_ids, valid in islice(rows, MOST_IMAGES)
    ]
    return arrange(cells, _COLUMNS)


def draw_comparison(samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]) -> Image:
    """The labels of up to 16 images beside what was found in each, in rows of two pairs on one sheet.

    Args:
        samples: labeled images, of any sizes.
        detections: what was found in each of them, in its pixels.
        names: of the labels' classes.
    """
    pairs = zip(samples[:MOST_IMAGES], detections[:MOST_IMAGES], strict=True)
    return arrange([_pair(sample, found, names) for sample, found in pairs], 2)


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


class LabeledImage(NamedTuple):
    """An image with its labels. name: of the file. image: uint8 [h, w, 3] RGB. labels: boxes in its pixels."""

    name: str
    image: Image
    labels: Labels


def draw_labels(images: Sequence[LabeledImage], names: Sequence[str]) -> Image:
    """Images in rows of four on one sheet uint8 [h, w, 3], each with boxes and polygons under its name.

    Frames of ignored objects are dashed in black and white, whatever their class. A second line says how many objects
    there are, how many are ignored, and how many were left out (see `left_out`).

    Args:
        images: of any sizes.
        names: of the classes.
    """
    return arrange([_cell(one, names) for one in images], _COLUMNS)


def _cell(one: LabeledImage, names: Sequence[str]) -> Image:
    labels = one.labels
    canvas, scale = sized(one.image)
    canvas = canvas.copy()
    line = max(round(sum(canvas.shape[:2]) / 2 * LINE_OF_SIDE), 1)
    _draw_ignored(canvas, labels.ignored_boxes_xyxy_px * scale, line)
    _draw_polygons(canvas, labels.polygons, labels.class_ids, scale, line)
    texts = [names[class_id] for class_id in labels.class_ids]
    canvas = draw_boxes(canvas, labels.boxes_xyxy_px * scale, labels.class_ids, texts)
    margin = max(LEAST_CELL - canvas.shape[1], 0)  # room for the headings
    canvas = np.pad(canvas, ((0, 0), (0, margin), (0, 0)), constant_values=PAPER)
    return headed(headed(canvas, _summary(labels)), _shortened(one.name))


def draw_heats(image: Image, heats: Sequence[NDArray[np.floating[Any]]], captions: Sequence[str]) -> Image:
    """Heat maps [h, w] in 0..1 over one image beside each other, each under its caption, on one sheet."""
    drawn = (sized(draw_heat(image, heat))[0] for heat in heats)
    return arrange([headed(one, caption) for one, caption in zip(drawn, captions, strict=True)], len(heats))


def left_out(labels: Labels) -> int:
    """How many objects were left out: those that repeat, have no area, are of other classes or wrong."""
    return labels.duplicates + labels.empty + labels.unlisted + len(labels.issues)


def _summary(labels: Labels) -> str:
    counts = {"ignored": len(labels.ignored_class_ids), "left out": left_out(labels)}
    parts = ["no label file" if labels.missing else f"{len(labels.class_ids)} objects"]
    return ", ".join(parts + [f"{count} {text}" for text, count in counts.items() if count])


def _shortened(name: str) -> str:
    """The end of a long name, which tells it from others."""
    return name if len(name) <= _LETTERS else f"...{name[3 - _LETTERS :]}"


def _draw_ignored(canvas: Image, boxes_xyxy_px: NDArray[np.floating[Any]], line: int) -> None:
    height, width = canvas.shape[:2]
    down, across = np.ogrid[:height, :width]
    dashes = (down + across) // _DASH % 2 == 0
    black, white = canvas.copy(), canvas.copy()
    for box in np.rint(boxes_xyxy_px).clip(0, [width, height] * 2).astype(int):
        draw_frame(black, box, BLACK, line)
        draw_frame(white, box, WHITE, line)
    canvas[:] = np.where(dashes[..., None], white, black)


def _draw_polygons(canvas: Image, polygons: Polygons, class_ids: NDArray[np.int32], scale: float, line: int) -> None:
    for place, class_id in enumerate(class_ids):
        corners = [np.rint(part * scale * 2**_POINT_BITS).astype(np.int32) for part in of_object(polygons, place)]
        cv2.polylines(canvas, corners, True, class_color(int(class_id)), line, cv2.LINE_AA, _POINT_BITS)


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

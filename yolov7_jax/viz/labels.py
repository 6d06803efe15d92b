"""Contact sheets of labels as they are in their files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2
from yolov7_jax.ops.polygons import of_object
from yolov7_jax.types import Labels, Polygons
from yolov7_jax.viz.draw import BLACK, LINE_OF_SIDE, WHITE, class_color, draw_boxes, draw_frame
from yolov7_jax.viz.sheet import LEAST_CELL, PAPER, Image, arrange, headed, sized

_DASH = 8
"""Pixels of a dash of the frames of ignored objects."""
_LETTERS = LEAST_CELL // 10
"""Of a heading: as many as fit above the narrowest image."""
_POINT_BITS = 4
"""Corners of polygons are drawn to a sixteenth of a pixel."""


class LabeledImage(NamedTuple):
    """An image with its labels. name: of the file. image: uint8 [h, w, 3] RGB. labels: boxes in its pixels."""

    name: str
    image: Image
    labels: Labels


def draw_labels(images: Sequence[LabeledImage], names: Sequence[str], *, columns: int = 4) -> Image:
    """Images in rows of `columns` on one sheet uint8 [h, w, 3], each with boxes and polygons under its name.

    Frames of ignored objects are dashed in black and white, whatever their class. A second line says how many objects
    there are, how many are ignored, and how many were left out (see `left_out`).

    Args:
        images: of any sizes.
        names: of the classes.
        columns: images in a row.
    """
    return arrange([_cell(one, names) for one in images], columns)


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

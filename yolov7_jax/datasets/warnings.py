"""Objects that are right by themselves but odd: they repeat, cannot be seen, or reach out of their image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.types import Issue

REPEATED, EMPTY = "repeated object", "object without area"
BEYOND, SPECK = "box beyond the image", "box of a pixel or less"
BOX_TWICE, ALMOST_TWICE = "one box of two objects", "object almost repeated"

_SPECK_PX = 1 + 1e-6  # room for the rounding of fractions of the image
_NO_MATTER_PX = 0.5  # the rounding of coordinates with few digits
_ALMOST = 0.9  # intersection over union


class LabelRow(NamedTuple):
    """An object as a label file has it, in any unit: its class, its box, its polygons, each as `packed` gives it."""

    class_id: int
    box_xyxy: tuple[float, float, float, float]
    polygons: tuple[bytes, ...] = ()


def label_warnings(
    rows: Sequence[LabelRow],
    places: Sequence[str],
    file: Path,
    size: tuple[int, int] | None,
    scale: tuple[float, float] = (1, 1),
) -> tuple[Issue, ...]:
    """What is odd about the objects of an image. Those that repeat or have no area are errors, the rest warnings.

    Args:
        rows: in units of 1 / scale (x, y) pixels.
        places: what to call each row in its file: its line, or its id.
        file: of all the rows.
        size: (h, w) of the image in pixels, where it is known.
        scale: pixels of a unit of rows.
    """
    found: list[Issue] = []
    seen: dict[LabelRow, int] = {}
    boxes_xyxy_px = np.array([row.box_xyxy for row in rows], np.float64).reshape(-1, 4) * (*scale, *scale)
    for number, (row, place, box) in enumerate(zip(rows, places, boxes_xyxy_px, strict=True)):
        first = seen.setdefault(row, number)
        if first != number:
            found.append(
                Issue(
                    "error",
                    REPEATED,
                    f"{file}, {place}: the object repeats that of {places[first]}; remove one of them",
                )
            )
            continue
        found += _by_itself(box, f"{file}, {place}", size)
        for other in np.flatnonzero(_overlaps(box, boxes_xyxy_px[:number]) > _ALMOST)[:1]:
            if (box == boxes_xyxy_px[other]).all():
                sentence = f"{file}, {place}: the box is that of {places[other]}, whose class or polygon is another"
                found.append(Issue("warning", BOX_TWICE, f"{sentence}; remove one unless both are meant"))
            elif row.class_id == rows[other].class_id:
                sentence = f"{file}, {place}: the object is almost that of {places[other]}"
                found.append(Issue("warning", ALMOST_TWICE, f"{sentence}; remove one unless both are meant"))
    return tuple(found)


def _by_itself(box_xyxy_px: NDArray[np.float64], place: str, size: tuple[int, int] | None) -> Iterable[Issue]:
    side_px = float((box_xyxy_px[2:] - box_xyxy_px[:2]).min())
    if side_px <= 0:
        yield Issue("error", EMPTY, f"{place}: the box has no area; give it a width and a height, or remove it")
    elif side_px <= _SPECK_PX:
        yield Issue("warning", SPECK, f"{place}: a side of the box has {side_px:.3g} pixels; correct or remove it")
    if size is not None:
        over_px = float(max((-box_xyxy_px[:2]).max(), (box_xyxy_px[2:] - size[::-1]).max()))
        if over_px > _NO_MATTER_PX:
            yield Issue("warning", BEYOND, f"{place}: the box reaches {over_px:.1f} pixels beyond the image")


def _overlaps(box_xyxy: NDArray[np.float64], others_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union with each of the others; 0 where there is no area."""
    shared = np.minimum(box_xyxy[2:], others_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], others_xyxy[:, :2])
    intersection = shared.clip(0).prod(axis=1)
    areas = (others_xyxy[:, 2:] - others_xyxy[:, :2]).prod(axis=1)
    union = (box_xyxy[2:] - box_xyxy[:2]).prod() + areas - intersection
    return intersection / np.where(union > 0, union, 1)

"""Label files: one line an object, a class and a box or a polygon in fractions of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.data.sources.faults import Faults, OnFault
from yolov7_jax.data.sources.objects import Labels, Row, as_arrays, sift
from yolov7_jax.errors import DataError

_BOX_NUMBERS = 5
_LEAST_POLYGON_NUMBERS = 7  # a class and three points


@dataclass(frozen=True, eq=False, kw_only=True)
class YoloLabels(Labels):
    """`Labels` with boxes_cxcywh_norm: float64 [n, 4], fractions of width and height."""

    boxes_cxcywh_norm: NDArray[np.float64]


def label_file(image: Path) -> Path:
    """Where the labels of an image are: the last folder `images` of its path reads `labels`, the ending is .txt."""
    parts = list(image.parts)
    folders = parts[:-1]
    if "images" in folders:
        parts[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, *, num_classes: int, on_fault: OnFault = "stop") -> YoloLabels:
    """The objects in a label file; a file that is not there is an image without objects.

    Raises:
        DataError: the file is not text, or, unless such lines are to be skipped, a line is not a label; names the line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the labels cannot be read ({error}); expected a text file") from error
    rows: list[Row] = []
    faults = Faults(on_fault)
    for number, line in enumerate((text or "").splitlines(), start=1):
        with faults:
            if words := line.split():
                rows.append(_row(words, f"{file}, line {number}", num_classes))
    kept, duplicates, empty = sift(rows)
    class_ids, boxes_cxcywh_norm = as_arrays(kept)
    return YoloLabels(
        class_ids=class_ids,
        boxes_cxcywh_norm=boxes_cxcywh_norm,
        duplicates=duplicates,
        empty=empty,
        faults=tuple(faults.sentences),
        missing=text is None,
    )


def _row(words: list[str], where: str, num_classes: int) -> Row:
    class_id, *coordinates = _numbers(words, where)
    if not class_id.is_integer() or not 0 <= class_id < num_classes:
        raise DataError(
            f"{where}: class {words[0]} is not one of the {num_classes} classes 0 to {num_classes - 1}; "
            "correct the line or the names in the data YAML"
        )
    for word, value in zip(words[1:], coordinates, strict=True):
        if not 0 <= value <= 1:
            raise DataError(
                f"{where}: {word} is outside 0 to 1; labels are fractions of the image: divide x by its width, "
                "y by its height, and clip to the image"
            )
    box = coordinates if len(coordinates) == _BOX_NUMBERS - 1 else _around(coordinates)
    return int(class_id), box[0], box[1], box[2], box[3]


def _numbers(words: list[str], where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{where}: {error}; expected numbers: class x y width height") from error
    if len(numbers) != _BOX_NUMBERS and (len(numbers) < _LEAST_POLYGON_NUMBERS or len(numbers) % 2 == 0):
        raise DataError(
            f"{where}: {len(numbers)} numbers; expected 5 (class x y width height) or a polygon "
            "of three points or more (class x1 y1 x2 y2 x3 y3 ...)"
        )
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: a number is not finite; replace it or remove the line")
    return numbers


def _around(polygon: list[float]) -> list[float]:
    left, right = min(polygon[0::2]), max(polygon[0::2])
    top, bottom = min(polygon[1::2]), max(polygon[1::2])
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]

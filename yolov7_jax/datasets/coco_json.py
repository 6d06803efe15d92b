"""COCO annotation files: which of their entries can be used, and what is wrong with the others."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.objects import UNREADABLE, IssueCollector, read_label_file
from yolov7_jax.errors import DataError
from yolov7_jax.types import Issue, OnError

Entry = dict[str, Any]

_LEAST_CORNERS = 3  # of a polygon


class Entries(NamedTuple):
    """What of a file's content can be used: images and categories by their ids, annotations, sizes (h, w) by image id.

    issues: what is wrong with the rest, by image id; None where there is no such image.
    """

    images: dict[int, Entry]
    sizes: dict[int, tuple[int, int] | None]
    categories: dict[int, Entry]
    annotations: list[Entry]
    issues: dict[int | None, tuple[Issue, ...]]


def sound_entries(content: dict[str, list[Any]], file: Path, *, on_error: OnError) -> Entries:
    """The entries of a file's content that can be used; an annotation whose polygons are wrong is used without them.

    Raises:
        DataError: categories are wrong, nothing can be used, or, unless such entries are to be skipped, an image or
            annotation is wrong; names the file and the id.
    """
    collectors: dict[int | None, IssueCollector] = defaultdict(lambda: IssueCollector(on_error))
    categories: dict[int, Entry] = {}
    for number, row in enumerate(content["categories"], start=1):
        categories[_new_id(row, number, "category", "name", categories, file)] = row
    images: dict[int, Entry] = {}
    sizes: dict[int, tuple[int, int] | None] = {}
    for number, row in enumerate(content["images"], start=1):
        with collectors[None]:
            new_id = _new_id(row, number, "image", "file_name", images, file)
            sizes[new_id] = _size(row, file)
            images[new_id] = row
    if not categories or not images:
        raise DataError(f"{file}: it has {len(images)} images and {len(categories)} categories; expected some of both")
    annotations: list[Entry] = []
    for number, row in enumerate(content["annotations"], start=1):
        image_id = row.get("image_id") if isinstance(row, dict) else None
        found = collectors[image_id if _is_integer(image_id) and image_id in images else None]
        is_sound = False
        with found, _named(row, number, file):
            _check_annotation(row, sizes, categories)
            is_sound = True
        if is_sound:
            annotations.append(row)
            with found, _named(row, number, file):
                _check_polygons(row)
    by_image = {image_id: tuple(these.issues) for image_id, these in collectors.items() if these.issues}
    return Entries(images, sizes, categories, annotations, by_image)


def read_content(file: Path) -> dict[str, list[Any]]:
    """What an annotation file says; polygons as lists of float32 [corners, 2].

    Raises:
        DataError: the file cannot be read, or has not the three lists of such files.
    """
    data = read_label_file(file, expected="a COCO annotation file")
    try:
        content = json.loads(data, object_hook=_compact_polygons)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {error.lineno}: not JSON ({error.msg}); the file may be cut off", kind=UNREADABLE
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text; expected a COCO annotation file", kind=UNREADABLE) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{file}: no list {key!r}; expected a COCO annotation file: images, annotations, categories",
                kind=UNREADABLE,
            )
    return content


def polygons(annotation: Entry) -> list[NDArray[np.float32]]:
    """The polygons of an annotation that can be used, each [corners, 2] in pixels; none if it has a mask."""
    segmentation = annotation.get("segmentation")
    return segmentation if isinstance(segmentation, list) else []


def _compact_polygons(row: Entry) -> Entry:
    """An entry with its polygons as arrays, an eighth of the memory; what is no list of polygons stays as it is."""
    segmentation = row.get("segmentation")
    if isinstance(segmentation, list):
        with suppress(ValueError, TypeError, OverflowError), np.errstate(over="ignore"):
            row["segmentation"] = [np.array(polygon, np.float32).reshape(-1, 2) for polygon in segmentation]
    return row


def _check_polygons(row: Entry) -> None:
    """Refuses wrong polygons, and takes them from their entry."""
    segmentation = row.pop("segmentation", None)
    if segmentation is None or isinstance(segmentation, dict):  # a mask: crowds have it
        return
    arrays = segmentation if isinstance(segmentation, list) else [segmentation]
    if all(isinstance(polygon, np.ndarray) and not len(polygon) for polygon in arrays):
        return  # some tools write [[]] for none
    for number, polygon in enumerate(arrays, start=1):
        if not isinstance(polygon, np.ndarray):
            raise DataError("has a segmentation that is no list of lists x1, y1, x2, y2, ...", kind="no polygon")
        if len(polygon) < _LEAST_CORNERS:
            raise DataError(
                f"has a segmentation whose polygon {number} has {len(polygon)} points; expected three or more",
                kind="polygon under 3 points",
            )
        if not np.isfinite(polygon).all():
            raise DataError(
                f"has a segmentation whose polygon {number} has a number that is not finite", kind="not finite"
            )
    row["segmentation"] = arrays


@contextmanager
def _named(row: Any, number: int, file: Path) -> Iterator[None]:
    """What is wrong with an annotation, said with its name."""
    try:
        yield
    except DataError as error:
        name = row["id"] if isinstance(row, dict) and "id" in row else f"number {number}"
        raise DataError(f"{file}: annotation {name} {error}", kind=error.kind) from None


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _new_id(row: Any, number: int, what: str, text_key: str, known: dict[int, Entry], file: Path) -> int:
    """The id of an entry, an integer that no entry before it has; the entry has a text under `text_key`."""
    if not isinstance(row, dict) or not _is_integer(row.get("id")):
        raise DataError(f"{file}: {what} number {number} has no integer id; give it one", kind="no id")
    if not isinstance(row.get(text_key), str):
        raise DataError(
            f"{file}: {what} {row['id']} has no text {text_key!r}; add it", kind=f"{what} without {text_key}"
        )
    if row["id"] in known:
        raise DataError(f"{file}: two entries have the {what} id {row['id']}; ids must differ", kind="id twice")
    return row["id"]


def _size(image: Entry, file: Path) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    if height is None and width is None:
        return None
    if not _is_integer(height) or not _is_integer(width) or height <= 0 or width <= 0:
        raise DataError(
            f"{file}: image {image['id']} has width {width!r}, height {height!r}; expected pixels",
            kind="wrong image size",
        )
    return height, width


def _check_annotation(row: Any, sizes: dict[int, tuple[int, int] | None], categories: dict[int, Entry]) -> None:
    image_id = _look_up(row, "image_id", sizes, "images")
    _look_up(row, "category_id", categories, "categories")
    _check_bbox(row.get("bbox"), sizes[image_id])


def _look_up(row: Any, key: str, known: Container[int], where: str) -> int:
    value = row.get(key) if isinstance(row, dict) else None
    if not _is_integer(value):
        raise DataError(f"has no integer {key!r}; add it", kind=f"no {key}")
    if value not in known:
        kind = "class out of range" if key == "category_id" else "label without image"
        raise DataError(f"has {key} {value}, which is not in {where}; add it there or correct this", kind=kind)
    return value


def _as_float(value: float) -> float:
    """A number of JSON, whose integers may be larger than any float."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _check_bbox(box: Any, size: tuple[int, int] | None) -> None:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise DataError(
            f"has bbox {box!r}; expected four numbers x, y, width, height in pixels", kind="wrong number of columns"
        )
    is_finite = all(abs(value) < math.inf for value in map(_as_float, box))
    if not is_finite or box[2] < 0 or box[3] < 0:
        raise DataError(
            f"has bbox {box!r}; expected finite numbers, and no negative width or height",
            kind="negative size" if is_finite else "not finite",
        )
    x, y, width, height = box
    has_area = width > 0 and height > 0
    if has_area and size and (x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0):
        raise DataError(
            f"has bbox {box!r}, which is outside of its image of {size[1]} x {size[0]} pixels; correct or remove it",
            kind="outside of the image",
        )

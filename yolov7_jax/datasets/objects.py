"""From the objects of a label file to the `Labels` of an image, and to warnings of what is odd about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Issue, Labels, OnError, Polygons

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
        where, first = f"{file}, {place}", seen.setdefault(row, number)
        if first != number:
            sentence = f"{where}: the object repeats that of {places[first]}; remove one of them"
            found.append(Issue("error", REPEATED, sentence))
            continue
        found += _by_itself(box, where, size)
        for other in np.flatnonzero(_overlaps(box, boxes_xyxy_px[:number]) > _ALMOST)[:1]:
            if (box == boxes_xyxy_px[other]).all():
                kind, what = BOX_TWICE, f"the box is that of {places[other]}, whose class or polygon is another"
            elif row.class_id == rows[other].class_id:
                kind, what = ALMOST_TWICE, f"the object is almost that of {places[other]}"
            else:
                continue
            found.append(Issue("warning", kind, f"{where}: {what}; remove one unless both are meant"))
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


UNREADABLE = "unreadable label file"


def read_label_file(file: Path, *, expected: str) -> bytes:
    """The content of a file of labels.

    Raises:
        DataError: it cannot be read; says what was expected.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); expected {expected}", kind=UNREADABLE) from error


class IssueCollector:
    """`with collector: ...` around the reading of one entry: raises what is wrong with it, or keeps it and goes on.

    issues: what was kept, in order.
    """

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.issues: list[Issue] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self.on_error == "stop" or not isinstance(error, DataError):
            return False
        self.issues.append(Issue("error", error.kind, str(error)))
        return True


class ObjectCollector(IssueCollector):
    """Collects the objects of one image, each within `with collector: ...`."""

    def __init__(self, on_error: OnError) -> None:
        super().__init__(on_error)
        self._objects: list[tuple[LabelRow, str]] = []
        self._ignored: list[LabelRow] = []

    def add(self, row: LabelRow, place: str, *, ignored: bool = False) -> None:
        """Adds an object; `place` is what its file calls it: its line, or its id."""
        if ignored:
            self._ignored.append(row)
        else:
            self._objects.append((row, place))

    def labels(
        self,
        file: Path,
        size: tuple[int, int] | None,
        *,
        scale: tuple[float, float] = (1, 1),
        distinct_ignored: bool = True,
        missing: bool = False,
    ) -> Labels:
        """The labels of the image.

        Args:
            file: of the objects, for warnings.
            size: (h, w) in pixels; (0, 0) stands for it if it is not known.
            scale: pixels of a unit of rows, (x, y).
            distinct_ignored: leave out ignored objects that repeat or have no area.
            missing: there is no such file.
        """
        rows, places = [row for row, _ in self._objects], [place for _, place in self._objects]
        warnings = label_warnings(rows, places, file, size, scale) if self.on_error == "note" else ()
        kept, duplicates, empty = dedupe_and_filter(rows)
        class_ids, boxes_xyxy_px, polygons = _as_arrays(kept, scale)
        ignored = dedupe_and_filter(self._ignored)[0] if distinct_ignored else self._ignored
        ignored_class_ids, ignored_boxes_xyxy_px, _ = _as_arrays(ignored, scale)
        return Labels(
            size=size or (0, 0),
            class_ids=class_ids,
            boxes_xyxy_px=boxes_xyxy_px,
            polygons=polygons,
            ignored_class_ids=ignored_class_ids,
            ignored_boxes_xyxy_px=ignored_boxes_xyxy_px,
            duplicates=duplicates,
            empty=empty,
            issues=(*self.issues, *warnings),
            missing=missing,
        )


def packed(corners: Sequence[float] | NDArray[np.floating]) -> bytes:
    """The corners x, y, x, y … of a polygon, in an eighth of the memory of numbers, and as quick to compare as text."""
    return (np.asarray(corners, np.float64) + 0.0).tobytes()  # -0 becomes 0


def dedupe_and_filter(rows: Sequence[LabelRow]) -> tuple[list[LabelRow], int, int]:
    """Rows that are new and have an area; the number of those that repeat, and of those new without an area."""
    distinct = list(dict.fromkeys(rows))
    kept = [row for row in distinct if row.box_xyxy[2] > row.box_xyxy[0] and row.box_xyxy[3] > row.box_xyxy[1]]
    return kept, len(rows) - len(distinct), len(distinct) - len(kept)


def _as_arrays(
    rows: Sequence[LabelRow], scale: tuple[float, float]
) -> tuple[NDArray[np.int32], NDArray[np.float64], Polygons]:
    """Class int32 [n], box xyxy float64 [n, 4] and polygons of rows, in units of 1 / scale (x, y) of theirs."""
    class_ids = np.array([row.class_id for row in rows], np.int32)
    boxes = np.array([row.box_xyxy for row in rows], np.float64).reshape(-1, 4) * (*scale, *scale)
    polygons = [[np.frombuffer(polygon).reshape(-1, 2) * scale for polygon in row.polygons] for row in rows]
    return class_ids, boxes, as_polygons(polygons)

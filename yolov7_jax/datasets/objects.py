"""From the objects of a label file to the `Labels` of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.warnings import LabelRow, label_warnings
from yolov7_jax.errors import DataError
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Issue, Labels, OnError, Polygons


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


class _Placed(NamedTuple):
    row: LabelRow
    place: str


class ObjectCollector(IssueCollector):
    """Collects the objects of one image, each within `with collector: ...`."""

    def __init__(self, on_error: OnError) -> None:
        super().__init__(on_error)
        self._objects: list[_Placed] = []
        self._ignored: list[LabelRow] = []

    def add(self, row: LabelRow, place: str, *, ignored: bool = False) -> None:
        """Adds an object; `place` is what its file calls it: its line, or its id."""
        if ignored:
            self._ignored.append(row)
        else:
            self._objects.append(_Placed(row, place))

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
        rows = [one.row for one in self._objects]
        warnings: tuple[Issue, ...] = ()
        if self.on_error == "note":
            warnings = label_warnings(rows, [one.place for one in self._objects], file, size, scale)
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

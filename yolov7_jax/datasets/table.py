"""The labels of many images as few arrays: quick to send to worker processes, to choose from and to store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import ReadSource
from yolov7_jax.errors import DataError
from yolov7_jax.source import SourceMixin, SourceView
from yolov7_jax.types import Issue, Labels, Polygons

_FLAT = ("class_ids", "boxes_xyxy_px", "ignored_class_ids", "ignored_boxes_xyxy_px")
_COUNTS = ("duplicates", "empty", "unlisted", "missing")


@dataclass(frozen=True, eq=False)
class _Ragged:
    """Arrays of many images in a row, and int64 [images + 1], where each begins."""

    values: NDArray[Any]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]], empty: NDArray[Any]) -> _Ragged:
        values = np.concatenate([empty, *arrays])
        return cls(values, np.cumsum([0, *map(len, arrays)], dtype=np.int64))

    def at(self, index: int) -> NDArray[Any]:
        return self.values[self.starts[index] : self.starts[index + 1]]


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels of images in their order. counts: int64 [images, 4]. sizes: int64 [images, 2]; (0, 0) where not known."""

    columns: Mapping[str, _Ragged]
    counts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    issues: Mapping[int, tuple[Issue, ...]]

    @classmethod
    def of(cls, labels: Sequence[Labels]) -> LabelTable:
        """The table of a list of labels."""
        empty = Labels(size=(0, 0), class_ids=np.zeros(0, np.int32), boxes_xyxy_px=np.zeros((0, 4)))
        flat = [_arrays(one) for one in labels]
        columns = {name: _Ragged.of([one[name] for one in flat], none) for name, none in _arrays(empty).items()}
        counts = np.array([[getattr(one, name) for name in _COUNTS] for one in labels], np.int64).reshape(
            -1, len(_COUNTS)
        )
        sizes = np.array([one.size for one in labels], np.int64).reshape(-1, 2)
        return cls(columns, counts, sizes, {index: one.issues for index, one in enumerate(labels) if one.issues})

    def __len__(self) -> int:
        return len(self.sizes)

    def labels(self, index: int) -> Labels:
        """The labels of an image; their arrays are views and not to be written to."""
        index = range(len(self))[index]  # from the end, too
        height, width = self.sizes[index].tolist()
        duplicates, empty, unlisted, missing = self.counts[index].tolist()
        return Labels(
            size=(height, width),
            polygons=Polygons(*(self.columns[name].at(index) for name in Polygons._fields)),
            duplicates=duplicates,
            empty=empty,
            unlisted=unlisted,
            missing=bool(missing),
            issues=self.issues.get(index, ()),
            **{name: self.columns[name].at(index) for name in _FLAT},
        )

    def subset(self, indices: Sequence[int]) -> LabelTable:
        """These images alone, in this order."""
        rows = np.array(indices, np.int64)
        indices = [range(len(self))[index] for index in indices]
        columns = {
            name: _Ragged.of([column.at(index) for index in indices], column.values[:0])
            for name, column in self.columns.items()
        }
        issues = {place: self.issues[index] for place, index in enumerate(indices) if index in self.issues}
        return LabelTable(columns, self.counts[rows], self.sizes[rows], issues)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as named arrays of numbers, for a file."""
        columns = {f"{name}.{part}": getattr(self.columns[name], part) for name in self.columns for part in _PARTS}
        text = json.dumps([[index, [list(issue) for issue in issues]] for index, issues in self.issues.items()])
        return columns | {"counts": self.counts, "sizes": self.sizes, "issues": np.frombuffer(text.encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> LabelTable:
        """The table that `arrays` was called on."""
        columns = {
            name: _Ragged(*(arrays[f"{name}.{part}"] for part in _PARTS)) for name in (*_FLAT, *Polygons._fields)
        }
        issues = {
            index: tuple(Issue(*issue) for issue in rows) for index, rows in json.loads(arrays["issues"].tobytes())
        }
        return cls(columns, arrays["counts"], arrays["sizes"], issues)


_PARTS = ("values", "starts")


def _arrays(labels: Labels) -> dict[str, NDArray[Any]]:
    return {name: getattr(labels, name) for name in _FLAT} | labels.polygons._asdict()


@dataclass(frozen=True, eq=False, kw_only=True)
class KnownSource(SourceView, ReadSource):
    """Another source with the labels of its images, in its order, as they were read before: only images are read."""

    category_ids: tuple[int, ...] = field()
    source: SourceMixin
    table: LabelTable
    issues: tuple[Issue, ...] = ()

    @classmethod
    def of(cls, source: SourceMixin, table: LabelTable) -> KnownSource:
        """A source with a table of its labels."""
        same = {name: getattr(source, name) for name in ("names", "image_ids", "category_ids", "issues")}
        return cls(source=source, table=table, **same)

    @property
    def settings(self) -> tuple[Any, ...]:
        """Those of the other source."""
        return self.source.settings

    def place(self, index: int) -> tuple[SourceMixin, int]:
        """The same image of the other source."""
        return self.source, index

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, as they were when its labels were read."""
        return self.table.labels(index).size

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The labels as they were read before."""
        labels = self.table.labels(index)
        if size and size != labels.size:
            raise DataError(
                f"{self.path(index)}: the image is {size[1]} x {size[0]} pixels; it had {labels.size[1]} x "
                f"{labels.size[0]} when its labels were read: begin anew",
                kind="labels of another size",
            )
        return labels

    def files(self) -> list[Path]:
        """Those of the other source."""
        return self.source.files()

    def subset(self, indices: Sequence[int]) -> KnownSource:
        """These images alone."""
        return KnownSource.of(self.source.subset(indices), self.table.subset(indices))

    def ground_truth(self) -> dict[str, Any]:
        """That of the other source."""
        return self.source.ground_truth()

"""A source whose labels are known already: nothing but images is read any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolov7_jax.datasets.image_source import ReadSource
from yolov7_jax.datasets.table import LabelTable
from yolov7_jax.errors import DataError
from yolov7_jax.source import SourceMixin, SourceView
from yolov7_jax.types import Issue, Labels


@dataclass(frozen=True, eq=False, kw_only=True)
class KnownSource(SourceView, ReadSource):
    """Another source with the labels of its images, in its order, as they were read before."""

    names: tuple[str, ...]
    image_ids: tuple[int, ...] = field()
    category_ids: tuple[int, ...] = field()
    source: SourceMixin
    table: LabelTable
    issues: tuple[Issue, ...] = ()

    @classmethod
    def of(cls, source: SourceMixin, table: LabelTable) -> KnownSource:
        """A source with a table of its labels."""
        return cls(
            names=source.names,
            image_ids=source.image_ids,
            category_ids=source.category_ids,
            source=source,
            table=table,
            issues=source.issues,
        )

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

"""What a data set holds and what is wrong with it, before any of its images is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from yolov7_jax.datasets.table import KnownSource, LabelTable
from yolov7_jax.errors import DataError
from yolov7_jax.prefetch import ProgressBar, no_progress, of_each
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import NO_LABELS, Issue, Labels


class Findings(NamedTuple):
    """What reading all labels of a source found: the labels, none where an image is unusable; why, by index."""

    table: LabelTable
    unusable: dict[int, Issue]


def audit_labels(source: SourceMixin, *, progress: ProgressBar = no_progress) -> Findings:
    """Reads the labels and checks the image file of every image, but decodes none.

    Args:
        source: best one that was opened with on_error="skip": one that stops reports an image's first error only, and
            counts the image among those that cannot be used.
        progress: a display of progress.
    """
    found = list(of_each(partial(_labels, source), range(len(source)), progress=progress))
    unusable = {index: one for index, one in enumerate(found) if isinstance(one, Issue)}
    return Findings(LabelTable.of([NO_LABELS if isinstance(one, Issue) else one for one in found]), unusable)


@dataclass(frozen=True)
class Audit:
    """Counts of a data set and the sentences on what is wrong with it.

    images: all, usable or not. objects: those of each class that training sees, in the order of `names`. without_file:
    images that have no file of labels. without_objects: images that have one, in which no object is left. duplicates
    and empty: objects left out because an equal one came before, or because the box has no area. unlisted: those left
    out because their class is not asked for. issues: what is
    wrong with other objects, which are left out. with_polygons: objects that have some. findings: what all this is
    counted from.
    """

    images: int
    names: tuple[str, ...]
    objects: tuple[int, ...]
    without_file: int
    without_objects: int
    duplicates: int
    empty: int
    unlisted: int
    issues: tuple[Issue, ...]
    with_polygons: int
    findings: Findings

    @property
    def unusable(self) -> dict[int, Issue]:
        """Images, by index, that cannot be read themselves or whose labels cannot be read at all, and why."""
        return self.findings.unusable

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is wrong, images that cannot be used first."""
        return tuple(issue.message for issue in (*self.unusable.values(), *self.issues))

    def lines(self, *, most: int | None = 5) -> list[str]:
        """A summary for people: counts, then the first `most` of what is wrong (None: all of it)."""
        absent = [name for count, name in zip(self.objects, self.names, strict=True) if not count]
        lines = [
            f"{self.images} images: {self.without_file} without a label file, {self.without_objects} without objects, "
            f"{len(self.unusable)} cannot be used",
            f"{sum(self.objects)} objects: {listed(by_frequency(self.objects, self.names))}",
        ]
        if absent:
            lines.append(f"{len(absent)} classes without objects: {listed(absent)}")
        lines.append(
            f"objects left out: {self.duplicates} that repeat, {self.empty} without area, {len(self.issues)} wrong"
            + (f", {self.unlisted} of classes that are not asked for" if self.unlisted else "")
        )
        shown = self.sentences[:most]
        lines += [f"  {sentence}" for sentence in shown]
        if len(shown) < len(self.sentences):
            lines.append(f"  and {len(self.sentences) - len(shown)} more")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def stop_on_error(self, *, most: int = 5) -> None:
        """Refuses data with which anything is wrong; boxes that repeat or have no area are no error.

        Raises:
            DataError: there are errors or images that cannot be used; says how many and names the first.
        """
        if self.sentences:
            raise DataError(
                f"{len(self.unusable)} of {self.images} images cannot be used and {len(self.issues)} objects are "
                "wrong; correct them, or go on without them (data.on_error=skip). "
                f"The first: {listed(self.sentences, most, separator=' | ')}"
            )


def audit(source: SourceMixin, findings: Findings | None = None, *, progress: ProgressBar = no_progress) -> Audit:
    """Counts what a source holds and what is wrong with it: from its findings, else it reads all labels first."""
    findings = findings or audit_labels(source, progress=progress)
    usable = [index for index in range(len(source)) if index not in findings.unusable]
    labels = [findings.table.labels(index) for index in usable]
    class_ids = np.concatenate([found.class_ids for found in labels] or [np.zeros(0, np.int32)])
    return Audit(
        images=len(source),
        names=source.names,
        objects=tuple(np.bincount(class_ids, minlength=len(source.names)).tolist()),
        without_file=sum(found.missing for found in labels),
        without_objects=sum(not found.missing and len(found.class_ids) == 0 for found in labels),
        duplicates=sum(found.duplicates for found in labels),
        empty=sum(found.empty for found in labels),
        unlisted=sum(found.unlisted for found in labels),
        issues=(*source.issues, *(issue for found in labels for issue in found.issues)),
        with_polygons=sum(len(np.unique(found.polygons.owner)) for found in labels),
        findings=findings,
    )


def readable(source: SourceMixin, found: Audit) -> KnownSource:
    """The images of a source that its audit found usable, with their labels as they were found.

    Raises:
        DataError: no image is left; names the first that cannot be used.
    """
    kept = [index for index in range(len(source)) if index not in found.unusable]
    if not kept:
        first = next((issue.message for issue in found.unusable.values()), "it has none")
        raise DataError(f"none of the {len(source)} images can be used; the first: {first}")
    known = KnownSource.of(source, found.findings.table)
    return known.subset(kept) if len(kept) < len(source) else known


def _labels(source: SourceMixin, index: int) -> Labels | Issue:
    try:
        return source.labels_for(index, source.check_image(index))
    except DataError as error:
        return Issue("error", error.kind, str(error))


def by_frequency(objects: Sequence[int], names: Sequence[str]) -> list[str]:
    """The classes that have objects, each with its number, those with most first."""
    present = [(count, name) for count, name in zip(objects, names, strict=True) if count]
    return [f"{name} {count}" for count, name in sorted(present, key=lambda pair: -pair[0])]


def listed(texts: Sequence[str], most: int = 10, *, separator: str = ", ") -> str:
    """The first of some texts, and how many more there are."""
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return separator.join([*texts[:most], *more])

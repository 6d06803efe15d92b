"""What a data set holds and what is wrong with it, before any of its images is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from yolov7_jax.data.prefetch import prefetch
from yolov7_jax.data.sources import Labels, Source
from yolov7_jax.errors import DataError

_THREADS = 8  # they wait for the disk
_AHEAD = 64
_MOST_CLASSES = 10  # that the summary names

AnySource = TypeVar("AnySource", bound=Source)


@dataclass(frozen=True)
class Audit:
    """Counts of a data set and the sentences on what is wrong with it.

    images: all, usable or not. objects: those of each class that training sees, in the order of `names`. without_file:
    images that have no file of labels. without_objects: images that have one, in which no object is left. duplicates
    and empty: objects left out because an equal one came before, or because the box has no area. faults: what is wrong
    with other objects, which are left out. unusable: images, by index, that cannot be read themselves or whose labels
    cannot be read at all, and why.
    """

    images: int
    names: tuple[str, ...]
    objects: tuple[int, ...]
    without_file: int
    without_objects: int
    duplicates: int
    empty: int
    faults: tuple[str, ...]
    unusable: dict[int, str]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All that is wrong, images that cannot be used first."""
        return (*self.unusable.values(), *self.faults)

    def lines(self, *, most: int | None = 5) -> list[str]:
        """A summary for people: counts, then the first `most` of what is wrong (None: all of it)."""
        present = [(count, name) for count, name in zip(self.objects, self.names, strict=True) if count]
        present.sort(key=lambda pair: -pair[0])
        absent = [name for count, name in zip(self.objects, self.names, strict=True) if not count]
        lines = [
            f"{self.images} images: {self.without_file} without a label file, {self.without_objects} without objects, "
            f"{len(self.unusable)} cannot be used",
            f"{sum(self.objects)} objects: " + _first([f"{name} {count}" for count, name in present], _MOST_CLASSES),
        ]
        if absent:
            lines.append(f"{len(absent)} classes without objects: " + _first(absent, _MOST_CLASSES))
        lines.append(
            f"objects left out: {self.duplicates} that repeat, {self.empty} without area, {len(self.faults)} faulty"
        )
        shown = self.sentences[:most]
        lines += [f"  {sentence}" for sentence in shown]
        if len(shown) < len(self.sentences):
            lines.append(f"  and {len(self.sentences) - len(shown)} more")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def stop_at_faults(self, *, most: int = 5) -> None:
        """Refuses data with which anything is wrong; boxes that repeat or have no area are no fault.

        Raises:
            DataError: there are faults or images that cannot be used; says how many and names the first.
        """
        if self.sentences:
            raise DataError(
                f"{len(self.unusable)} of {self.images} images cannot be used and {len(self.faults)} objects are "
                "faulty; correct them, or go on without them (data.faults=skip). "
                f"The first: {_first(self.sentences, most, separator=' | ')}"
            )


class _Finding(NamedTuple):
    """What was found of one image: its labels, or why it cannot be used."""

    labels: Labels | None
    problem: str = ""


def audit(source: Source, *, track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _: items) -> Audit:
    """Looks at the labels and the image file of every image, at the ends of the file alone: nothing is decoded.

    Args:
        source: best one that was opened with faults="skip": one that stops tells of an image's first fault only, and
            counts the image among those that cannot be used.
        track: is given what is gone through and its length, and hands it on; for a display of progress.
    """
    indices = range(len(source))
    findings = list(track(prefetch(partial(_look, source), indices, workers=_THREADS, ahead=_AHEAD), len(source)))
    labels = [finding.labels for finding in findings if finding.labels is not None]
    class_ids = np.concatenate([found.class_ids for found in labels] or [np.zeros(0, np.int32)])
    return Audit(
        images=len(source),
        names=source.names,
        objects=tuple(np.bincount(class_ids, minlength=len(source.names)).tolist()),
        without_file=sum(found.missing for found in labels),
        without_objects=sum(not found.missing and len(found.class_ids) == 0 for found in labels),
        duplicates=sum(found.duplicates for found in labels),
        empty=sum(found.empty for found in labels),
        faults=(*source.faults, *(sentence for found in labels for sentence in found.faults)),
        unusable={index: finding.problem for index, finding in enumerate(findings) if finding.labels is None},
    )


def readable(source: AnySource, found: Audit) -> AnySource:
    """The source without the images that its audit found unusable.

    Raises:
        DataError: no image is left; names the first that cannot be used.
    """
    kept = [index for index in range(len(source)) if index not in found.unusable]
    if not kept:
        first = next(iter(found.unusable.values()), "it has none")
        raise DataError(f"none of the {len(source)} images can be used; the first: {first}")
    return source.subset(kept) if len(kept) < len(source) else source


def _look(source: Source, index: int) -> _Finding:
    try:
        source.check_image(index)
        return _Finding(source.labels(index))
    except DataError as error:
        return _Finding(None, str(error))


def _first(texts: Sequence[str], most: int, *, separator: str = ", ") -> str:
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return separator.join([*texts[:most], *more])

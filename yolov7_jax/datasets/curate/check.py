"""All that is wrong or odd with a data set: every image, every label, and all splits together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.curate.conversion import ProgressBar
from yolov7_jax.datasets.curate.image_check import Look, look_at
from yolov7_jax.datasets.curate.label_files import ORPHAN, check_label_files, labels_of
from yolov7_jax.datasets.curate.splits import split_names
from yolov7_jax.datasets.warnings import ALMOST_TWICE, BEYOND, BOX_TWICE, SPECK
from yolov7_jax.errors import DataError
from yolov7_jax.prefetch import prefetch
from yolov7_jax.source import Source
from yolov7_jax.types import Fault

_THREADS = 4  # they decode
_AHEAD = 32
_TINY_PX = 32  # a side of this many pixels is one cell of the coarsest level of most networks
_FEW = 10  # objects of a class
_MOST_NAMED = 3  # files in a sentence

DUPLICATE, LEAK = "duplicate image", "image in two splits"
CLOSED = "split that cannot be opened"
TURNED, TINY, MISSING = "image turned by EXIF", "tiny image", "no label file"
NO_OUTLINE, FEW, NAME_TWICE = "objects without outline", "class with few objects", "class name twice"

NOTICES = frozenset(
    {TURNED, TINY, MISSING, ORPHAN, BEYOND, BOX_TWICE, ALMOST_TWICE, SPECK, NO_OUTLINE, FEW, NAME_TWICE}
)
"""Kinds of findings that may be meant; any other is a fault."""


class Finding(NamedTuple):
    """What is wrong or odd: its kind, a sentence that names file and line, its split, and the image it is of, if any.

    leaves_out: the image cannot be used, or is there already.
    """

    kind: str
    sentence: str
    split: str | None = None
    image: int | None = None
    leaves_out: bool = False

    @property
    def is_notice(self) -> bool:
        """Whether it may be meant."""
        return self.kind in NOTICES


@dataclass(frozen=True)
class Report:
    """What a check found. images: how many each split has, those that cannot be used among them."""

    images: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(finding for finding in self.findings if not finding.is_notice)

    @property
    def notices(self) -> tuple[Finding, ...]:
        """What is odd."""
        return tuple(finding for finding in self.findings if finding.is_notice)

    def counts(self) -> dict[str, Counter[str | None]]:
        """How many of each kind each split has (None: all splits together), faults first, then by number."""
        counts: dict[str, Counter[str | None]] = {}
        for finding in self.findings:
            counts.setdefault(finding.kind, Counter())[finding.split] += 1
        return dict(sorted(counts.items(), key=lambda row: (row[0] in NOTICES, -row[1].total(), row[0])))


def check_data(
    data: Path | str,
    *,
    splits: Sequence[str] | None = None,
    image_folder: Path | None = None,
    decode: bool = True,
    progress: ProgressBar = lambda items, _: items,
) -> Report:
    """Looks at all images and labels of a data set; nothing of it is changed.

    Args:
        data: what `open_source` opens.
        splits: which to look at; by default all that the data set names.
        image_folder: where the images of a COCO annotation file are.
        decode: decode all images; else only their beginnings and ends are looked at.
        progress: is given what is gone through and its length, and hands it on; for a display of progress.

    Raises:
        InputError: there is no such data set, or it does not say which splits it has.
    """
    sources: dict[str, Source] = {}
    findings: list[Finding] = []
    for split in dict.fromkeys(splits or split_names(data)):
        try:
            sources[split] = open_source(data, split, image_folder=image_folder, on_error="note")
        except DataError as error:
            findings.append(Finding(CLOSED if error.kind == "other" else error.kind, str(error), split))
    objects = {split: np.zeros(len(source.names), np.int64) for split, source in sources.items()}
    first: dict[str, tuple[str, int, Path]] = {}
    for split, source in sources.items():
        findings += _of_split(split, source, _looks(source, decode, progress), objects[split], first)
    findings += [Finding(*fault) for fault in check_label_files(sources.values())]
    findings += _of_classes(data, sources, objects)
    return Report({split: len(source) for split, source in sources.items()}, tuple(findings))


def _of_split(
    split: str,
    source: Source,
    looks: Iterable[Look],
    objects: NDArray[np.int64],
    first: dict[str, tuple[str, int, Path]],
) -> Iterator[Finding]:
    """The findings of a split; adds its objects to the counts of classes, and its images to those that were seen."""
    yield from (Finding(*fault, split) for fault in source.faults)
    outlines = _Outlines(split)
    for index, look in enumerate(looks):
        path = source.path(index)
        yield from (Finding(*fault, split, index) for fault in _of_image(source, index, look))
        if look.problem is not None:
            yield Finding(*look.problem, split, index, leaves_out=True)
            continue
        yield from _seen_before(look.digest, split, path, index, first)
        if look.labels is not None:
            objects += np.bincount(look.labels.class_ids, minlength=len(source.names))
            outlines.add(path, len(look.labels.class_ids), look.labels.polygons.owner)
    yield from outlines.findings()


def _looks(source: Source, decode: bool, progress: ProgressBar) -> Iterator[Look]:
    look = partial(look_at, source, decode=decode)
    with closing(prefetch(look, range(len(source)), workers=_THREADS, ahead=_AHEAD)) as looks:
        yield from progress(looks, len(source))


def _of_image(source: Source, index: int, look: Look) -> Iterable[Fault]:
    """What is wrong or odd with an image that may be used all the same."""
    path = source.path(index)
    if look.size and min(look.size) < _TINY_PX:
        yield Fault(TINY, f"{path}: has {look.size[1]} x {look.size[0]} pixels only")
    if look.turned:
        yield Fault(TURNED, f"{path}: is upright by its EXIF orientation only; see that its labels are for the upright")
    if look.labels is not None:
        if look.labels.missing:
            yield Fault(MISSING, f"{path}: has no file {labels_of(source, index)}; it counts as without objects")
        yield from look.labels.faults


def _seen_before(
    digest: str | None, split: str, path: Path, index: int, first: dict[str, tuple[str, int, Path]]
) -> Iterable[Finding]:
    if digest is None:
        return
    known_split, _, known = first.setdefault(digest, (split, index, path))
    if known_split != split:
        sentence = f"{path}: is in {split}, and with the same content in {known_split} ({known}); remove it from one"
        yield Finding(LEAK, sentence, split, index)
    # Within a split, once more: what leaked may be there twice, too.
    _, known_index, known = first.setdefault(f"{split} {digest}", (split, index, path))
    if known_index != index:
        twice = "is listed twice" if known == path else f"has the same content as {known}"
        yield Finding(DUPLICATE, f"{path}: {twice}; remove one", split, index, leaves_out=True)


class _Outlines:
    """Objects of a split that have no outline though most have."""

    def __init__(self, split: str) -> None:
        self._split, self._objects, self._without = split, 0, 0
        self._files: list[Path] = []

    def add(self, path: Path, objects: int, owner: NDArray[np.int32]) -> None:
        without = objects - len(np.unique(owner))
        self._objects += objects
        self._without += without
        if without and len(self._files) < _MOST_NAMED:
            self._files.append(path)

    def findings(self) -> Iterable[Finding]:
        if 0 < self._without < self._objects / 2:
            files = ", ".join(map(str, self._files))
            yield Finding(
                NO_OUTLINE,
                f"{self._split}: {self._without} of {self._objects} objects have a box but no outline, "
                f"though most have one; the first are in {files}",
                self._split,
            )


def _of_classes(
    data: Path | str, sources: Mapping[str, Source], objects: Mapping[str, NDArray[np.int64]]
) -> Iterable[Finding]:
    names = next((source.names for source in sources.values()), ())
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Finding(NAME_TWICE, f"{data}: classes {names.index(name)} and {number} are both named {name}")
        counts = {split: int(found[number]) for split, found in objects.items() if number < len(found)}
        if sum(counts.values()) < _FEW:
            each = ", ".join(f"{split} {count}" for split, count in counts.items())
            yield Finding(FEW, f"{data}: class {name} has {sum(counts.values())} objects ({each})")

"""All that is wrong or odd with a data set, and what remains of it without what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.curate.conversion import content_of, format_of, open_splits, split_names
from yolov7_jax.datasets.curate.image_audit import ROTATED, ImageAudit, audit_image, check_label_files
from yolov7_jax.datasets.writers import Written, write_data
from yolov7_jax.errors import DataError
from yolov7_jax.prefetch import ProgressBar, no_progress, of_each
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import NO_LABELS, Issue

_THREADS = 4  # they decode
_FEW = 10  # objects of a class
_MOST_NAMED = 3  # files in a sentence

DUPLICATE, LEAK = "duplicate image", "image in two splits"
CLOSED = "split that cannot be opened"
NO_POLYGON, FEW, NAME_TWICE = "objects without polygon", "class with few objects", "class name twice"


@dataclass(frozen=True)
class Report:
    """What a check found.

    images: how many each split has, those that cannot be used among them. left_out: of each split the images, by
    index, that cannot be used or are there already, and the kind of issue that tells why.
    """

    images: Mapping[str, int]
    issues: tuple[Issue, ...]
    left_out: Mapping[str, Mapping[int, str]]

    @property
    def errors(self) -> tuple[Issue, ...]:
        """What is wrong."""
        return tuple(issue for issue in self.issues if issue.severity == "error")

    @property
    def warnings(self) -> tuple[Issue, ...]:
        """What is odd and may be meant."""
        return tuple(issue for issue in self.issues if issue.severity == "warning")

    def counts(self) -> dict[str, Counter[str | None]]:
        """How many of each kind each split has (None: all splits together), errors first, then by number."""
        counts: dict[str, Counter[str | None]] = {}
        for issue in (*self.errors, *self.warnings):
            counts.setdefault(issue.kind, Counter())[issue.split] += 1
        warned = {issue.kind for issue in self.warnings}
        return dict(sorted(counts.items(), key=lambda row: (row[0] in warned, -row[1].total(), row[0])))


def check_data(
    data: Path | str,
    *,
    splits: Sequence[str] | None = None,
    image_folder: Path | None = None,
    decode: bool = True,
    progress: ProgressBar = no_progress,
) -> Report:
    """Checks all images and labels of a data set, and changes nothing of it.

    Args:
        data: what `open_source` opens.
        splits: which to check; by default all that the data set names.
        image_folder: where the images of a COCO annotation file are.
        decode: decode all images; else check only their beginnings and ends.
        progress: a display of progress.

    Raises:
        InputError: there is no such data set, or it does not say which splits it has.
    """
    sources, issues = _opened(data, splits or split_names(data), image_folder)
    left_out: dict[str, dict[int, str]] = {}
    objects: dict[str, NDArray[np.int64]] = {}  # [classes]
    first: dict[str, tuple[str, int, Path]] = {}
    for split, source in sources.items():
        audit = partial(audit_image, source, decode=decode)
        audits = list(of_each(audit, range(len(source)), workers=_THREADS, progress=progress))
        found, left_out[split] = _of_split(split, source, audits, first)
        issues += found
        objects[split] = _count_objects(audits, len(source.names))
    issues += check_label_files(sources.values())
    issues += _of_classes(data, sources, objects)
    return Report({split: len(source) for split, source in sources.items()}, tuple(issues), left_out)


def _opened(
    data: Path | str, splits: Sequence[str], image_folder: Path | None
) -> tuple[dict[str, SourceMixin], list[Issue]]:
    """The splits that can be opened, and why others cannot."""
    sources: dict[str, SourceMixin] = {}
    issues = []
    for split in dict.fromkeys(splits):
        try:
            sources[split] = open_source(data, split, image_folder=image_folder, on_error="note")
        except DataError as error:
            issues.append(Issue("error", CLOSED if error.kind == "other" else error.kind, str(error), split))
    return sources, issues


def _count_objects(audits: Sequence[ImageAudit], num_classes: int) -> NDArray[np.int64]:
    """Objects of each class in the images that can be used."""
    class_ids = [audited.class_ids for audited in audits if not audited.problem]
    return np.bincount(np.concatenate([NO_LABELS.class_ids, *class_ids]), minlength=num_classes)


def _of_split(
    split: str, source: SourceMixin, audits: Sequence[ImageAudit], first: dict[str, tuple[str, int, Path]]
) -> tuple[list[Issue], dict[int, str]]:
    """The issues of a split, and its images to leave out; adds to `first` where each content is seen first."""
    issues = list(source.issues)
    left_out: dict[int, str] = {}
    for index, audited in enumerate(audits):
        of_image = list(audited.issues)
        if audited.problem:
            left_out[index] = audited.problem.kind
        elif audited.digest:
            repeats = list(_seen_before(audited.digest, split, source.path(index), index, first))
            if any(issue.kind == DUPLICATE for issue in repeats):
                left_out[index] = DUPLICATE
            of_image += repeats
        issues += [issue._replace(image=index) for issue in of_image]
    issues += _few_without_polygon(split, source, audits)
    return [issue._replace(split=split) for issue in issues], left_out


def _seen_before(
    digest: str, split: str, path: Path, index: int, first: dict[str, tuple[str, int, Path]]
) -> Iterable[Issue]:
    known_split, _, known = first.setdefault(digest, (split, index, path))
    if known_split != split:
        message = f"{path}: is in {split}, and with the same content in {known_split} ({known}); remove it from one"
        yield Issue("error", LEAK, message)
    # Within a split, once more: what leaked may be there twice, too.
    _, known_index, known = first.setdefault(f"{split} {digest}", (split, index, path))
    if known_index != index:
        twice = "is listed twice" if known == path else f"has the same content as {known}"
        yield Issue("error", DUPLICATE, f"{path}: {twice}; remove one")


def _few_without_polygon(split: str, source: SourceMixin, audits: Sequence[ImageAudit]) -> Iterable[Issue]:
    """A warning if some objects of a split have no polygon though most have."""
    without = {at: audited.without_polygon for at, audited in enumerate(audits) if not audited.problem}
    objects, lacking = sum(len(audits[at].class_ids) for at in without), sum(without.values())
    if 0 < lacking < objects / 2:
        files = ", ".join(str(source.path(at)) for at in [at for at, count in without.items() if count][:_MOST_NAMED])
        message = f"{split}: {lacking} of {objects} objects have a box but no polygon, though most have one"
        yield Issue("warning", NO_POLYGON, f"{message}; the first are in {files}")


def _of_classes(
    data: Path | str, sources: Mapping[str, SourceMixin], objects: Mapping[str, NDArray[np.int64]]
) -> Iterable[Issue]:
    names = next((source.names for source in sources.values()), ())
    for number, name in enumerate(names):
        if name in names[:number]:
            message = f"{data}: classes {names.index(name)} and {number} are both named {name}"
            yield Issue("warning", NAME_TWICE, message)
        counts = {split: int(found[number]) for split, found in objects.items() if number < len(found)}
        if sum(counts.values()) < _FEW:
            each = ", ".join(f"{split} {count}" for split, count in counts.items())
            yield Issue("warning", FEW, f"{data}: class {name} has {sum(counts.values())} objects ({each})")


def fix_data(
    data: Path | str,
    folder: Path | str,
    report: Report,
    *,
    image_folder: Path | None = None,
    link: bool = True,
    progress: ProgressBar = no_progress,
) -> Written:
    """Writes what can be used of a data set into a new folder, in its format, and counts what was changed.

    Leaves out images that cannot be used, and objects that are wrong, repeat or have no area. Keeps one of images with
    the same content in a split. Saves images upright that are so by their EXIF orientation only. Writes data of
    TensorFlow Datasets and of formats that users register in COCO's format.

    Args:
        data: what was checked; it is left as it is.
        folder: a new one.
        report: of `check_data`.
        image_folder: where the images of a COCO annotation file are.
        link: hard links of images where the disk can have them, else copies.
        progress: a display of progress.

    Raises:
        InputError: no image is left, or the result cannot be written.
    """
    sources = open_splits(data, [*report.images], image_folder=image_folder, on_error="skip") if report.images else {}
    parts = {
        split: [source.subset([index for index in range(len(source)) if index not in report.left_out[split]])]
        for split, source in sources.items()
        if len(report.left_out[split]) < len(source)
    }
    if not parts:
        raise DataError(f"{data}: none of its images can be used; correct what the check names first")
    rotated = _rotated(report, sources)
    content = content_of(parts, saved_anew=set(rotated), progress=progress)
    written = write_data(folder, content, to=format_of(data), link=link)
    changes = _changes(report, len(rotated)) + Counter(written.losses)
    return Written(written.data, changes)


def _rotated(report: Report, sources: Mapping[str, SourceMixin]) -> list[Path]:
    """The images that are kept and are upright by their EXIF orientation only."""
    found = [issue for issue in report.issues if issue.kind == ROTATED]
    places = [(issue.split, issue.image) for issue in found if issue.split and issue.image is not None]
    return [sources[split].path(image) for split, image in places if image not in report.left_out[split]]


def _changes(report: Report, upright: int) -> Counter[str]:
    """What `fix_data` changes, in words, and how often."""
    changes = Counter(f"images left out, {kind}" for kinds in report.left_out.values() for kind in kinds.values())
    changes["images saved upright"] = upright
    changes["images that stay in two splits, as only you can tell where they belong"] = sum(
        issue.kind == LEAK for issue in report.issues
    )
    return changes

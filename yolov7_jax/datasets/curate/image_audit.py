"""One labeled image audited as closely as can be, and files of labels against files of images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES, is_rotated
from yolov7_jax.datasets.voc import VocSource
from yolov7_jax.datasets.yolo import YoloSource, label_file
from yolov7_jax.errors import DataError
from yolov7_jax.image import UNREADABLE
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import NO_LABELS, Issue, Labels

ORPHAN = "label file without image"
SHARED = "label file of several images"
ROTATED, TINY, MISSING = "image rotated by EXIF", "tiny image", "no label file"

_TINY_PX = 32  # a side of this many pixels is one cell of the coarsest level of most networks

_NO_LABELS = frozenset({"classes.txt", "labels.txt"})  # lists of class names that tools leave beside label files


class ImageAudit(NamedTuple):
    """What is known of an image and its labels.

    issues: what is wrong or odd. problem: the one of them for which the image cannot be used. class_ids: int32 [n], of
    its objects. without_polygon: how many of these have none. digest: SHA-256 of the file's bytes.
    """

    issues: tuple[Issue, ...]
    problem: Issue | None = None
    class_ids: NDArray[np.int32] = NO_LABELS.class_ids
    without_polygon: int = 0
    digest: str | None = None


def audit_image(source: SourceMixin, index: int, *, decode: bool) -> ImageAudit:
    """Checks the image's file and its labels; `decode`: also all of its pixels."""
    try:
        size = source.check_image(index)
        if decode:
            _decode(source, index, size)
    except DataError as error:
        problem = Issue("error", error.kind, str(error))
        with suppress(DataError):  # reports what is wrong with the labels all the same, if their size is known
            return ImageAudit((*_of_labels(source, index, source.labels(index)), problem), problem)
        return ImageAudit((problem,), problem)
    digest, odd = _of_file(source.path(index), size)
    try:
        labels = source.labels_for(index, size)
    except DataError as error:
        problem = Issue("error", error.kind, str(error))
        return ImageAudit((*odd, problem), problem)
    without_polygon = len(labels.class_ids) - len(np.unique(labels.polygons.owner))
    issues = (*odd, *_of_labels(source, index, labels))
    return ImageAudit(issues, None, labels.class_ids, without_polygon, digest)


def _decode(source: SourceMixin, index: int, size: tuple[int, int]) -> None:
    height, width = source.read(index).shape[:2]
    if (height, width) != size:
        raise DataError(
            f"{source.path(index)}: says that it has {size[1]} x {size[0]} pixels, but has {width} x {height}; "
            "save it anew",
            kind=UNREADABLE,
        )


def _of_file(path: Path, size: tuple[int, int]) -> tuple[str | None, list[Issue]]:
    """The digest of an image's file, and what is odd about the image; size: (h, w)."""
    odd = []
    if min(size) < _TINY_PX:
        odd.append(Issue("warning", TINY, f"{path}: has {size[1]} x {size[0]} pixels only"))
    if not path.is_file():  # images of some sources are in files with others
        return None, odd
    if is_rotated(path):
        message = f"{path}: is upright by its EXIF orientation only; see that its labels are for the upright"
        odd.append(Issue("warning", ROTATED, message))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), odd


def _of_labels(source: SourceMixin, index: int, labels: Labels) -> Iterable[Issue]:
    if labels.missing:
        message = f"{source.path(index)}: has no file {labels_of(source, index)}; it counts as without objects"
        yield Issue("warning", MISSING, message)
    yield from labels.issues


def labels_of(source: SourceMixin, index: int) -> Path | None:
    """The file of labels of an image, if it has one to itself."""
    if isinstance(source, YoloSource):
        return label_file(source.path(index))
    return source.annotations[index] if isinstance(source, VocSource) else None


def check_label_files(sources: Iterable[SourceMixin]) -> list[Issue]:
    """Names label files that belong to no image, and those that belong to several, of all splits of a data set."""
    known: dict[Path, set[Path]] = {}
    for source in sources:
        for index in range(len(source)):
            if file := labels_of(source, index):
                known.setdefault(file, set()).add(source.path(index))
    listed = {image for images in known.values() for image in images}
    by_place = {image.parent: file.parent for file, images in known.items() for image in images}
    for folder, home in by_place.items():  # images that are on disk, whether or not a split has them
        for image in folder.iterdir() if folder.is_dir() else ():
            if image.suffix.lower() in IMAGE_SUFFIXES and not image.name.startswith("."):
                file = home / f"{image.stem}{_ending(known)}"
                known.setdefault(file, set()).add(image)
    return [*_shared(known, listed), *_orphans(known, set(by_place.values()))]


def _shared(known: dict[Path, set[Path]], listed: set[Path]) -> Iterable[Issue]:
    for file, images in sorted(known.items()):
        if len(images) > 1 and images & listed:
            names = " and ".join(image.name for image in sorted(images))
            yield Issue(
                "error", SHARED, f"{file}: has the labels of {names}; rename one of the images and give it labels"
            )


def _orphans(known: dict[Path, set[Path]], folders: set[Path]) -> Iterable[Issue]:
    for folder in sorted(folders):
        for file in sorted(folder.glob(f"*{_ending(known)}")):
            if file not in known and file.name not in _NO_LABELS:
                yield Issue(
                    "warning", ORPHAN, f"{file}: there is no image of this name; add the image or remove the file"
                )


def _ending(known: dict[Path, set[Path]]) -> str:
    return next(iter(known)).suffix

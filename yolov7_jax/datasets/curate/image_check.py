"""One labeled image looked at as closely as can be."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import NamedTuple

from yolov7_jax.datasets.image_files import is_turned
from yolov7_jax.errors import DataError
from yolov7_jax.image import UNREADABLE
from yolov7_jax.source import Source
from yolov7_jax.types import Fault, Labels


class Look(NamedTuple):
    """What was seen of an image: its labels and why it cannot be used (either may be None); (h, w) in pixels.

    digest: SHA-256 of the file's bytes. turned: it is upright only by its EXIF orientation.
    """

    labels: Labels | None
    problem: Fault | None
    size: tuple[int, int] | None = None
    digest: str | None = None
    turned: bool = False


def look_at(source: Source, index: int, *, decode: bool) -> Look:
    """Looks at the image's file and its labels; `decode`: also at all of its pixels."""
    try:
        size = source.check_image(index)
        if decode:
            _decode(source, index, size)
    except DataError as error:
        with suppress(DataError):  # what is wrong with the labels is told all the same, where their size is known
            return Look(source.labels(index), Fault(error.kind, str(error)))
        return Look(None, Fault(error.kind, str(error)))
    digest, turned = _of_file(source, index)
    try:
        return Look(source.labels(index, size), None, size, digest, turned)
    except DataError as error:
        return Look(None, Fault(error.kind, str(error)), size, digest, turned)


def _decode(source: Source, index: int, size: tuple[int, int]) -> None:
    height, width = source.read(index).shape[:2]
    if (height, width) != size:
        raise DataError(
            f"{source.path(index)}: says that it has {size[1]} x {size[0]} pixels, but has {width} x {height}; "
            "save it anew",
            kind=UNREADABLE,
        )


def _of_file(source: Source, index: int) -> tuple[str | None, bool]:
    path = source.path(index)
    if not path.is_file():  # images of some sources are in files with others
        return None, False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), is_turned(path)

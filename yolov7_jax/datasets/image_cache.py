"""Decoded images kept in memory or on disk up to a bound, for training that reads them again in every epoch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import FileSource, ReadSource
from yolov7_jax.errors import InputError
from yolov7_jax.files import cache_folder, write_atomically
from yolov7_jax.image import cv2
from yolov7_jax.memo import Memo
from yolov7_jax.source import SourceMixin, SourceView
from yolov7_jax.types import Issue, Labels

Where = Literal["memory", "disk"]

VARIABLE = "YOLOV7_JAX_IMAGE_CACHE"
"""Environment variable: the folder to keep images in, else images in yolov7_jax in the user's cache folder."""

GIB = 2**30

_LOGGER = logging.getLogger("yolov7_jax")


def with_cached_images(source: SourceMixin, where: Where, *, room: int, folder: Path | None = None) -> CachedImages:
    """A source that keeps its first images once they are decoded, as many as there is room for; others it reads anew.

    Samples are the same. Which images are kept depends on their sizes alone, so that threads and processes agree on
    them without a word.

    Args:
        source: whose images.
        where: "memory", of this process, whose threads share it; a pickled copy begins empty. "disk": files that any
            process may use, now and later, named by path, size and time of change of the image, so that those of an
            edited image are not used. Only images that are files of their own are kept there.
        room: bytes.
        folder: on disk; see VARIABLE.
    """
    sizes = np.array([source.size(index) for index in range(len(source))], np.int64).reshape(-1, 2)
    num_bytes = 3 * sizes.prod(axis=1)
    if where == "disk":
        num_bytes[[not _is_file(source, index) for index in range(len(source))]] = 0  # they take no room there
    kept = (num_bytes > 0) & (np.cumsum(num_bytes) <= room)
    folder = folder or cache_folder("images", VARIABLE)
    return CachedImages(
        names=source.names,
        image_ids=source.image_ids,
        category_ids=source.category_ids,
        issues=source.issues,
        source=source,
        kept=kept,
        num_bytes=int(num_bytes[kept].sum()),
        where="memory" if where == "memory" else str(folder),
        read_kept=_in_memory(source, room) if where == "memory" else OnDisk(source, folder),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class CachedImages(SourceView, ReadSource):
    """A source with images that are kept. kept: bool [images]. num_bytes: of those when all have been read.

    where: "memory", or the folder. read_kept: gives an image that is kept.
    """

    category_ids: tuple[int, ...] = field()
    source: SourceMixin
    kept: NDArray[np.bool_]
    num_bytes: int
    where: str
    read_kept: Callable[[int], NDArray[np.uint8]]
    issues: tuple[Issue, ...] = ()

    def __str__(self) -> str:
        amount = f"caching {int(self.kept.sum()):,} of {len(self):,} images"
        place = "in memory" if self.where == "memory" else f"on disk, in {self.where}"
        return f"{amount} {place} ({self.num_bytes / GIB:.2f} GiB)"

    @property
    def settings(self) -> tuple[Any, ...]:
        """Those of the other source."""
        return self.source.settings

    def place(self, index: int) -> tuple[SourceMixin, int]:
        """The same image of the other source."""
        return self.source, index

    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image, not to be written to where it is kept."""
        return self.read_kept(index) if self.kept[index] else self.source.read(index)

    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The labels of the other source."""
        return self.source.labels_for(index, size) if size else self.source.labels(index)

    def files(self) -> list[Path]:
        """Those of the other source."""
        return self.source.files()

    def subset(self, indices: Sequence[int]) -> CachedImages:
        """These images alone, none of them kept."""
        part = self.source.subset(indices)
        return replace(self, source=part, image_ids=part.image_ids, kept=np.zeros(len(part), bool), num_bytes=0)

    def ground_truth(self) -> dict[str, Any]:
        """That of the other source."""
        return self.source.ground_truth()


def _in_memory(source: SourceMixin, room: int) -> Memo[int, NDArray[np.uint8]]:
    return Memo(partial(_shared, source), room, _num_bytes)


def _shared(source: SourceMixin, index: int) -> NDArray[np.uint8]:
    """An image that several threads can be given, as none can write to it."""
    image = source.read(index).view()
    image.setflags(write=False)
    return image


def _num_bytes(image: NDArray[np.uint8]) -> int:
    return image.nbytes


def _is_file(source: SourceMixin, index: int) -> bool:
    """Whether an image is what `read_image` makes of its path."""
    while isinstance(source, SourceView):
        source, index = source.place(index)
    return isinstance(source, FileSource) and type(source).read is FileSource.read


class OnDisk:
    """Reads images of a source through files in a folder, .npy of their pixels, that are written when they are missing.

    Nothing there is ever deleted. A folder that cannot be written to, or a full disk, is reported once, and reading
    goes on. Files are read whole, which takes as long as mapping them into memory, and cannot crash the process.
    """

    def __init__(self, source: SourceMixin, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._writes = True

    def __call__(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""
        path = self._source.path(index)
        name = _name(path)
        if name is None:  # the source says why
            return self._source.read(index)
        file = self._folder / name[:2] / f"{name}.npy"
        image = _load(file)
        if image is None:
            image = self._source.read(index)
            if self._writes and _name(path) == name:  # it has not been changed meanwhile
                self._write(file, image)
        return image

    def _write(self, file: Path, image: NDArray[np.uint8]) -> None:
        content = BytesIO()
        np.save(content, image)
        try:
            write_atomically(file, content.getvalue())
        except InputError as error:
            if self._writes:
                _LOGGER.warning("no more images are cached: %s", error)
            self._writes = False


def _name(path: Path) -> str | None:
    """A hash of what a decoded image follows from; None where the file is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    known = f"{cv2.__version__}\0{path.absolute()}\0{found.st_size}\0{found.st_mtime_ns}"
    return hashlib.sha256(known.encode(errors="surrogateescape")).hexdigest()


def _load(file: Path) -> NDArray[np.uint8] | None:
    """The image in a file; None where there is none, or it is damaged."""
    try:
        image: NDArray[np.uint8] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return image if image.dtype == np.uint8 and image.ndim == 3 else None

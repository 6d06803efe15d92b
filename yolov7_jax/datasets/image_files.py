"""Image files that are listed and measured but not decoded, and the bases of sources over images."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from yolov7_jax.errors import DataError
from yolov7_jax.image import UNREADABLE, check_image, read_image
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Labels, Sample

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_ORIENTATION = 0x0112  # the EXIF tag
_QUARTER_ROTATIONS = frozenset({5, 6, 7, 8})  # its values that swap width and height
_ROTATIONS = _QUARTER_ROTATIONS | {2, 3, 4}  # all but 1, upright
MOST_EXACT_INTEGER = 2**53  # larger ids do not survive JSON


def list_images(folder: Path) -> list[Path]:
    """The images in a folder and the folders below it, sorted by path; hidden files are left out.

    Raises:
        DataError: there are none.
    """
    found = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (name for name in names if not name.startswith("."))
        found += [Path(where, name) for name in visible if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(
            f"{folder}: no images in this folder; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return sorted(found)


def present(files: Iterable[Path]) -> Iterator[bool]:
    """Whether each file is there; a folder is listed once instead of asking for every file of it."""
    entries: dict[Path, frozenset[str]] = {}
    for file in files:
        folder = file.parent
        if folder not in entries:
            entries[folder] = frozenset(entry.name for entry in folder.iterdir()) if folder.is_dir() else frozenset()
        yield file.name in entries[folder] or file.exists()  # the latter where letter case does not matter


def image_size(file: Path | BytesIO, *, name: str = "") -> tuple[int, int]:
    """Height and width in pixels as the image is seen, orientation applied, read from the file's header.

    Raises:
        DataError: not there, or not an image; `name` is what it is called, by default the path.
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            orientation = _orientation(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{name or file}: the image cannot be read ({error}); replace or remove the file", kind=UNREADABLE
        ) from error
    return (width, height) if orientation in _QUARTER_ROTATIONS else (height, width)


def _orientation(image: Image.Image) -> int:
    # Not image.getexif(): that of PNG decodes the whole image. TIFF's size is rotated already.
    found: int = 1 if image.format == "TIFF" else Image.Image.getexif(image).get(_ORIENTATION, 1)
    return found


def is_rotated(file: Path) -> bool:
    """Whether an image that can be read is rotated or flipped by its EXIF orientation, and not upright as stored."""
    with Image.open(file) as image:
        return _orientation(image) in _ROTATIONS


def image_ids(images: Sequence[Path]) -> tuple[int, ...]:
    """The numbers in the names where all names are numbers and no two are equal (COCO's are), else 1, 2, 3 ..."""
    stems = [image.stem for image in images]
    if all(stem.isdecimal() for stem in stems):
        ids = [int(stem) for stem in stems]
        if len(set(ids)) == len(ids) and max(ids) < MOST_EXACT_INTEGER:
            return tuple(ids)
    return tuple(range(1, len(images) + 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadSource(SourceMixin):
    """A source that reads images and labels apart; its labels depend on the image's size only if they must."""

    names: tuple[str, ...]
    image_ids: tuple[int, ...] = field()
    per_image: ClassVar[tuple[str, ...]] = ("image_ids",)  # names of fields

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """The decoded image and its objects, without those ignored, repeated, or without area."""
        image = self.read(index)
        height, width = image.shape[:2]
        labels = self.labels(index, (height, width))
        boxes_xyxy_px = labels.boxes_xyxy_px.astype(np.float32)
        return Sample(image, boxes_xyxy_px, labels.class_ids.copy(), self.image_ids[index], deepcopy(labels.polygons))

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""

    @abstractmethod
    def labels(self, index: int, size: tuple[int, int] | None = None) -> Labels:
        """The objects of the image, whose height and width are `size` if they are known."""

    def labels_for(self, index: int, size: tuple[int, int]) -> Labels:
        """The labels of an image whose height and width are known already."""
        return self.labels(index, size)

    def subset(self, indices: Sequence[int]) -> Self:
        """The same data with these images alone, in this order."""
        of_images = {name: getattr(self, name) for name in self.per_image}
        return replace(self, **{name: tuple(all_[at] for at in indices) for name, all_ in of_images.items()})


@dataclass(frozen=True, eq=False, kw_only=True)
class FileSource(ReadSource):
    """A source whose images are files."""

    images: tuple[Path, ...]
    per_image: ClassVar[tuple[str, ...]] = ("image_ids", "images")

    def path(self, index: int) -> Path:
        """The image's file."""
        return self.images[index]

    def read(self, index: int) -> NDArray[np.uint8]:
        """The decoded image."""
        return read_image(self.images[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the image in pixels, read from its header."""
        return image_size(self.images[index])

    def check_image(self, index: int) -> tuple[int, int]:
        """The image's size; raises DataError where it cannot be used, as far as its header and end tell."""
        check_image(self.images[index])
        return image_size(self.images[index])

"""What writers of data sets are given and share: images, objects, new folders."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES, image_ids
from yolov7_jax.errors import DataError
from yolov7_jax.image import read_image, write_image
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.ops.polygons import of_object
from yolov7_jax.types import Labels

Entry = TypeVar("Entry", bound=Hashable)

Losses = Counter[str]
"""What is not as it was, in words such as `CLIPPED`, and how often."""

CLIPPED = "boxes clipped to their image"
OUTSIDE = "objects left out, as nothing of them is in their image"
EQUAL = "objects left out, as without what the format cannot hold they equal another of their image"
IDS = "image ids counted anew, as the format has none"
REPEATED = "objects left out, as they repeat another of their image"
EMPTY = "objects left out, as their box has no area"
WRONG = "objects left out, as something is wrong with them"

_LEAST_CLIPPED = 1e-6  # of the image's longer side: less is the rounding of numbers in fractions of the image


class Item(NamedTuple):
    """A labeled image to write. read: gives its image, upright, if its file is not to be used as it is."""

    path: Path
    image_id: int
    labels: Labels
    read: Callable[[], NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class Content:
    """A data set to write: the images of each split, the names of classes and the COCO category of each.

    has_ids: the ids of images are in its files, and do not follow from the order or the names of images.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    splits: Mapping[str, Iterable[Item]]
    has_ids: bool = True


class Object(NamedTuple):
    """An object of an image: its class, its box [4], whether it is ignored, and its polygons, each [corners, 2]."""

    class_id: int
    box_xyxy_px: NDArray[np.float64]
    is_ignored: bool
    polygons: Sequence[NDArray[np.float32]] = ()


def objects(labels: Labels, losses: Losses) -> list[Object]:
    """All objects of an image, ignored ones last; those that its reader left out are counted."""
    losses[REPEATED] += labels.duplicates
    losses[EMPTY] += labels.empty
    losses[WRONG] += len(labels.issues)
    has_polygons = len(labels.polygons.owner) > 0
    wanted = [
        Object(class_id, box, False, of_object(labels.polygons, number) if has_polygons else ())
        for number, (class_id, box) in enumerate(zip(labels.class_ids.tolist(), labels.boxes_xyxy_px, strict=True))
    ]
    ignored = zip(labels.ignored_class_ids.tolist(), labels.ignored_boxes_xyxy_px, strict=True)
    return wanted + [Object(class_id, box, True) for class_id, box in ignored]


def clipped(found: Iterable[Object], size: tuple[int, int], losses: Losses) -> list[Object]:
    """The objects with their boxes clipped to an image of size (h, w); those of which nothing is left are left out."""
    kept = []
    for one in found:
        box = clip_boxes(one.box_xyxy_px, size)
        if (box[2:] <= box[:2]).any():
            losses[OUTSIDE] += 1
            continue
        losses[CLIPPED] += int(np.abs(box - one.box_xyxy_px).max() > tolerance(size))
        kept.append(one._replace(box_xyxy_px=box))
    return kept


def distinct(entries: Sequence[Entry], losses: Losses) -> list[Entry]:
    """The entries of an image that differ: readers would leave out the others."""
    different = list(dict.fromkeys(entries))
    losses[EQUAL] += len(entries) - len(different)
    return different


def tolerance(size: tuple[int, int]) -> float:
    """How far coordinates of an image may be from each other in pixels and still be called the same."""
    return _LEAST_CLIPPED * max(size)


def count_new_ids(files: Sequence[Path], given: Sequence[int], losses: Losses) -> None:
    """Counts the images of a split, in the order in which they will be read, whose id will be another."""
    losses[IDS] += sum(old != new for old, new in zip(given, image_ids(files), strict=True)) if files else 0


RENAMED = "images renamed, as another has their name or readers would not find it"
_CONVERTED = "images saved anew as PNG, as their names have no ending that readers know"


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its name at the end of the block; after an error nothing is left of it.

    Raises:
        DataError: the target is there and not empty, or something cannot be written, as when the disk is full.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"{target}: is there already; name a new folder, or remove this one")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); make room or choose another place: "
            "nothing of it was kept"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class ImageFiles:
    """Puts image files into folders: as hard links where that can be, else as copies; no two of a stem."""

    def __init__(self, *, link: bool, losses: Losses) -> None:
        self._link, self._losses = link, losses
        self._taken: dict[Path, set[str]] = defaultdict(set)

    def put(self, item: Item, folder: Path) -> Path:
        """Puts the image of an item into a folder; returns its file there, whose stem no other file there has.

        Raises:
            DataError: the image cannot be read.
        """
        known = item.path.suffix.lower() in IMAGE_SUFFIXES
        file = folder / f"{self._new_stem(item.path.stem, folder)}{item.path.suffix if known else '.png'}"
        self._losses[_CONVERTED] += not known
        folder.mkdir(parents=True, exist_ok=True)
        if item.read is not None or not known:
            write_image(file, item.read() if item.read is not None else read_image(item.path))
        else:
            self._copy(item.path, file)
        return file

    def _new_stem(self, stem: str, folder: Path) -> str:
        plain, taken = _plain(stem), self._taken[folder]
        new, number = plain, 1
        while new.casefold() in taken:  # some disks make no difference between a and A
            number += 1
            new = f"{plain}_{number}"
        taken.add(new.casefold())
        self._losses[RENAMED] += new != stem
        return new

    def _copy(self, path: Path, file: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: the image is not there; data check --fix leaves such images out")
        if self._link:
            with suppress(OSError):  # another disk, or one without links
                os.link(path.resolve(), file)
                return
        shutil.copyfile(path, file)


def _plain(stem: str) -> str:
    """A stem that lists of images and listings of folders give back as it is."""
    plain = "".join(letter if letter.isprintable() else "_" for letter in stem.strip().lstrip("."))
    if Path(plain).suffix.lower() in IMAGE_SUFFIXES:
        plain = plain.replace(".", "_")
    return plain or "image"

"""What writers of data sets are given, and the little they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.image_files import image_ids
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

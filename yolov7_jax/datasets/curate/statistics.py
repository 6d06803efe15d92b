"""Numbers of a labeled data set: sizes, shapes, places and classes of its objects, counted at the training size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.audit import by_frequency, listed
from yolov7_jax.datasets.curate.anchors import TINY, AnchorFit, fit, ratios
from yolov7_jax.graph.spec import Anchors
from yolov7_jax.types import Labels

SMALL, MEDIUM = 32, 96
"""Sides in pixels of the squares up to whose area COCO calls an object small and medium."""
PLACES = 32
"""Rows and columns that the heat map of centers has."""
_STEPS_AN_OCTAVE = 4
_ASPECT_EDGES = np.linspace(-4, 4, 33)  # log2 of width / height
_RATIOS = np.linspace(1, 8, 57)


class Objects(NamedTuple):
    """The objects of many images in a row, their boxes clipped to the image.

    image: int64 [n], which image of the list. class_ids: int32 [n]. boxes_xyxy_px: float64 [n, 4].
    image_sizes: int64 [images, 2], (h, w).
    """

    image: NDArray[np.int64]
    class_ids: NDArray[np.int32]
    boxes_xyxy_px: NDArray[np.float64]
    image_sizes: NDArray[np.int64]


class Histogram(NamedTuple):
    """counts: of each bin. edges: one more than bins; what lies beyond counts for the first or the last bin."""

    counts: tuple[int, ...]
    edges: tuple[float, ...]


class SizeMap(NamedTuple):
    """How many boxes have which width and height. counts: [height][width]. edges: of both axes, in pixels."""

    counts: tuple[tuple[int, ...], ...]
    edges: tuple[float, ...]


class Coverage(NamedTuple):
    """What fraction of boxes has an anchor within which ratio.

    ratios: from 1 up. all: for all anchors. levels: for those of each level alone.
    """

    ratios: tuple[float, ...]
    all: tuple[float, ...]
    levels: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts of a data set, of plain Python values.

    size: the longer side of images that sizes in pixels are measured at. images, objects: how many. names: of the
    classes. class_objects, class_images: objects of each class, and images that have any of them. objects_of_images:
    how many images have 0, 1, 2 … objects. small, medium, large: objects by area, as COCO divides them. tiny: objects
    with a side under 3 pixels. sizes: of boxes. aspects: log2 of width / height. places: [row][column], where centers
    lie as fractions of the image. anchors, anchor_t, anchor_fit, coverage: of a network's anchors.
    """

    size: int
    images: int
    objects: int
    names: tuple[str, ...]
    class_objects: tuple[int, ...]
    class_images: tuple[int, ...]
    objects_of_images: tuple[int, ...]
    small: int
    medium: int
    large: int
    tiny: int
    sizes: SizeMap
    aspects: Histogram
    places: tuple[tuple[int, ...], ...]
    anchors: Anchors
    anchor_t: float
    anchor_fit: AnchorFit
    coverage: Coverage

    def as_json(self) -> dict[str, Any]:
        """The same by name, for a file."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in values.items()}

    def lines(self) -> list[str]:
        """A summary for people."""
        common, classes = by_frequency(self.class_objects, self.names), len(self.names)
        absent = f"; {classes - len(common)} have none" if len(common) < classes else ""
        fitted = self.anchor_fit
        levels = " ".join(f"{100 * share:.1f} %" for share in fitted.level_recall)
        return [
            f"{self.objects} objects in {self.images} images: {self.objects / self.images:.1f} an image, "
            f"{len(self.objects_of_images) - 1} at most, {self.objects_of_images[0]} images have none",
            f"{classes} classes{absent}: {listed(common)}",
            f"at {self.size} pixels {self.small} are small (under {SMALL} × {SMALL}), {self.medium} medium (under "
            f"{MEDIUM} × {MEDIUM}), {self.large} large; {self.tiny} have a side under {TINY:g} pixels",
            f"anchors fit {100 * fitted.recall:.2f} % of the boxes (by level {levels}), {fitted.fitting:.1f} a box",
        ]


def objects_of(labels: Iterable[Labels]) -> Objects:
    """The objects of images in a row, without those that lie wholly outside of their image."""
    given = list(labels)
    sizes = np.array([one.size for one in given], np.int64).reshape(-1, 2)  # [images, 2]
    image = np.repeat(np.arange(len(given)), [len(one.class_ids) for one in given])  # [n]
    boxes = np.concatenate([np.zeros((0, 4)), *(one.boxes_xyxy_px for one in given)])
    boxes = boxes.clip(0, np.tile(sizes[:, ::-1], 2)[image])
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    class_ids = np.concatenate([np.zeros(0, np.int32), *(one.class_ids for one in given)])
    return Objects(image[inside], class_ids[inside], boxes[inside], sizes)


def sizes_at(objects: Objects, size: int) -> NDArray[np.float64]:
    """Width and height [n, 2] of each box in pixels once its image is resized so that its longer side is `size`."""
    scale = size / objects.image_sizes.max(axis=1, initial=1)
    boxes = objects.boxes_xyxy_px
    return (boxes[:, 2:] - boxes[:, :2]) * scale[objects.image, None]


def statistics(
    objects: Objects, names: Sequence[str], *, size: int, anchors: Anchors, anchor_t: float = 4.0
) -> Statistics:
    """Counts the objects of a data set.

    Args:
        objects: of all its images.
        names: of the classes.
        size: the longer side of images in training, in pixels.
        anchors: of a network, [L][A](width, height) in pixels.
        anchor_t: an anchor fits where no side of the box is so many times larger or smaller.

    Raises:
        DataError: there are no objects.
    """
    sizes_px = sizes_at(objects, size)  # [n, 2]
    area = sizes_px.prod(axis=1)  # [n]
    small, medium = int((area < SMALL**2).sum()), int((area < MEDIUM**2).sum())
    images, classes = len(objects.image_sizes), len(names)
    pairs = np.unique(objects.image * classes + objects.class_ids)  # an image and a class that it has
    return Statistics(
        size=size,
        images=images,
        objects=len(sizes_px),
        names=tuple(names),
        class_objects=_counts(objects.class_ids, classes),
        class_images=_counts(pairs % classes, classes),
        objects_of_images=_counts(np.bincount(objects.image, minlength=images), 1),
        small=small,
        medium=medium - small,
        large=len(area) - medium,
        tiny=int((sizes_px < TINY).any(axis=1).sum()),
        anchor_fit=fit(sizes_px, anchors, anchor_t),
        sizes=_size_map(sizes_px, size),
        aspects=_histogram(np.log2(sizes_px[:, 0] / sizes_px[:, 1]), _ASPECT_EDGES),
        places=_places(objects),
        anchors=anchors,
        anchor_t=anchor_t,
        coverage=_coverage(sizes_px, anchors),
    )


def _counts(values: NDArray[np.integer[Any]], least: int) -> tuple[int, ...]:
    """How often each number from 0 occurs, up to the largest, or to `least` numbers."""
    return tuple(np.bincount(values, minlength=least).tolist())


def _histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> Histogram:
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return Histogram(tuple(counts.tolist()), tuple(edges.tolist()))


def _size_map(sizes_px: NDArray[np.float64], size: int) -> SizeMap:
    """From 1 pixel, in equal steps of the logarithm, to the side of the image."""
    edges = np.geomspace(1, size, round(np.log2(size) * _STEPS_AN_OCTAVE) + 1)
    edges[-1] = size
    width, height = sizes_px.T.clip(1, size)
    counts, *_ = np.histogram2d(height, width, [edges, edges])
    return SizeMap(_rows(counts), tuple(edges.tolist()))


def _places(objects: Objects) -> tuple[tuple[int, ...], ...]:
    boxes = objects.boxes_xyxy_px
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2 / objects.image_sizes[objects.image, ::-1]
    counts, *_ = np.histogram2d(centers[:, 1], centers[:, 0], PLACES, [[0, 1], [0, 1]])
    return _rows(counts)


def _rows(counts: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in counts.astype(int).tolist())


def _coverage(sizes_px: NDArray[np.float64], anchors: Anchors) -> Coverage:
    nearest = np.stack([ratios(sizes_px, level).min(axis=1) for level in anchors])  # [L, n]
    levels, every = (_fractions_under(part) for part in (nearest, nearest.min(axis=0)[None]))
    return Coverage(tuple(_RATIOS.tolist()), every[0], levels)


def _fractions_under(values: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    """Of each row the fraction that is under each of `_RATIOS`."""
    return tuple(tuple((np.searchsorted(np.sort(row), _RATIOS) / len(row)).tolist()) for row in values)

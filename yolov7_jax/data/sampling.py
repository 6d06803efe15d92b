"""Which images an epoch has, in which order, and the shapes of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.config import DataConfig
from yolov7_jax.data.letterbox import fit
from yolov7_jax.errors import InputError

ClassIds = Sequence[NDArray[np.integer]]
"""Of each image those of its objects."""

_ROUNDING = 1e-6
"""What a sum of many numbers may be below the whole number that it is meant to be."""


def image_repeats(
    settings: DataConfig, class_ids: ClassIds, num_classes: int, aps: Sequence[float | None] = ()
) -> NDArray[np.float64]:
    """How often each image occurs in an epoch on average, float64 [images], as data.sampling says.

    aps: AP of each class in the last evaluation, for by_ap; None where it has no boxes to find; none before the first.

    Raises:
        InputError: data.class_weights are not one a class, or give no image a weight.
    """
    if settings.sampling == "repeat_factor":
        return repeat_factors(class_ids, num_classes, threshold=settings.repeat_threshold)
    if settings.sampling == "balanced" or (settings.sampling == "by_ap" and not aps):
        return balanced_repeats(class_ids, num_classes, class_weights=settings.class_weights)
    if settings.sampling == "by_ap":
        lacking = [(1 - (ap or 0.0)) ** 2 for ap in aps]  # as YOLOv5 weights them
        return balanced_repeats(class_ids, num_classes, class_weights=settings.class_weights, factors=lacking)
    return np.ones(len(class_ids))


def balanced_repeats(
    class_ids: ClassIds, num_classes: int, *, class_weights: Sequence[float] = (), factors: Sequence[float] = ()
) -> NDArray[np.float64]:
    """As many occurrences as images, shared out by the weights of images: each the sum of those of its objects.

    A class's weight is by default one over the number of its objects, so that classes have equal shares; times its
    factor, where there are some, or a hundredth of the largest one, so that no class goes away. Images
    without objects have the least weight over 0 of those with objects.

    Raises:
        InputError: there are weights, but not one a class; or no image has a weight over 0.
    """
    image, objects = _flat(class_ids)
    if class_weights and len(class_weights) != num_classes:
        raise InputError(
            f"data.class_weights has {len(class_weights)} numbers; expected one for each of the {num_classes} classes"
        )
    counts = np.bincount(objects, minlength=num_classes)  # [C]
    weights = np.array(class_weights, np.float64) if class_weights else 1 / np.maximum(counts, 1)
    if len(factors):
        weights = weights * np.maximum(factors, max(*factors, 1e-9) / 100)
    of_images = np.bincount(image, weights=weights[objects], minlength=len(class_ids))  # [images]
    if not of_images.any():
        raise InputError(
            "data.sampling=balanced: no training image has an object of a class with a weight over 0; "
            "change data.class_weights, or use data.sampling=uniform"
        )
    of_images[np.bincount(image, minlength=len(class_ids)) == 0] = of_images[of_images > 0].min()
    repeats: NDArray[np.float64] = of_images * (len(class_ids) / of_images.sum())  # [images]
    return repeats


def repeat_factors(class_ids: ClassIds, num_classes: int, *, threshold: float) -> NDArray[np.float64]:
    """The repeat factors of images (LVIS, arXiv:1908.03195, section "Repeat factor sampling"): 1 or more.

    With f(c) the fraction of images that have class c, r(c) = max(1, sqrt(threshold / f(c))); an image's factor is the
    largest of its classes, and 1 without objects.
    """
    image, objects = _flat(class_ids)
    present = np.unique(image * num_classes + objects) % num_classes
    fraction = np.bincount(present, minlength=num_classes) / max(len(class_ids), 1)
    repeats = np.ones(len(class_ids))
    np.maximum.at(repeats, image, np.sqrt(threshold / fraction[objects]))
    return repeats


def _flat(class_ids: ClassIds) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every object of all images: its image and its class."""
    counts = [len(of_image) for of_image in class_ids]
    return np.repeat(np.arange(len(class_ids)), counts), np.concatenate([np.zeros(0, np.int64), *class_ids])


class EpochPlan(NamedTuple):
    """An epoch. order: int64 [steps · batch_size], the image at each position. shapes: int64 [steps, 2], (h, w)."""

    order: NDArray[np.int64]
    shapes: NDArray[np.int64]


def epoch_length(repeats: NDArray[np.float64]) -> int:
    """Images of an epoch: the sum of the repeats, rounded down."""
    whole = np.floor(repeats)
    return int(whole.sum()) + int((repeats - whole).sum() + _ROUNDING)


def plan_epoch(
    epoch: int,
    *,
    seed: int,
    repeats: NDArray[np.float64],
    batch_size: int,
    shapes: Sequence[tuple[int, int]],
    buckets: NDArray[np.int64] | None = None,
) -> EpochPlan:
    """The images of an epoch in a random order, the last batch completed with the beginning, and the batches' shapes.

    Args:
        epoch: with `seed` all that chance depends on.
        seed: not negative.
        repeats: [images] how often each occurs on average; it does so rounded down or up.
        batch_size: images of a batch.
        shapes: (h, w) in pixels, of which each batch has one by chance.
        buckets: [images] the place in `shapes` of the one that each image wants. Then batches are of images that want
            the same, in random order; the few batches between two shapes have the largest sides of both.
    """
    rng = np.random.default_rng([seed, epoch])
    steps = -(-epoch_length(repeats) // batch_size)
    order = np.resize(_occurrences(rng, repeats), steps * batch_size)  # [steps · batch_size]
    sides = np.array(shapes, np.int64)
    if buckets is None:
        return EpochPlan(order, sides[rng.integers(len(shapes), size=steps)])
    batches = order[np.argsort(buckets[order], kind="stable")].reshape(steps, batch_size)  # [steps, batch_size]
    batches = rng.permutation(batches)
    return EpochPlan(batches.ravel(), sides[buckets[batches]].max(axis=1))


def _occurrences(rng: np.random.Generator, repeats: NDArray[np.float64]) -> NDArray[np.int64]:
    """Every image its number of repeats rounded down or up, `epoch_length` in all, in random order.

    Which are rounded up is chosen by systematic sampling: the fractions, laid end to end in random order, are
    cut at equal distances from one random offset on.
    """
    order = rng.permutation(epoch_length(repeats))
    mixed = rng.permutation(len(repeats))
    times = np.floor(repeats).astype(np.int64)
    extra = len(order) - int(times.sum())
    if extra:
        ends = np.cumsum((repeats - times)[mixed])
        cuts = np.minimum((np.arange(extra) + rng.random()) * (ends[-1] / extra), np.nextafter(ends[-1], 0))
        np.add.at(times, mixed[np.searchsorted(ends, cuts, side="right")], 1)
    chosen: NDArray[np.int64] = np.repeat(np.arange(len(repeats)), times)[order]
    return chosen


Shape = tuple[int, int]
"""(h, w) in pixels."""

MOST_RECTANGLES = 5
"""Each is compiled for."""


def squares(size: int, multiples: Sequence[float], *, stride: int) -> tuple[Shape, ...]:
    """A square for each multiple of a size, rounded to a multiple of the stride; without multiples one of the size."""
    sides = [max(round(size * multiple / stride), 1) * stride for multiple in multiples] or [size]
    return tuple((side, side) for side in sides)


def rectangles(
    sizes: Sequence[Shape], size: int, *, stride: int, most: int = MOST_RECTANGLES
) -> tuple[tuple[Shape, ...], NDArray[np.int64]]:
    """At most `most` shapes for images of these sizes, and of each image the place of its own: the smallest it fits.

    The shapes have `size` as long side and multiples of the stride as short side. The square is always among them;
    the others are taken one after another, always the one that saves most padding. They are ordered from
    wide to high, so that images of neighboring places fit the larger of both.
    """
    wanted = np.array([fit(shape, size, stride=stride, auto=True).shape for shape in sizes]).reshape(-1, 2)
    offered, place, counts = np.unique(wanted, axis=0, return_inverse=True, return_counts=True)
    chosen = {(size, size)}
    rest = {(int(height), int(width)) for height, width in offered} - chosen
    while rest and len(chosen) < most:
        best = min(sorted(rest), key=lambda shape: float(_areas(offered, [*chosen, shape]).min(axis=1) @ counts))
        chosen.add(best)
        rest.remove(best)
    ordered = sorted(chosen, key=lambda shape: shape[0] / shape[1])
    return tuple(ordered), _areas(offered, ordered).argmin(axis=1)[place]


def _areas(wanted: NDArray[np.int64], shapes: Sequence[Shape]) -> NDArray[np.float64]:
    """[wanted, shapes] the area of each shape; infinite where what is wanted does not fit."""
    listed = np.array(shapes)
    fits = (wanted[:, None] <= listed).all(axis=-1)
    return np.where(fits, listed.prod(axis=-1), np.inf)

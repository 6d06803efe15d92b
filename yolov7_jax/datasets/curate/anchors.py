"""Anchors: how well they fit the boxes of a data set, and a search for better ones (the door to scipy)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import vq

from yolov7_jax.errors import DataError, InputError
from yolov7_jax.graph.spec import Anchors

Sizes = NDArray[np.float64]
"""[n, 2], width and height in pixels."""

TINY = 3.0
"""Pixels; boxes with a shorter side tell nothing of shapes, and training drops those that shrink to under 2."""
ENOUGH = 0.98
"""Best possible recall from which on anchors need no replacing (YOLOv5)."""
_SAMPLE = 10_000  # boxes that the search uses; the mean of a fraction over so many is known to half a percent
_STARTS = 10  # of k-means, which ends in the nearest of many solutions
_CHANCE = 0.3  # of a number to be changed by a mutation
_STEPS = (-2.5, -0.5)  # decimal logarithm of the smallest and the largest mean change of a mutation
_DECIMALS = 1  # of pixels


class AnchorFit(NamedTuple):
    """How well anchors fit boxes.

    boxes: how many. recall: the best possible, the fraction of boxes that an anchor fits. fitting: the mean number of
    anchors that fit a box. fitness: the mean of 1 / (ratio of box and nearest anchor), 0 for boxes that none fits.
    level_recall, level_fitting: recall and fitting of the anchors of each level alone.
    """

    boxes: int
    recall: float
    fitting: float
    fitness: float
    level_recall: tuple[float, ...]
    level_fitting: tuple[float, ...]


class AnchorSearch(NamedTuple):
    """What was found.

    anchors: the fittest: found, or those that the search was given. fit: of them. given: of those that it was given.
    tiny: boxes that it leaves aside, because a side is under `TINY` pixels.
    """

    anchors: Anchors
    fit: AnchorFit
    given: AnchorFit
    tiny: int

    @property
    def improved(self) -> bool:
        """Whether the anchors are better than those given."""
        return self.fit.fitness > self.given.fitness


def ratios(sizes_px: Sizes, anchors_px: Sequence[tuple[float, float]] | Sizes) -> NDArray[np.float64]:
    """How many times larger or smaller each box is than each anchor, by the side that differs more: [n, A], from 1."""
    width, height = (
        side[:, None] / anchor for side, anchor in zip(sizes_px.T, np.array(anchors_px, np.float64).T, strict=True)
    )
    return np.maximum(np.maximum(width, 1 / width), np.maximum(height, 1 / height))


def fit(sizes_px: Sizes, anchors: Anchors, anchor_t: float) -> AnchorFit:
    """How well anchors fit boxes.

    Args:
        sizes_px: [n, 2], width and height at the size that the network sees.
        anchors: [L][A](width, height) in pixels.
        anchor_t: an anchor fits where no side of the box is so many times larger or smaller.

    Raises:
        DataError: there are no boxes.
    """
    if not len(sizes_px):
        raise DataError("there are no boxes that anchors could fit; name data with labeled objects")
    levels = [ratios(sizes_px, level) for level in anchors]  # [L] of [n, A]
    nearest = np.min([level.min(axis=1) for level in levels], axis=0)  # [n]
    level_fitting = tuple(float((level < anchor_t).sum(axis=1).mean()) for level in levels)
    return AnchorFit(
        boxes=len(sizes_px),
        recall=float((nearest < anchor_t).mean()),
        fitting=sum(level_fitting),
        fitness=_fitness(nearest, anchor_t),
        level_recall=tuple(float((level.min(axis=1) < anchor_t).mean()) for level in levels),
        level_fitting=level_fitting,
    )


def search(
    sizes_px: Sizes,
    given: Anchors,
    *,
    anchor_t: float = 4.0,
    generations: int = 1000,
    population: int = 4,
    seed: int = 0,
) -> AnchorSearch:
    """Anchors that fit boxes better than the given ones, as many a level, or the given ones if none are found.

    k-means of widths and heights (in units of their spread), then a genetic search from those or from the given
    anchors, whichever fit better (as YOLOv5 does it). Sorted by area, the smallest go to the level whose given anchors
    are the smallest.

    Args:
        sizes_px: [n, 2], width and height at the size that the network sees.
        given: [L][A](width, height) in pixels.
        anchor_t: an anchor fits where no side of the box is so many times larger or smaller.
        generations: rounds of the genetic search; 0: k-means alone.
        population: mutations tried in a round.
        seed: of chance.

    Raises:
        DataError: there are fewer boxes than anchors. InputError: a number is out of its range.
    """
    _check(anchor_t, generations, population)
    flat = np.array([pair for level in given for pair in level], np.float64)  # [J, 2]
    large = _large_enough(sizes_px, len(flat))
    rng = np.random.default_rng(seed)
    sample = rng.choice(large, _SAMPLE, replace=False) if len(large) > _SAMPLE else large
    clusters = cluster(rng, sample, len(flat))
    start = max(clusters, flat, key=lambda anchors_px: _fitness(ratios(sample, anchors_px).min(axis=1), anchor_t))
    evolved = evolve(rng, sample, start, anchor_t=anchor_t, generations=generations, population=population)
    found = [given, _by_level(clusters, given), _by_level(evolved, given)]
    fits = [fit(sizes_px, anchors, anchor_t) for anchors in found]
    best = max(range(len(fits)), key=lambda place: fits[place].fitness)
    return AnchorSearch(found[best], fits[best], fits[0], len(sizes_px) - len(large))


def _large_enough(sizes_px: Sizes, count: int) -> Sizes:
    """The boxes that are not tiny.

    Raises:
        DataError: there are fewer than `count`.
    """
    large = sizes_px[(sizes_px >= TINY).all(axis=1)]
    if len(large) < count:
        raise DataError(
            f"{len(large)} boxes of {TINY:g} pixels or more are too few for {count} anchors; "
            "label more objects, or keep the network's own anchors"
        )
    return large


def cluster(rng: np.random.Generator, sizes_px: Sizes, count: int) -> Sizes:
    """The centers [count, 2] of the best of some k-means of box sizes; where clusters run empty, others come twice."""
    spread = sizes_px.std(axis=0)
    spread[spread == 0] = 1
    scaled = sizes_px / spread
    runs = [vq.kmeans(scaled, rng.choice(scaled, count, replace=False)) for _ in range(_STARTS)]
    centers, _ = min(runs, key=lambda run: float(run[1]))
    return np.resize(centers, (count, 2)) * spread


def evolve(
    rng: np.random.Generator,
    sizes_px: Sizes,
    anchors_px: Sizes,
    *,
    anchor_t: float,
    generations: int,
    population: int,
) -> Sizes:
    """Anchors [J, 2] that are no less fit than the given ones, by small changes of which the best is kept each time."""

    def fitness(anchors: Sizes) -> float:
        return _fitness(ratios(sizes_px, anchors).min(axis=1), anchor_t)

    best, reached = anchors_px, fitness(anchors_px)
    for _ in range(generations):
        steps = 10 ** rng.uniform(*_STEPS, (population, 1, 1))
        changes = steps * rng.normal(size=(population, *best.shape)) * (rng.random((population, *best.shape)) < _CHANCE)
        children = np.maximum(best * np.exp(changes), 1)
        marks = [fitness(child) for child in children]
        if max(marks) > reached:
            best, reached = children[int(np.argmax(marks))], max(marks)
    return best


def _fitness(nearest: NDArray[np.float64], anchor_t: float) -> float:
    """From the ratio [n] of each box and its nearest anchor."""
    return float(np.where(nearest < anchor_t, 1 / nearest, 0).mean())


def _by_level(anchors_px: Sizes, like: Anchors) -> Anchors:
    """Anchors assigned to levels in the order of those levels' own."""
    rounded = np.round(anchors_px, _DECIMALS).tolist()
    pairs = sorted(((width, height) for width, height in rounded), key=lambda pair: pair[0] * pair[1])
    by_area = sorted(range(len(like)), key=lambda level: float(np.prod(like[level], axis=1).mean()))
    rest = iter(pairs)
    assigned = {level: tuple(islice(rest, len(like[level]))) for level in by_area}
    return tuple(assigned[level] for level in range(len(like)))


def _check(anchor_t: float, generations: int, population: int) -> None:
    if not anchor_t > 1:
        raise InputError(f"anchor_t is {anchor_t}; expected a number over 1")
    if generations < 0 or population < 1:
        raise InputError(
            f"generations is {generations} and population {population}; expected at least 0 and at least 1"
        )

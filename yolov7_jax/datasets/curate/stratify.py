"""Images dealt out to splits so that each has its share of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import InputError


def stratified_split(
    counts: NDArray[np.integer], sizes: NDArray[np.integer], fractions: Sequence[float], *, seed: int
) -> NDArray[np.int64]:
    """Which split each group of images goes to; no split is further from its share than the largest group.

    By iterative stratification (Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, 2011): the
    class that fewest groups have left is dealt out first, each group to the split that wants most of that class, of
    equal ones to that which wants most images. Here a group weighs by its objects and images, those with most objects
    of the class come first, splits that have their share take no more, and at the end groups are moved until all splits
    are within one group of their share.

    Args:
        counts: int [groups, classes], objects of each class.
        sizes: int [groups], images of each group.
        fractions: of the images, for each split; positive, with sum 1.
        seed: of the order of groups that are alike.

    Returns:
        int64 [groups], from 0.

    Raises:
        InputError: the fractions are not positive with sum 1.
    """
    share = np.array(fractions, np.float64)
    if len(share) == 0 or not (share > 0).all() or abs(share.sum() - 1) > _SUM:
        raise InputError(f"fractions must be positive with sum 1, got {', '.join(map(str, fractions))}")
    wanted_images = share * sizes.sum()
    wanted = share[:, None] * counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(sizes))
    split = np.full(len(sizes), _NONE)
    while (left := order[split[order] == _NONE]).size:
        groups_with = (counts[left] > 0).sum(axis=0)
        if groups_with.any():
            rarest = np.where(groups_with > 0, groups_with, len(sizes) + 1).argmin()
            amount, demand = counts[:, rarest], wanted[:, rarest]
            mine = left[amount[left] > 0]
        else:
            amount, demand, mine = sizes, wanted_images, left
        for group in mine[np.argsort(-amount[mine], kind="stable")]:
            to = max(range(len(share)), key=lambda at: (wanted_images[at] > _SUM, demand[at], wanted_images[at]))
            split[group] = to
            wanted_images[to] -= sizes[group]
            wanted[to] -= counts[group]
    _even_out(split, counts, sizes, wanted, wanted_images)
    return split


_NONE = -1
_SUM = 1e-6  # rounding of fractions such as 0.1


def _even_out(
    split: NDArray[np.int64],
    counts: NDArray[np.integer],
    sizes: NDArray[np.integer],
    wanted: NDArray[np.float64],
    wanted_images: NDArray[np.float64],
) -> None:
    """Moves groups from the split with most images too many to that with most too few, while more than one group."""
    largest = sizes.max(initial=0)
    while len(sizes) and wanted_images.max() > largest:
        low, high = wanted_images.argmax(), wanted_images.argmin()
        candidates = np.flatnonzero((split == high) & (sizes > 0))
        after = np.abs(wanted[low] - counts[candidates]) + np.abs(wanted[high] + counts[candidates])
        moved = candidates[after.sum(axis=1).argmin()]
        split[moved] = low
        for at, sign in ((low, -1), (high, 1)):
            wanted_images[at] += sign * sizes[moved]
            wanted[at] += sign * counts[moved]

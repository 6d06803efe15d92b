"""A data set split anew into training, validation and test, each with its share of every class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.datasets.curate.conversion import content_of, format_of, open_splits
from yolov7_jax.datasets.writers import Written, write_data
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.prefetch import ProgressBar, no_progress, of_each
from yolov7_jax.source import SourceMixin

_UNASSIGNED = -1
_SUM = 1e-6  # rounding of fractions such as 0.1


class SplitResult(NamedTuple):
    """The new splits. images: of each split. objects: int [splits, classes], in the order of `names`."""

    written: Written
    images: Mapping[str, int]
    names: tuple[str, ...]
    objects: NDArray[np.int64]


def split_data(
    data: Path | str,
    folder: Path | str,
    *,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    names: Sequence[str] = ("train", "val", "test"),
    seed: int = 0,
    group: str | None = None,
    splits: Sequence[str] | None = None,
    image_folder: Path | None = None,
    link: bool = True,
    progress: ProgressBar = no_progress,
) -> SplitResult:
    """Writes a data set into a new folder, in its format, with its images split anew; see `stratified_split`.

    Images without objects are split as a class of their own. An image that is in several splits is taken once.

    Args:
        data: what `open_source` opens.
        folder: a new one.
        fractions: of the images, for each split.
        names: of the splits.
        seed: another one assigns images that are alike differently.
        group: a regular expression; images for whose file names its first group reads the same stay together.
        splits: which to take images of; by default all that the data set names.
        image_folder: where the images of a COCO annotation file are.
        link: hard links of images where the disk can have them, else copies.
        progress: a display of progress.

    Raises:
        InputError: the data cannot be used or written, a setting is wrong, or a split would be empty.
    """
    if len(fractions) != len(names) or len(set(names)) != len(names):
        raise InputError(f"{len(fractions)} fractions for the splits {', '.join(names)}; name each fraction's split")
    sources = list(open_splits(data, splits, image_folder=image_folder).values())
    places = {source.path(at): (number, at) for number, source in enumerate(sources) for at in range(len(source))}
    counts = _counts(sources, list(places.values()))  # [images, classes + 1]
    group_of = _groups(list(places), group)  # [images]
    by_group = np.zeros((group_of.max() + 1, counts.shape[1]), np.int64)
    np.add.at(by_group, group_of, counts)
    split = stratified_split(by_group, np.bincount(group_of), fractions, seed=seed)[group_of]  # [images]
    images = dict(zip(names, np.bincount(split, minlength=len(names)).tolist(), strict=True))
    if empty := [name for name, count in images.items() if not count]:
        raise DataError(
            f"{data}: {len(by_group)} groups of images leave none for {', '.join(empty)}; give it a larger fraction"
        )
    where = np.array(list(places.values()))
    parts = {name: _subsets(sources, where[split == at]) for at, name in enumerate(names)}
    written = write_data(folder, content_of(parts, progress=progress), to=format_of(data), link=link)
    objects = np.stack([counts[split == at, :-1].sum(axis=0) for at in range(len(names))])  # [splits, classes]
    return SplitResult(written, images, sources[0].names, objects)


def _subsets(sources: Sequence[SourceMixin], places: NDArray[np.int64]) -> list[SourceMixin]:
    """Of each source some images; places: [images, 2], the number of a source and an index there."""
    return [source.subset(places[places[:, 0] == at, 1].tolist()) for at, source in enumerate(sources)]


def _counts(sources: Sequence[SourceMixin], places: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Objects of each class, and 1 where there is none, int64 [images, classes + 1]."""
    classes = len(sources[0].names)

    def count(place: tuple[int, int]) -> NDArray[np.int64]:
        source, index = place
        class_ids = sources[source].labels(index).class_ids
        return np.bincount(class_ids if len(class_ids) else np.array([classes]), minlength=classes + 1)

    return np.stack(list(of_each(count, places)))


def _groups(images: Sequence[Path], pattern: str | None) -> NDArray[np.int64]:
    """The number of the group of each image, from 0."""
    if pattern is None:
        return np.arange(len(images))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"group {pattern!r} is no regular expression ({error})") from error
    if not compiled.groups:
        raise InputError(f"group {pattern!r} has no part in parentheses; put them around what names the group")
    keys: dict[str, int] = {}
    member = []
    for image in images:
        found = compiled.search(image.name)
        if found is None or found.group(1) is None:
            raise DataError(f"{image}: its name does not fit the group {pattern!r}; change it so that all names fit")
        member.append(keys.setdefault(found.group(1), len(keys)))
    return np.array(member)


def stratified_split(
    counts: NDArray[np.integer], sizes: NDArray[np.integer], fractions: Sequence[float], *, seed: int
) -> NDArray[np.int64]:
    """Which split each group of images goes to; no split is further from its share than the largest group.

    By iterative stratification (Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, 2011): the
    class that fewest groups have left is assigned first, each group to the split that wants most of that class, of
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
    share = _shares(fractions)
    wanted_images = share * sizes.sum()  # [splits], those that each still lacks
    wanted = share[:, None] * counts.sum(axis=0)  # [splits, classes]
    order = np.random.default_rng(seed).permutation(len(sizes))
    split = np.full(len(sizes), _UNASSIGNED)
    while (left := order[split[order] == _UNASSIGNED]).size:
        rarest = _rarest(counts[left])
        if rarest is None:
            amount, demand, mine = sizes, wanted_images, left
        else:
            amount, demand = counts[:, rarest], wanted[:, rarest]
            mine = left[amount[left] > 0]
        for group in mine[np.argsort(-amount[mine], kind="stable")]:
            to = max(range(len(share)), key=lambda at: (wanted_images[at] > _SUM, demand[at], wanted_images[at]))
            split[group] = to
            wanted_images[to] -= sizes[group]
            wanted[to] -= counts[group]
    _even_out(split, counts, sizes, wanted, wanted_images)
    return split


def _shares(fractions: Sequence[float]) -> NDArray[np.float64]:
    share = np.array(fractions, np.float64)
    if len(share) == 0 or not (share > 0).all() or abs(share.sum() - 1) > _SUM:
        raise InputError(f"fractions must be positive with sum 1, got {', '.join(map(str, fractions))}")
    return share


def _rarest(counts: NDArray[np.integer]) -> np.intp | None:
    """The class that fewest of some groups have, [groups, classes]; none if they have no objects."""
    groups_with = (counts > 0).sum(axis=0)
    return np.where(groups_with > 0, groups_with, len(counts) + 1).argmin() if groups_with.any() else None


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

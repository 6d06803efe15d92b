from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.datasets.labeled_images import labels_of, write_png, write_text
from yolov7_jax.datasets.content import Content, Item
from yolov7_jax.datasets.curate.conversion import format_of, open_splits
from yolov7_jax.datasets.curate.split import split_data, stratified_split
from yolov7_jax.datasets.writers import Format, write_data
from yolov7_jax.errors import InputError

NAMES = ("cat", "dog", "bird")


@st.composite
def groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[float]]:
    count, classes = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    rows = st.lists(st.integers(0, 5), min_size=classes, max_size=classes)
    counts = draw(st.lists(rows, min_size=count, max_size=count))
    sizes = draw(st.lists(st.integers(1, 7), min_size=count, max_size=count))
    parts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    return np.array(counts), np.array(sizes), [part / sum(parts) for part in parts]


@given(groups(), st.integers(0, 3))
def test_every_split_has_its_share_within_a_group(made: tuple[np.ndarray, np.ndarray, list[float]], seed: int):
    counts, sizes, fractions = made
    split = stratified_split(counts, sizes, fractions, seed=seed)
    assert split.shape == sizes.shape
    assert set(split.tolist()) <= set(range(len(fractions)))
    images = np.bincount(split, weights=sizes, minlength=len(fractions))
    assert np.abs(images - np.array(fractions) * sizes.sum()).max() <= sizes.max() + 1e-6  # rounding of the fractions
    assert split.tolist() == stratified_split(counts, sizes, fractions, seed=seed).tolist()


def imbalance(counts: np.ndarray, split: np.ndarray, fractions: tuple[float, ...]) -> float:
    """How far the shares of the classes are from what they should be, in all."""
    shares = [counts[split == at].sum(axis=0) / np.maximum(counts.sum(axis=0), 1) for at in range(len(fractions))]
    return float(np.abs(np.stack(shares) - np.array(fractions)[:, None]).sum())


def test_classes_are_more_even_than_in_most_of_all_possible_splits():
    better = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counts, fractions = rng.poisson(rng.uniform(0.2, 2, 4), (10, 4)), (0.6, 0.4)
        split = stratified_split(counts, np.ones(10, int), fractions, seed=0)
        ours = imbalance(counts, split, fractions)
        others = [
            imbalance(counts, np.isin(np.arange(10), chosen).astype(int), fractions)
            for chosen in combinations(range(10), 4)
        ]
        better.append(np.mean([other < ours - 1e-12 for other in others]))
    assert np.mean(better) < 0.15  # 0.5 by chance


def test_classes_of_large_data_are_more_even_than_ever_by_chance():
    rng, fractions = np.random.default_rng(0), (0.8, 0.1, 0.1)
    counts = rng.poisson(np.linspace(0.01, 2, 12), (2000, 12))
    split = stratified_split(counts, np.ones(2000, int), fractions, seed=1)
    assert np.bincount(split).tolist() == [1600, 200, 200]
    by_chance = [imbalance(counts, rng.permutation(split), fractions) for _ in range(200)]
    assert imbalance(counts, split, fractions) < min(by_chance)


def test_a_rare_class_is_dealt_out_first():
    counts = np.zeros((10, 2), int)
    counts[:, 0], counts[:2, 1] = 5, 1  # the second class is in the first two images
    for seed in range(5):
        split = stratified_split(counts, np.ones(10, int), (0.5, 0.5), seed=seed)
        assert sorted(split[:2].tolist()) == [0, 1]


def test_images_that_are_alike_are_dealt_out_by_seed():
    counts = np.ones((20, 1), int)
    splits = [tuple(stratified_split(counts, np.ones(20, int), (0.5, 0.5), seed=seed)) for seed in range(4)]
    assert len(set(splits)) == 4


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.2, -0.2), (1.0, 0.0), (80, 20), (float("nan"), 1)])
def test_fractions_that_are_none(fractions: tuple[float, ...]):
    with pytest.raises(InputError, match="fractions must be positive with sum 1, got"):
        stratified_split(np.ones((3, 1), int), np.ones(3, int), fractions, seed=0)


def made(root: Path, to: Format = "yolo") -> Path:
    """Forty images of eight scenes in two splits; every fourth has no objects."""
    items = []
    for number in range(40):
        objects = [(number % 3, (1.0 + number / 4, 2, 30, 15))] * (number % 4 > 0)
        image = write_png(root / "in" / f"scene{number // 5}_{number:02}.png", value=number)
        items.append(Item(image, 100 + number, labels_of(*objects)))
    splits = {"train": items[:30], "val": items[30:]}
    written = write_data(root / "data", Content(NAMES, (1, 2, 3), splits), to=to)
    return written.data


def by_split(data: Path) -> dict[str, set[str]]:
    return {name: {source.path(at).name for at in range(len(source))} for name, source in open_splits(data).items()}


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_data_is_dealt_out_anew_in_its_format(tmp_path: Path, to: Format):
    data = made(tmp_path, to)
    dealt = split_data(data, tmp_path / "out", seed=3)
    assert format_of(dealt.written.data) == to
    assert not dealt.written.losses
    assert dealt.images == {"train": 32, "val": 4, "test": 4}
    images = by_split(dealt.written.data)
    assert {name: len(found) for name, found in images.items()} == dealt.images
    assert set().union(*images.values()) == {path.name for path in (tmp_path / "in").iterdir()}
    before = {
        source.path(at).name: source.labels(at) for source in open_splits(data).values() for at in range(len(source))
    }
    for number, (name, source) in enumerate(open_splits(dealt.written.data).items()):
        objects = np.zeros(3, int)
        without = 0
        for at in range(len(source)):
            labels = source.labels(at)
            assert labels.class_ids.tolist() == before[source.path(at).name].class_ids.tolist()
            np.testing.assert_allclose(labels.boxes_xyxy_px, before[source.path(at).name].boxes_xyxy_px, atol=1e-12)
            objects += np.bincount(labels.class_ids, minlength=3)
            without += not len(labels.class_ids)
        assert objects.tolist() == dealt.objects[number].tolist()
        assert without == {"train": 8, "val": 1, "test": 1}[name]
    assert dealt.names == NAMES
    again = split_data(data, tmp_path / "again", seed=3)
    assert by_split(again.written.data) == images


def test_ids_of_coco_are_kept(tmp_path: Path):
    dealt = split_data(made(tmp_path, "coco"), tmp_path / "out", fractions=(0.5, 0.5), names=("a", "b"))
    ids = [image_id for source in open_splits(dealt.written.data).values() for image_id in source.image_ids]
    assert sorted(ids) == list(range(100, 140))


def test_groups_are_whole(tmp_path: Path):
    dealt = split_data(made(tmp_path), tmp_path / "out", fractions=(0.5, 0.25, 0.25), group=r"^scene(\d+)_")
    assert dealt.images == {"train": 20, "val": 10, "test": 10}
    scenes = [{name[:6] for name in names} for names in by_split(dealt.written.data).values()]
    assert sum(map(len, scenes)) == len(set().union(*scenes)) == 8


def test_an_image_in_two_splits_is_taken_once(tmp_path: Path):
    data = made(tmp_path)
    both = write_text(data.parent / "both.yaml", data.read_text().replace("images/val", "images/train"))
    assert sum(split_data(both, tmp_path / "out").images.values()) == 30


def test_splits_to_take_images_of_can_be_named(tmp_path: Path):
    dealt = split_data(made(tmp_path), tmp_path / "out", splits=["val"], fractions=(0.5, 0.5), names=("train", "val"))
    assert dealt.images == {"train": 5, "val": 5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (0.5, 0.5)}, "2 fractions for the splits train, val, test"),
        ({"names": ("train", "val", "val")}, "3 fractions for the splits train, val, val"),
        ({"fractions": (0.5, 0.5, 0.5)}, "fractions must be positive with sum 1"),
        ({"group": "("}, r"group '\(' is no regular expression"),
        ({"group": "scene"}, "has no part in parentheses"),
        ({"group": "(house)"}, r"scene0_00\.png: its name does not fit the group"),
        ({"group": "(scene)"}, "1 groups of images leave none for val, test"),
        ({"names": ("train", "val", "a/b")}, "a split cannot be named 'a/b'"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        split_data(made(tmp_path), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()

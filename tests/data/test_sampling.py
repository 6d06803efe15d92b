from collections import Counter
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from yolov7_jax.config import DataConfig
from yolov7_jax.data.letterbox import letterbox
from yolov7_jax.data.sampling import (
    balanced_repeats,
    epoch_length,
    image_repeats,
    plan_epoch,
    rectangles,
    repeat_factors,
    squares,
)
from yolov7_jax.errors import InputError

SQUARE = ((64, 64),)
QUARTERS = st.integers(0, 12).map(lambda number: number / 4)  # exact in binary: sums have no rounding


def ids(*images: list[int]) -> list[Any]:
    return [np.array(image, np.int32) for image in images]


def plan(epoch: int = 0, *, repeats: Any, **options: Any) -> Any:
    defaults: dict[str, Any] = {"seed": 0, "batch_size": 1, "shapes": SQUARE}
    return plan_epoch(epoch, repeats=np.array(repeats, np.float64), **defaults | options)


def test_repeat_factors_by_hand() -> None:
    # Of 16 images class 0 is in all but the last, class 1 in four, class 2 in one, class 3 in none.
    # Threshold 1/4: r(0) = 1, r(1) = sqrt(4/4) = 1, r(2) = sqrt(16/4) = 2. Threshold 1: sqrt(16/15), 2, 4.
    images = ids([0, 0, 1, 2, 2], [0, 1], [0, 1, 1], [1, 0], *[[0]] * 11, [])
    assert repeat_factors(images, 4, threshold=0.25).tolist() == [2] + [1] * 15
    # float64: a division and a root
    common = (16 / 15) ** 0.5
    expected = [4, 2, 2, 2, *[common] * 11, 1]
    np.testing.assert_allclose(repeat_factors(images, 4, threshold=1), expected, rtol=1e-15)
    assert repeat_factors(images, 4, threshold=0).tolist() == [1] * 16


def test_balanced_repeats_by_hand() -> None:
    # Four objects of class 0, one of class 1: 1/4 and 1 each. Images weigh 1/2, 1/4 + 1, 1/4; without objects 1/4.
    images = ids([0, 0], [0, 1], [0], [])
    np.testing.assert_allclose(balanced_repeats(images, 2), np.array([2, 5, 1, 1]) * 4 / 9, rtol=1e-15)  # float64
    # weights of classes 3 and 0: 6, 3, 3; without objects the least of them
    given = balanced_repeats(images, 2, class_weights=(3, 0))
    np.testing.assert_allclose(given, np.array([2, 1, 1, 1]) * 4 / 5, rtol=1e-15)
    # class 0 weighs nothing: an image of that class alone is never drawn
    assert balanced_repeats(images, 2, class_weights=(0, 1)).tolist() == [0, 2, 0, 2]


def test_settings_choose() -> None:
    images = ids([0], [0], [0, 1], [0])
    assert image_repeats(DataConfig(), images, 2).tolist() == [1, 1, 1, 1]
    rare = image_repeats(DataConfig(sampling="repeat_factor", repeat_threshold=1), images, 2)
    assert rare.tolist() == [1, 1, 2, 1]
    balanced = image_repeats(DataConfig(sampling="balanced", class_weights=(1, 3)), images, 2)
    np.testing.assert_allclose(balanced, np.array([1, 1, 4, 1]) * 4 / 7, rtol=1e-15)


def test_images_follow_what_is_lacking_in_the_ap_of_their_classes_by_hand() -> None:
    images = ids([0], [1], [0, 1], [0])
    by_ap = partial(image_repeats, DataConfig(sampling="by_ap", class_weights=(1, 3)), images, 2)
    np.testing.assert_array_equal(
        by_ap([]), image_repeats(DataConfig(sampling="balanced", class_weights=(1, 3)), images, 2)
    )
    # (1 - 0.5)² = 1/4 and (1 - 0)² = 1, times 1 and 3
    np.testing.assert_allclose(by_ap([0.5, None]), np.array([1, 12, 13, 1]) * 4 / 27, rtol=1e-14)
    # class 0 lacks nothing, and yet has a hundredth of the factor of the other
    np.testing.assert_allclose(by_ap([1.0, 0.0]), np.array([1, 300, 301, 1]) * 4 / 603, rtol=1e-14)
    np.testing.assert_allclose(by_ap([1.0, 1.0]), np.array([1, 3, 4, 1]) * 4 / 9, rtol=1e-14)  # all alike


def test_weights_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"data\.class_weights has 1 numbers; expected one for each of the 2 classes"):
        balanced_repeats(ids([0]), 2, class_weights=(1,))
    for images, weights in ((ids([0]), (0, 1)), (ids([], []), ())):
        with pytest.raises(InputError, match="no training image has an object of a class with a weight over 0"):
            balanced_repeats(images, 2, class_weights=weights)


@given(st.lists(QUARTERS, min_size=1, max_size=20).filter(lambda all: sum(all) >= 1), st.integers(0), st.integers(0, 9))
def test_each_image_occurs_its_repeats_rounded_down_or_up_and_epochs_are_equally_long(repeats, seed, epoch) -> None:
    order = plan(epoch, repeats=repeats, seed=seed).order
    assert len(order) == epoch_length(np.array(repeats)) == int(sum(repeats))
    times = np.bincount(order, minlength=len(repeats))
    assert (np.floor(repeats) <= times).all()
    assert (times <= np.ceil(repeats)).all()
    again = plan(epoch, repeats=repeats, seed=seed).order
    np.testing.assert_array_equal(order, again)


@pytest.mark.parametrize(
    "repeats",
    [
        balanced_repeats(ids(*[[0]] * 10, [1], [0, 1], *[[0, 0]] * 3, []), 2),
        np.array([0.25, 0.75, 1.0]),
        repeat_factors(ids(*[[0]] * 6, [1], [2], [1, 2]), 3, threshold=0.5),
    ],
)
def test_over_many_epochs_images_occur_as_often_as_they_should(repeats: Any) -> None:
    epochs = 1000
    orders = [plan(epoch, repeats=repeats).order for epoch in range(epochs)]
    assert {len(order) for order in orders} == {epoch_length(repeats)}
    counts = np.bincount(np.concatenate(orders), minlength=len(repeats))
    # The epoch's length is rounded down, which all fractions pay for.
    whole = np.floor(repeats)
    share = (epoch_length(repeats) - whole.sum()) / (repeats - whole).sum()
    expected = (whole + (repeats - whole) * share) * epochs
    # Systematic sampling varies less than independent draws, for which chi-square is made: a bias alone exceeds this.
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    # of one image: the standard deviation of a mean of 1000 zeros and ones is at most 0.5 / sqrt(1000) = 0.016
    np.testing.assert_allclose(counts, expected, atol=5 * 0.016 * epochs, rtol=0)


def test_images_with_equal_fractions_occur_together_in_all_combinations() -> None:
    pairs = Counter(tuple(sorted(plan(epoch, repeats=[0.5] * 4).order.tolist())) for epoch in range(600))
    assert set(pairs) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert stats.chisquare(list(pairs.values())).pvalue > 1e-3


def test_every_order_is_as_likely() -> None:
    orders = Counter(tuple(plan(epoch, repeats=[1, 1, 1]).order.tolist()) for epoch in range(600))
    assert len(orders) == 6
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 3))
def test_by_default_an_epoch_is_a_permutation_and_its_last_batch_begins_anew(count, batch_size, seed, epoch) -> None:
    order = plan(epoch, repeats=np.ones(count), seed=seed, batch_size=batch_size).order
    assert len(order) % batch_size == 0
    assert len(order) - batch_size < count <= len(order)
    expected = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    assert order.tolist() == [expected[position % count] for position in range(len(order))]


def test_shapes_are_drawn_evenly_for_each_batch_and_leave_the_order_alone() -> None:
    shapes = ((32, 32), (64, 64), (96, 96))
    plans = [plan(epoch, repeats=np.ones(30), batch_size=4, shapes=shapes) for epoch in range(100)]
    counts = Counter(tuple(shape) for made in plans for shape in made.shapes.tolist())
    assert set(counts) == set(shapes)
    assert sum(counts.values()) == 800
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert len({made.shapes.tobytes() for made in plans}) > 90  # of 3^8 that there can be
    np.testing.assert_array_equal(plans[0].order, plan(repeats=np.ones(30), batch_size=4).order)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 8), st.integers(0, 2**40))
def test_batches_are_of_images_that_want_the_same_shape(wanted, batch_size, seed) -> None:
    shapes = ((32, 64), (64, 64), (64, 32))
    buckets = np.array(wanted)
    options: dict[str, Any] = {"repeats": np.ones(len(wanted)), "seed": seed, "batch_size": batch_size}
    made = plan(3, shapes=shapes, buckets=buckets, **options)
    assert Counter(made.order.tolist()) == Counter(plan(3, **options).order.tolist())
    mixed = 0
    for images, shape in zip(made.order.reshape(-1, batch_size), made.shapes.tolist(), strict=True):
        sides = np.array([shapes[place] for place in buckets[images]])
        assert shape == sides.max(axis=0).tolist()
        mixed += len(set(buckets[images].tolist())) > 1
    assert mixed <= len(set(wanted)) - 1


def test_batches_of_shapes_come_in_any_order() -> None:
    buckets = np.repeat([0, 1], 8)
    firsts = {
        plan(epoch, repeats=np.ones(16), batch_size=4, shapes=((32, 64), (64, 64)), buckets=buckets).shapes.tobytes()
        for epoch in range(60)
    }
    assert len(firsts) == 6  # two of four batches


def test_squares_by_hand() -> None:
    assert squares(640, (), stride=32) == ((640, 640),)
    assert squares(640, (0.5, 1, 1.24), stride=32) == ((320, 320), (640, 640), (800, 800))
    assert squares(64, (0.1,), stride=32) == ((32, 32),)
    assert squares(640, (0.52,), stride=64) == ((320, 320),)


def test_rectangles_by_hand() -> None:
    sizes = [(480, 640)] * 5 + [(640, 480)] * 7 + [(100, 100), (427, 640)]
    shapes, places = rectangles(sizes, 640, stride=32)
    assert shapes == ((448, 640), (480, 640), (640, 640), (640, 480))
    assert places.tolist() == [1] * 5 + [3] * 7 + [2, 0]
    # Of two, the one that seven fit, not the one that six do: those are left with the square.
    shapes, places = rectangles(sizes, 640, stride=32, most=2)
    assert shapes == ((640, 640), (640, 480))
    assert places.tolist() == [0] * 5 + [1] * 7 + [0, 0]


SIZES = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=8)


@given(SIZES)
def test_each_image_fits_the_smallest_shape_that_holds_it(sizes) -> None:
    shapes, places = rectangles(sizes, 128, stride=32)
    assert 1 <= len(shapes) <= 5
    assert (128, 128) in shapes
    assert all(max(shape) == 128 and min(shape) % 32 == 0 for shape in shapes)
    for shape, place in zip(sizes, places, strict=True):
        image = np.zeros((*shape, 3), np.uint8)
        _, whole = letterbox(image, 128, auto=False)
        _, tight = letterbox(image, shapes[place], auto=False)
        assert tight.content == whole.content  # not a pixel smaller than in the square
        holding = [s for s in shapes if s[0] >= whole.content[0] and s[1] >= whole.content[1]]
        assert np.prod(shapes[place]) == min(np.prod(s) for s in holding)
    for one, other in combinations(shapes, 2):  # a batch of both has a shape that is compiled for anyway
        assert (max(one[0], other[0]), max(one[1], other[1])) in shapes

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.geometry import is_upright, random_warp, shift, still_labels, warp_boxes

STILL = AugmentConfig(scale=0, translate=0)


class Extreme:
    """A generator whose uniform draws are all at one end."""

    def __init__(self, *, at_high):
        self.at_high = at_high

    def uniform(self, low, high, size=None):
        value = high if self.at_high else low
        return value if size is None else np.full(size, float(value))


def place(matrix, x, y):
    u, v, w = matrix @ (x, y, 1)
    return u / w, v / w


@pytest.mark.parametrize(
    ("options", "at_high", "point", "expected"),
    [  # canvas 200, image 100: the center (100, 100) goes to (50, 50)
        ({}, True, (100, 100), (50, 50)),
        ({}, True, (110, 130), (60, 80)),
        ({"scale": 0.5}, True, (110, 130), (66, 98)),  # 1.6 times
        ({"scale": 0.5}, False, (110, 130), (55, 65)),
        ({"translate": 0.2}, True, (100, 100), (70, 70)),
        ({"translate": 0.2}, False, (110, 130), (40, 60)),
        ({"degrees": 90}, True, (110, 130), (20, 60)),  # x axis to y axis
        ({"degrees": 180}, True, (110, 130), (40, 20)),
        ({"shear": 45}, True, (110, 130), (90, 90)),  # x + y · tan 45°, and the same down
        ({"perspective": 0.01}, True, (110, 130), (50 + 10 / 1.4, 50 + 30 / 1.4)),  # w = 1 + 0.01 · (10 + 30)
    ],
)
def test_warps_by_hand(options, at_high, point, expected):
    config = AugmentConfig(**{"scale": 0, "translate": 0} | options)
    matrix, scale = random_warp(Extreme(at_high=at_high), config, canvas=(200, 200), size=(100, 100))
    assert scale == pytest.approx(
        {(0, True): 1, (0, False): 1, (0.5, True): 1.6, (0.5, False): 0.5}[config.scale, at_high]
    )
    assert place(matrix, *point) == pytest.approx(expected, abs=1e-9)


def test_rectangles_and_zoom():
    config = AugmentConfig(scale=0.5, translate=0.2)
    matrix, scale = random_warp(Extreme(at_high=True), config, canvas=(200, 100), size=(30, 60), zoom=0.5)
    assert scale == pytest.approx(0.8)  # half of 1.6
    # the center (50, 100) goes to (30, 15), 0.2 · 60 to the right and 0.2 · 30 down; 10 more to the right are 8
    assert place(matrix, 50, 100) == pytest.approx((42, 21), abs=1e-9)
    assert place(matrix, 60, 100) == pytest.approx((50, 21), abs=1e-9)


def test_rotation_comes_before_shear_and_perspective_before_both():
    config = AugmentConfig(scale=0, translate=0, degrees=90, shear=45, perspective=0.01)
    matrix, _ = random_warp(Extreme(at_high=True), config, canvas=(0, 0), size=(0, 0))
    # (10, 0): w = 1.1; rotated to (0, 10); sheared to (10, 10)
    assert place(matrix, 10, 0) == pytest.approx((10 / 1.1, 10 / 1.1), abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9), st.sampled_from([0.0, 0.1]), st.floats(0, 0.5), st.floats(0, 180))
def test_scale_and_center_stay_within_their_ranges(seed, scale, scale_extra, translate, degrees):
    config = AugmentConfig(scale=scale, scale_extra=scale_extra, translate=translate, degrees=degrees)
    matrix, drawn = random_warp(np.random.default_rng(seed), config, canvas=(128, 128), size=(64, 64))
    assert 1 - scale <= drawn <= 1 + scale_extra + scale
    assert np.linalg.det(matrix) == pytest.approx(drawn**2)
    assert np.allclose(place(matrix, 64, 64), 32, rtol=0, atol=64 * translate + 1e-9)


def test_draws_fill_their_ranges():
    rng = np.random.default_rng(0)
    config = AugmentConfig(scale=0.5, translate=0.1, degrees=30)
    drawn = [random_warp(rng, config, canvas=(2, 2), size=(1, 1)) for _ in range(2000)]
    scales = np.array([scale for _, scale in drawn])
    centers = np.array([place(matrix, 1, 1) for matrix, _ in drawn])
    angles = np.degrees([math.atan2(matrix[1, 0], matrix[0, 0]) for matrix, _ in drawn])
    for values, low, high in ((scales, 0.5, 1.6), (centers, 0.4, 0.6), (angles, -30, 30)):
        spread = high - low
        assert values.min() == pytest.approx(low, abs=0.01 * spread)
        assert values.max() == pytest.approx(high, abs=0.01 * spread)
        # standard deviation of a uniform mean: spread / sqrt(12 · 2000), four of them
        assert np.allclose(values.mean(axis=0), (low + high) / 2, rtol=0, atol=4 * spread / math.sqrt(24000))


def test_upright():
    upright, _ = random_warp(np.random.default_rng(0), AugmentConfig(), canvas=(2, 2), size=(1, 1))
    assert is_upright(upright)
    for option in ("degrees", "shear", "perspective"):
        bent, _ = random_warp(np.random.default_rng(0), AugmentConfig(**{option: 0.1}), canvas=(2, 2), size=(1, 1))
        assert not is_upright(bent)
    for entry in ((0, 1), (1, 0), (2, 0), (2, 1)):
        bent = np.eye(3)
        bent[entry] = 1e-9
        assert not is_upright(bent)
    assert not is_upright(np.diag([-1.0, 1, 1]))
    assert not is_upright(np.diag([1.0, -1, 1]))


QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
EIGHTH = np.array([[1.0, -1, 0], [1, 1, 0], [0, 0, math.sqrt(2)]])
AWAY = np.array([[1.0, 0, 0], [0, 1, 0], [0.1, 0, 1]])
NEAR = np.array([[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]])


@pytest.mark.parametrize(
    ("matrix", "box", "expected"),
    [
        (shift(3, -4), [1, 2, 3, 6], [4, -2, 6, 2]),
        (QUARTER, [1, 2, 3, 6], [-6, 1, -2, 3]),
        (EIGHTH, [0, 0, 1, 1], [-math.sqrt(0.5), 0, math.sqrt(0.5), math.sqrt(2)]),
        (AWAY, [0, 0, 10, 10], [0, 0, 5, 10]),
        (NEAR, [0, 2, 5, 10], [0, 2, 10, 20]),
        (NEAR, [11, 2, 15, 10], [0, 0, 0, 0]),  # wholly behind the horizon at x = 10
    ],
)
def test_warped_boxes_by_hand(matrix, box, expected):
    assert warp_boxes(np.array([box], np.float32), matrix)[0] == pytest.approx(expected, abs=1e-12)
    twice = warp_boxes(np.array([box, box], np.float32), np.stack([np.eye(3), matrix]))
    assert twice[1] == pytest.approx(expected, abs=1e-12)
    assert np.array_equal(twice[0], box)


def test_a_box_across_the_horizon_reaches_to_infinity():
    # the corner (0, 2) stays; towards x = 10 everything grows beyond any image
    box = warp_boxes(np.array([[0.0, 2, 20, 10]]), NEAR)[0]
    assert box[:2] == pytest.approx([0, 2])
    assert (box[2:] > 1e6).all()


def test_no_boxes():
    assert warp_boxes(np.zeros((0, 4)), NEAR).shape == (0, 4)
    assert still_labels(np.zeros((0, 4)), np.zeros((0, 4)), 1.0).shape == (0,)


COEFFICIENT = st.floats(-2, 2)


@given(
    st.lists(COEFFICIENT, min_size=8, max_size=8),
    st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.5, 40), st.floats(0.5, 40)),
)
def test_warped_boxes_hold_every_point_of_the_box(numbers, box):
    a, b, c, d, e, f, g, h = numbers
    matrix = np.array([[a, b, c], [d, e, f], [g / 100, h / 100, 1]])
    x, y, width, height = box
    warped = warp_boxes(np.array([[x, y, x + width, y + height]]), matrix)[0]
    inner = np.linspace(0, 1, 9)
    points = np.stack([*np.meshgrid(x + width * inner, y + height * inner), np.ones((9, 9))], axis=-1) @ matrix.T
    seen = points[points[:, :, 2] > 1e-3]
    places = seen[:, :2] / seen[:, 2:]
    slack = 1e-9 * (1 + np.abs(places))
    assert (places >= warped[:2] - slack).all()
    assert (places <= warped[2:] + slack).all()
    if (points[..., 2] > 1e-3).all():  # and no more: corners are among the points
        assert np.allclose(np.concatenate([places.min(axis=0), places.max(axis=0)]), warped, rtol=1e-9, atol=1e-9)


def test_scale_and_least_share_of_each_box():
    before, after = np.array([[0.0, 0, 100, 100]] * 3), np.array([[0.0, 0, 30, 30]] * 3)
    kept = still_labels(before, after, np.array([1.0, 1.0, 2.0]), least=np.array([0.08, 0.1, 0.01]))
    assert kept.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("before", "after", "scale", "kept"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1, True),
        ([0, 0, 10, 10], [0, 0, 2, 10], 1, False),  # 2 wide is not over 2
        ([0, 0, 10, 10], [0, 0, 10, 2], 1, False),
        ([0, 0, 10, 10], [0, 0, 2.1, 10], 1, True),
        ([0, 0, 100, 10], [0, 0, 10, 10], 1, False),  # a tenth is not over a tenth
        ([0, 0, 100, 10], [0, 0, 10.1, 10], 1, True),
        ([0, 0, 10, 10], [0, 0, 5, 8], 2, False),  # 40 of 400 pixels after scaling
        ([0, 0, 10, 10], [0, 0, 5, 8.1], 2, True),
        ([0, 0, 20, 20], [0, 0, 5, 5], 0.5, True),
        ([0, 0, 60, 3], [0, 0, 60, 3], 1, False),  # 20 times as long as wide
        ([0, 0, 59, 3], [0, 0, 59, 3], 1, True),
        ([0, 0, 3, 60], [0, 0, 3, 60], 1, False),
        ([0, 0, 3, 59], [0, 0, 3, 59], 1, True),
        ([5, 5, 5, 5], [5, 5, 5, 5], 1, False),
    ],
)
def test_what_stays_a_label_by_hand(before, after, scale, kept):
    assert still_labels(np.array([before], float), np.array([after], float), scale).tolist() == [kept]

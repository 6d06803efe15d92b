import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from yolov7_jax.ops.iou import bbox_iou, pairwise_iou

IOU_TYPES = ("iou", "giou", "diou", "ciou")
COORDINATES = st.integers(0, 40)
BOXES_XYWH = st.lists(st.tuples(COORDINATES, COORDINATES, st.integers(1, 30), st.integers(1, 30)), min_size=1)


def corners(boxes_xywh):
    boxes = np.asarray(boxes_xywh, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


@given(BOXES_XYWH, BOXES_XYWH)
def test_equals_pycocotools(these, others):
    expected = mask.iou(np.float64(these), np.float64(others), np.zeros(len(others), np.uint8))
    np.testing.assert_allclose(pairwise_iou(corners(these), corners(others)), expected, rtol=1e-12)  # both in float64


def test_jax_equals_numpy():
    rng = np.random.default_rng(0)
    boxes, others = corners(rng.uniform(1, 30, (7, 4))), corners(rng.uniform(1, 30, (5, 4)))
    expected = pairwise_iou(boxes, others)
    single = jnp.asarray(boxes, jnp.float32), jnp.asarray(others, jnp.float32)
    batch = jax.vmap(pairwise_iou)(single[0][None], single[1][None])[0]
    for result in (pairwise_iou(*single), jax.jit(pairwise_iou)(*single), batch):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-6)  # float32 against float64 of numbers up to 1


@pytest.mark.parametrize("xp", [np, jnp])
def test_boxes_without_area_overlap_nothing(xp):
    point, line, wrong_order = [5, 5, 5, 5], [0, 5, 10, 5], [8, 8, 2, 2]
    boxes = xp.asarray([point, line, wrong_order, [0, 0, 10, 10]], dtype=xp.float32)
    expected = np.zeros((4, 4), np.float32)
    expected[3, 3] = 1
    np.testing.assert_array_equal(pairwise_iou(boxes, boxes), expected)


def test_shape_for_no_boxes():
    none, some = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
    assert pairwise_iou(none, some).shape == (0, 3)
    assert pairwise_iou(some, none).shape == (3, 0)


def scalar_ciou(a, b, alpha=None):
    """From corners, in plain Python; (value, α), with a given α kept as it is."""
    eps = 1e-7
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    width = min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2)
    height = min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2)
    intersection = max(width, 0) * max(height, 0)
    overlap = intersection / (aw * ah + bw * bh - intersection + eps)
    across = max(ax + aw / 2, bx + bw / 2) - min(ax - aw / 2, bx - bw / 2)
    down = max(ay + ah / 2, by + bh / 2) - min(ay - ah / 2, by - bh / 2)
    distance = ((ax - bx) ** 2 + (ay - by) ** 2) / (across**2 + down**2 + eps)
    v = 4 / math.pi**2 * (math.atan(aw / (ah + eps)) - math.atan(bw / (bh + eps))) ** 2
    alpha = v / (1 - overlap + v + eps) if alpha is None else alpha
    return overlap - distance - alpha * v, alpha


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (1, 0, 2, 2), 1 / 3 - 1 / 13),
        ((5, 5, 4, 2), (5, 5, 4, 2), 1.0),
        ((0, 0, 2, 2), (10, 0, 2, 2), -100 / (144 + 4)),
        ((0, 0, 0, 0), (3, 4, 0, 0), -1.0),
        ((0, 0, 4, 4), (0, 0, 0, 4), -0.25 * (0.25 / 1.25)),  # no overlap; shapes of 45° and 0°, so v = 1/4
        ((3e6, 3e6, 2, 2), (3e6 + 1, 3e6, 2, 2), 1 / 3 - 1 / 13),  # in float32 their corners are a quarter apart
    ],
)
def test_ciou_by_hand(a, b, expected):
    # float32, and epsilons of 1e-7 beside areas of 4 and more
    np.testing.assert_allclose(bbox_iou(jnp.float32(a), jnp.float32(b)), expected, atol=3e-7)


SIDE = st.one_of(st.floats(0.01, 50), st.sampled_from([1.0, 10.0]))
BOX = st.tuples(st.floats(-30, 30), st.floats(-30, 30), SIDE, SIDE)


@functools.cache
def and_slope(iou_type):
    return jax.jit(jax.value_and_grad(functools.partial(bbox_iou, iou_type=iou_type), argnums=(0, 1)))


ciou_and_slope = and_slope("ciou")


@given(BOX, BOX)
def test_ciou_equals_the_formula_in_corners(a, b):
    with jax.enable_x64(True):
        value, slopes = ciou_and_slope(np.float64(a), np.float64(b))
    expected, alpha = scalar_ciou(a, b)
    np.testing.assert_allclose(value, expected, rtol=0, atol=1e-11)  # float64 both; corners of up to 55 cancel
    at, step = np.float64([*a, *b]), 1e-6
    for slope, direction in zip(np.concatenate(slopes), np.eye(8) * step, strict=True):
        after, before = (scalar_ciou(end[:4], end[4:], alpha)[0] for end in (at + direction, at - direction))
        right, left = (after - expected) / step, (expected - before) / step
        # A difference quotient: as sure as its two sides agree, which they do not where edges meet.
        np.testing.assert_allclose(slope, (right + left) / 2, rtol=1e-6, atol=1e-8 + abs(right - left))


def test_ciou_does_not_move_aligned_boxes_apart():
    slopes = ciou_and_slope(jnp.float32([3, 0, 2, 2]), jnp.float32([3, 5, 2, 4]))[1]
    assert slopes[0][0] == slopes[1][0] == 0
    assert slopes[0][1] > 0


HUGE = st.floats(0, 2.0**59, width=32)
ANY_SIDE = st.one_of(HUGE, st.sampled_from([0.0, 1e-30, 1e-7, 1.0, 1e6, 1e18]).map(np.float32).map(float))
ANY_PLACE = st.one_of(ANY_SIDE, ANY_SIDE.map(lambda x: -x))
ANY_BOX = st.tuples(ANY_PLACE, ANY_PLACE, ANY_SIDE, ANY_SIDE)


@given(ANY_BOX, ANY_BOX, st.booleans(), st.sampled_from(IOU_TYPES))
def test_value_and_gradient_are_always_finite(a, b, same, iou_type):
    value, slopes = and_slope(iou_type)(jnp.float32(a), jnp.float32(a if same else b))
    assert -2 <= value <= 1 + 1e-6
    assert np.isfinite(slopes).all()


def test_ciou_of_many_is_that_of_each():
    boxes = np.random.default_rng(0).uniform(1, 9, (2, 3, 5, 4)).astype(np.float32)
    expected = [[scalar_ciou(*pair)[0] for pair in zip(*rows, strict=True)] for rows in boxes.swapaxes(0, 1).tolist()]
    np.testing.assert_allclose(bbox_iou(*boxes), expected, atol=1e-6)  # float32 of numbers up to 1


def formulas(a, b):
    """IoU, GIoU (arXiv:1902.09630, algorithm 1) and DIoU (arXiv:1911.08287, equation 7) from corners."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    ax1, ax2, ay1, ay2 = ax - aw / 2, ax + aw / 2, ay - ah / 2, ay + ah / 2
    bx1, bx2, by1, by2 = bx - bw / 2, bx + bw / 2, by - bh / 2, by + bh / 2
    shared = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    across, down = max(ax2, bx2) - min(ax1, bx1), max(ay2, by2) - min(ay1, by1)
    hull, diagonal = across * down, math.hypot(across, down)
    iou = shared / union
    return {
        "iou": iou,
        "giou": iou - (hull - union) / hull,
        "diou": iou - math.dist((ax, ay), (bx, by)) ** 2 / diagonal**2,
    }


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (1, 0, 2, 2), {"iou": 1 / 3, "giou": 1 / 3, "diou": 1 / 3 - 1 / 13}),
        ((0, 0, 2, 2), (1, 1, 2, 2), {"iou": 1 / 7, "giou": 1 / 7 - 2 / 9, "diou": 1 / 7 - 2 / 18}),
        ((0, 0, 2, 2), (10, 0, 2, 2), {"iou": 0, "giou": -16 / 24, "diou": -100 / 148}),
        ((3, 4, 2, 6), (3, 4, 2, 6), {"iou": 1, "giou": 1, "diou": 1}),
    ],
)
def test_measures_by_hand(a, b, expected):
    for iou_type, value in expected.items():
        # float32, and epsilons of 1e-7 beside areas of 4 and more
        np.testing.assert_allclose(bbox_iou(jnp.float32(a), jnp.float32(b), iou_type=iou_type), value, atol=2e-7)


BIG_SIDE = st.floats(1, 50)
BIG_BOX = st.tuples(st.floats(-30, 30), st.floats(-30, 30), BIG_SIDE, BIG_SIDE)


@pytest.mark.parametrize("iou_type", ["iou", "giou", "diou"])
def test_measures_equal_their_formulas(iou_type):
    @given(BIG_BOX, BIG_BOX)
    def check(a, b):
        with jax.enable_x64(True):
            value, slopes = and_slope(iou_type)(np.float64(a), np.float64(b))
        expected = formulas(a, b)[iou_type]
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-7)  # epsilons of 1e-7 beside areas of 1 and more
        at, step = np.float64([*a, *b]), 1e-6
        for slope, direction in zip(np.concatenate(slopes), np.eye(8) * step, strict=True):
            after, before = (formulas(end[:4], end[4:])[iou_type] for end in (at + direction, at - direction))
            right, left = (after - expected) / step, (expected - before) / step
            # A difference quotient is as sure as its two sides agree; epsilons again.
            np.testing.assert_allclose(slope, (right + left) / 2, rtol=1e-6, atol=4e-7 + abs(right - left))

    check()


@given(BOX, BOX)
def test_each_measure_takes_something_off_the_overlap(a, b):
    iou, giou, diou, ciou = (
        float(bbox_iou(jnp.float32(a), jnp.float32(b), iou_type=iou_type)) for iou_type in IOU_TYPES
    )
    slack = 1e-5  # float32
    assert -1 - slack <= giou <= iou + slack
    assert -1.5 <= ciou <= diou + slack <= iou + 2 * slack

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from yolov7_jax.ops.iou import pairwise_iou

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

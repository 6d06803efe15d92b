import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.ops.boxes import clip_boxes, cxcywh_to_xyxy, xywh_to_xyxy, xyxy_to_cxcywh, xyxy_to_xywh

XYXY = [[10.0, 20.0, 40.0, 80.0], [0.0, 0.0, 0.0, 0.0]]
CXCYWH = [[25.0, 50.0, 30.0, 60.0], [0.0, 0.0, 0.0, 0.0]]
XYWH = [[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("convert", "given", "expected"),
    [
        (cxcywh_to_xyxy, CXCYWH, XYXY),
        (xyxy_to_cxcywh, XYXY, CXCYWH),
        (xywh_to_xyxy, XYWH, XYXY),
        (xyxy_to_xywh, XYXY, XYWH),
        (lambda boxes: clip_boxes(boxes, (30, 25)), XYXY, [[10.0, 20.0, 25.0, 30.0], [0.0] * 4]),
        (lambda boxes: clip_boxes(boxes, (5, 5)), [[-7.0, -3.0, -1.0, 2.0]], [[0.0, 0.0, 0.0, 2.0]]),
    ],
)
@pytest.mark.parametrize("lead", [(), (1, 1)])
def test_boxes_by_hand_in_numpy_and_jax(convert, given, expected, lead):
    given = np.reshape(np.float32(given), (*lead, -1, 4))
    expected = np.reshape(np.float32(expected), given.shape)
    for result in (convert(given), convert(jnp.asarray(given)), jax.jit(jax.vmap(convert))(given)):
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, expected)  # small integers: exact


@pytest.mark.parametrize(
    "convert", [cxcywh_to_xyxy, xyxy_to_cxcywh, xywh_to_xyxy, xyxy_to_xywh, lambda boxes: clip_boxes(boxes, (3, 3))]
)
def test_no_boxes_stay_no_boxes(convert):
    assert convert(np.zeros((0, 4), np.float32)).shape == (0, 4)

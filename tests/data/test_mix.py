import numpy as np
import pytest

from yolov7_jax.data.mix import mixup
from yolov7_jax.types import Sample


def sample(level, boxes, class_ids, name):
    image = np.full((4, 6, 3), level, np.uint8)
    image.flags.writeable = False
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int32), name)


@pytest.mark.parametrize(("share", "level"), [(0.25, 175), (0.5, 150), (1.0, 100), (0.0, 200)])
def test_blends_and_joins(share, level):
    first, second = sample(100, [[0, 0, 3, 3]], [7], 1), sample(200, [[1, 1, 6, 4], [2, 0, 5, 4]], [3, 7], 2)
    mixed = mixup(first, second, share)
    assert (mixed.image == level).all()
    assert mixed.image.dtype == np.uint8
    assert mixed.boxes_xyxy_px.tolist() == [[0, 0, 3, 3], [1, 1, 6, 4], [2, 0, 5, 4]]
    assert mixed.class_ids.tolist() == [7, 3, 7]
    assert (mixed.boxes_xyxy_px.dtype, mixed.class_ids.dtype, mixed.id) == (np.float32, np.int32, 1)


def test_nothing_joined_to_nothing():
    mixed = mixup(sample(0, [], [], 1), sample(255, [], [], 2), 0.5)
    assert mixed.boxes_xyxy_px.shape == (0, 4)
    assert mixed.class_ids.shape == (0,)

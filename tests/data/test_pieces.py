import numpy as np
import pytest

from tests.datasets.drawn_polygons import random_polygon
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.geometry import random_warp, scale_and_shift, warp_boxes
from yolov7_jax.data.pieces import Piece, cut_out, shown, visible_boxes, visible_region
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.ops.polygons import as_polygons, of_object
from yolov7_jax.types import Sample

SHAPE = (60, 80)


def sample(objects, boxes=None, first=0):
    """A sample of 70 × 90 whose objects have these polygons, and the boxes around them unless others are given."""
    if boxes is None:
        boxes = [[*np.concatenate(each).min(axis=0), *np.concatenate(each).max(axis=0)] for each in objects]
    class_ids = np.arange(len(objects), dtype=np.int32) + first
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(np.zeros((70, 90, 3), np.uint8), boxes, class_ids, 0, as_polygons(objects))


def rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


@pytest.mark.parametrize(
    ("visible", "outlined_is_enough", "plain_is_enough"),
    [(1.9, False, False), (2.1, True, False), (3.9, True, False), (4.1, True, True)],
)
def test_less_of_an_outlined_object_is_enough(visible, outlined_is_enough, plain_is_enough):
    # 40 wide, of which so many columns are left
    whole = [0, 10, 40, 30]
    matrix = scale_and_shift(1, 1, visible - 40, 0)
    objects = sample([[rectangle(*whole)], []], [whole, whole])
    found = shown([Piece(objects, (0, 0, 90, 70), matrix, 1.0)], SHAPE)
    assert found.boxes_xyxy_px == pytest.approx(np.array([[0, 10, visible, 30]] * 2))
    assert found.enough.tolist() == [outlined_is_enough, plain_is_enough]


@pytest.mark.parametrize(("height", "enough"), [(4.9, False), (5.1, True)])
def test_a_hundredth_is_enough_of_an_outlined_object(height, enough):
    # a thin leg of 10 columns below a body that does not show: of a former area of 50 · 100, 50 is a hundredth
    body = np.array([[20, -40], [70, -40], [70, 0], [30, 0], [30, 60], [20, 60]], np.float32)
    objects = sample([[body]])._replace(image=np.zeros((100, 90, 3), np.uint8))
    shifted = scale_and_shift(1, 1, 0, height - 60)
    whole = Piece(objects, (0, -40, 90, 60), shifted, 1.0)
    found = shown([whole], SHAPE)
    assert found.boxes_xyxy_px[0] == pytest.approx([20, 0, 30, height])
    assert found.enough.tolist() == [enough]


def test_scale_counts_for_the_former_area():
    objects = sample([[]], [[0, 0, 40, 20]])
    for scale, enough in ((1.0, True), (2.0, False)):  # 5 of 40 columns are left, of a former area of 1 or 4
        found = shown([Piece(objects, (0, 0, 90, 70), scale_and_shift(1, 1, -35, 0), scale)], SHAPE)
        assert found.enough.tolist() == [enough]


@pytest.mark.parametrize("seed", range(10))
def test_objects_in_a_row_are_those_one_by_one(seed):
    rng = np.random.default_rng(seed)
    config = (AugmentConfig(scale=0.5, translate=0.3), AugmentConfig(scale=0.3, degrees=60, perspective=0.002))[
        seed % 2
    ]
    pieces = []
    for first in (0, 10, 20, 30):
        objects = [
            [random_polygon(rng, rng.uniform(0, 80, 2), 20, corners=6) for _ in range(rng.integers(0, 3))]
            for _ in range(rng.integers(0, 5))
        ]
        boxes = [
            [*np.concatenate(each).min(axis=0), *np.concatenate(each).max(axis=0)] if each else [10, 20, 40, 50]
            for each in objects
        ]
        warp, scale = random_warp(rng, config, canvas=(70, 90), size=SHAPE)
        pieces.append(
            Piece(sample(objects, boxes, first), ((0, 0, 90, 70), (20, 10, 60, 65))[first % 3 % 2], warp, scale)
        )
    found = shown(pieces, SHAPE)
    at = 0
    for piece in pieces:
        x0, y0, x1, y1 = piece.part
        for index, box in enumerate(piece.sample.boxes_xyxy_px.astype(float)):
            polygons = of_object(piece.sample.polygons, index)
            if polygons:
                region = visible_region(piece.part, piece.matrix, SHAPE)
                _, (expected,) = visible_boxes(as_polygons([polygons]), np.zeros(len(polygons), int), [region])
            else:
                clipped = np.clip(box, [x0, y0, x0, y0], [x1, y1, x1, y1])
                expected = clip_boxes(warp_boxes(clipped[None], piece.matrix), SHAPE)[0]
            area = np.prod(found.boxes_xyxy_px[at, 2:] - found.boxes_xyxy_px[at, :2])
            if area or np.prod(expected[2:] - expected[:2]) > 1e-9:
                assert found.boxes_xyxy_px[at] == pytest.approx(expected, abs=1e-9)
            assert found.class_ids[at] == piece.sample.class_ids[index]
            at += 1
    assert at == len(found.class_ids) == len(found.enough)


def test_one_object_of_a_sample():
    objects = sample(
        [[rectangle(0, 0, 5, 5)], [], [rectangle(10, 10, 20, 20), rectangle(30, 30, 40, 50)]], np.eye(3, 4)
    )
    one = cut_out(objects, 2)
    assert one.class_ids.tolist() == [2]
    assert one.boxes_xyxy_px.tolist() == [[0, 0, 1, 0]]
    assert [each.tolist() for each in of_object(one.polygons, 0)] == [
        rectangle(10, 10, 20, 20).tolist(),
        rectangle(30, 30, 40, 50).tolist(),
    ]
    assert one.image is objects.image

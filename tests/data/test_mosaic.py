import numpy as np
import pytest

from yolov7_jax.data.mosaic import mixup, mosaic, mosaic9
from yolov7_jax.types import Sample

SHAPES = ((96, 64), (60, 96), (96, 96), (96, 30))


def sample(shape, name=0):
    return Sample(np.zeros((*shape, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), name)


def test_placement_by_hand():
    samples = [sample(shape) for shape in SHAPES]
    tiles = mosaic(samples, (50, 140), canvas=192)
    assert [(tile.x, tile.y) for tile in tiles] == [(-14, 44), (50, 80), (-46, 140), (50, 140)]
    # what the canvas of 192 × 192 cuts off: 14 and 46 columns at the left, the last 44 rows below
    assert [tile.part for tile in tiles] == [(14, 0, 64, 96), (0, 0, 96, 60), (46, 0, 96, 52), (0, 0, 30, 52)]
    assert [tile.sample for tile in tiles] == samples


def bounds(tile):
    """What of a canvas a tile covers."""
    x0, y0, x1, y1 = tile.part
    return tile.x + x0, tile.y + y0, tile.x + x1, tile.y + y1


@pytest.mark.parametrize(("window", "left_out"), [((0, 0), {4}), ((100, 100), {1, 2, 7, 8}), ((37, 91), {8})])
def test_nine_by_hand(window, left_out):
    # on a canvas of 300 × 300, of which a window of 200 × 200 is kept; the middle one is 60 wide and 80 high
    shapes = [(80, 60), (90, 50), (70, 90), (100, 30), (20, 100), (90, 40), (40, 100), (100, 70), (30, 100)]
    tiles = mosaic9([sample(shape, name) for name, shape in enumerate(shapes)], window, canvas=200)
    expected = {
        0: (100, 100),  # to (160, 180)
        1: (100, 10),  # stands on the middle one's upper left corner, and is 50 wide
        2: (150, 30),  # to the right of that
        3: (160, 100),  # hangs from the upper right corner, 100 high
        4: (160, 200),  # below that
        5: (120, 180),  # hangs from the lower right corner, to the left, 40 wide
        6: (20, 180),  # to the left of that
        7: (30, 80),  # stands beside the lower left corner, 100 high
        8: (0, 50),  # on top of that
    }
    assert {tile.sample.id: (tile.x + window[0], tile.y + window[1]) for tile in tiles} == {
        name: corner for name, corner in expected.items() if name not in left_out
    }


@pytest.mark.parametrize("seed", range(20))
def test_nine_do_not_overlap_and_surround_the_first(seed):
    rng = np.random.default_rng(seed)
    side = 60
    shapes = [(side, int(n)) if rng.random() < 0.5 else (int(n), side) for n in rng.integers(1, side + 1, 9)]
    samples = [sample(shape, name) for name, shape in enumerate(shapes)]
    x, y = (int(n) for n in rng.integers(0, side, 2, endpoint=True))
    window = mosaic9(samples, (x, y), canvas=2 * side)
    covered = np.zeros((2 * side, 2 * side), int)
    for tile in window:
        x0, y0, x1, y1 = bounds(tile)
        covered[y0:y1, x0:x1] += 1
        assert 0 <= x0 < x1 <= 2 * side
        assert 0 <= y0 < y1 <= 2 * side
    assert covered.max() == 1
    assert window[0].sample is samples[0]
    assert window[0].part == (0, 0, *shapes[0][::-1])  # the middle one is never cut


def gray(level, boxes, class_ids, name):
    image = np.full((4, 6, 3), level, np.uint8)
    image.flags.writeable = False
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int32), name)


@pytest.mark.parametrize(("share", "level"), [(0.25, 175), (0.5, 150), (1.0, 100), (0.0, 200)])
def test_blends_and_joins(share, level):
    first, second = gray(100, [[0, 0, 3, 3]], [7], 1), gray(200, [[1, 1, 6, 4], [2, 0, 5, 4]], [3, 7], 2)
    mixed = mixup(first, second, share)
    assert (mixed.image == level).all()
    assert mixed.image.dtype == np.uint8
    assert mixed.boxes_xyxy_px.tolist() == [[0, 0, 3, 3], [1, 1, 6, 4], [2, 0, 5, 4]]
    assert mixed.class_ids.tolist() == [7, 3, 7]
    assert (mixed.boxes_xyxy_px.dtype, mixed.class_ids.dtype, mixed.id) == (np.float32, np.int32, 1)


def test_nothing_joined_to_nothing():
    mixed = mixup(gray(0, [], [], 1), gray(255, [], [], 2), 0.5)
    assert mixed.boxes_xyxy_px.shape == (0, 4)
    assert mixed.class_ids.shape == (0,)

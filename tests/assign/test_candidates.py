import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.assign.candidates import COARSE_NEIGHBOR_OFFSET, FINE_NEIGHBOR_OFFSET, candidates
from yolov7_jax.ops.decode import make_grid

ANCHORS = (((12, 16), (19, 36), (40, 28)), ((36, 75), (76, 55), (72, 146)), ((142, 110), (192, 243), (459, 401)))
STRIDES = (8, 16, 32)
SIZES = (96, 160), (128, 64)
REACHES = FINE_NEIGHBOR_OFFSET, COARSE_NEIGHBOR_OFFSET, 0.25, 0.75


def fill(boxes, *, image_size=(96, 160), neighbor_offset=FINE_NEIGHBOR_OFFSET, valid=None, anchors=ANCHORS, **options):
    boxes = np.float32(boxes).reshape(-1, 4)
    valid = np.ones(len(boxes), bool) if valid is None else np.array(valid, bool)
    options = {"strides": STRIDES, "anchor_t": 4.0, **options}
    return candidates(boxes, valid, anchors=anchors, image_size=image_size, neighbor_offset=neighbor_offset, **options)


def lists(found):
    return [sorted(row[valid].tolist()) for row, valid in zip(found.index, found.valid, strict=True)]


def brute_force(box, anchors, image_size, neighbor_offset, anchor_t=4.0):
    """Walks over every prediction there is and asks, in float64, whether the box's facts name it."""
    cx, cy, *size = map(float, box)
    found, n = [], 0
    for stride, level in zip(STRIDES, anchors, strict=True):
        h, w = image_size[0] // stride, image_size[1] // stride
        gx, gy = cx / stride, cy / stride
        points = [(gx, gy)]
        points += [(gx - neighbor_offset, gy)] * (gx % 1 < neighbor_offset and gx > 1)
        points += [(gx, gy - neighbor_offset)] * (gy % 1 < neighbor_offset and gy > 1)
        points += [(gx + neighbor_offset, gy)] * ((w - gx) % 1 < neighbor_offset and w - gx > 1)
        points += [(gx, gy + neighbor_offset)] * ((h - gy) % 1 < neighbor_offset and h - gy > 1)
        cells = {(min(max(int(x), 0), w - 1), min(max(int(y), 0), h - 1)) for x, y in points}
        for row, column, anchor in itertools.product(range(h), range(w), level):
            ratios = [s / a for s, a in zip(size, anchor, strict=True)]
            if (column, row) in cells and all(r > 0 and max(r, 1 / r) < anchor_t for r in ratios):
                found.append(n)
            n += 1
    return found


def coordinates(limit):
    """Anywhere in the image and a little out of it, often on the edges and in the middles of cells."""
    return st.one_of(st.floats(-20, limit + 20, width=32), st.integers(0, limit // 4).map(lambda i: 4.0 * i))


SIDES = st.one_of(st.floats(0, 2000, width=32), st.sampled_from([0.0, 3.0, 12.0, 48.0, 160.0]))


@given(st.data(), st.sampled_from(SIZES), st.sampled_from(REACHES))
def test_equals_a_walk_over_all_predictions(data, image_size, neighbor_offset):
    h, w = image_size
    boxes = data.draw(st.lists(st.tuples(coordinates(w), coordinates(h), SIDES, SIDES), max_size=4))
    found, left_out = fill(boxes, image_size=image_size, neighbor_offset=neighbor_offset)
    assert lists(found) == [brute_force(box, ANCHORS, image_size, neighbor_offset) for box in boxes]
    assert left_out == 0
    assert not found.index[~found.valid].any()
    assert found.index.dtype == np.int32
    assert found.index.shape == found.valid.shape == (len(boxes), 27 if neighbor_offset <= 0.5 else 45)


@pytest.mark.parametrize("neighbor_offset", REACHES)
def test_levels_may_differ_in_their_number_of_anchors(neighbor_offset):
    anchors = (((12, 16),), ((36, 75), (76, 55)), ())
    boxes = [(30, 50, 20, 40), (90, 12, 40, 30), (70, 71, 300, 300)]
    found, _ = fill(boxes, anchors=anchors, neighbor_offset=neighbor_offset)
    assert lists(found) == [brute_force(box, anchors, (96, 160), neighbor_offset) for box in boxes]


def test_by_hand():
    # Stride 8, a grid of 4 x 4, one anchor: the center (13, 18) is at (1.625, 2.25), so right and above are nearest.
    options = {"anchors": [[(16, 16)]], "strides": [8], "image_size": (32, 32), "anchor_t": 4.0}
    boxes, valid = np.float32([[13, 18, 16, 16]]), np.ones(1, bool)
    fine, _ = candidates(boxes, valid, neighbor_offset=FINE_NEIGHBOR_OFFSET, **options)
    coarse, _ = candidates(boxes, valid, neighbor_offset=COARSE_NEIGHBOR_OFFSET, **options)
    assert lists(fine) == [[1 * 4 + 1, 2 * 4 + 1, 2 * 4 + 2]]
    assert lists(coarse) == [[1 * 4 + 1, 2 * 4 + 0, 2 * 4 + 1, 2 * 4 + 2, 3 * 4 + 1]]


def test_index_is_that_of_the_grid():
    grid = make_grid(ANCHORS, STRIDES, (96, 160))
    found, _ = fill([[77, 41, 30, 33]])
    for n in lists(found)[0]:
        assert (np.abs(grid.cell[n] + 0.5 - np.float32([77, 41]) / grid.stride[n]) <= 1).all()
        assert (np.abs(np.log(np.float32([30, 33]) / grid.anchor_px[n])) < np.log(4)).all()


def test_own_cells_come_first_and_what_is_over_the_capacity_is_counted():
    boxes = [(50, 50, 30, 30), (0, 0, 1, 1), (81, 33, 60, 60)]
    whole, _ = fill(boxes)
    counts = whole.valid.sum(1)
    assert counts.tolist() == [15, 0, 18]
    cut, left_out = fill(boxes, capacity=7)
    assert left_out == 8 + 11
    assert cut.index.shape == (3, 7)
    np.testing.assert_array_equal(cut.index, whole.index[:, :7])
    np.testing.assert_array_equal(cut.valid, whole.valid[:, :7])
    wide, left_out = fill(boxes, capacity=40)
    assert left_out == 0
    assert lists(wide) == lists(whole)
    grid = make_grid(ANCHORS, STRIDES, (96, 160))
    first = whole.index[0, :5]  # five anchors fit, so five own cells
    np.testing.assert_array_equal(grid.cell[first], np.floor(np.float32([50, 50]) / grid.stride[first, None]))


def test_padding_has_no_candidates():
    box = (50, 50, 30, 30)
    found, left_out = fill([box, box, box], valid=[False, True, False], capacity=3)
    assert found.valid.any(1).tolist() == [False, True, False]
    assert left_out == 12
    assert not found.index[[0, 2]].any()


@pytest.mark.parametrize("M", [0, 5])
def test_no_boxes(M):
    found, left_out = fill(np.zeros((M, 4)), valid=[False] * M)
    assert found.index.shape == (M, 27)
    assert not found.valid.any()
    assert left_out == 0


def test_data_workers_do_not_load_jax():
    code = "import sys, yolov7_jax.assign.candidates; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.data())
def test_a_longer_reach_has_all_candidates_of_a_shorter(data):
    boxes = data.draw(st.lists(st.tuples(coordinates(160), coordinates(96), SIDES, SIDES), min_size=1, max_size=4))
    before = None
    for neighbor_offset in (0.1, 0.25, 0.5, 0.75, 1.0):
        now = [set(row) for row in lists(fill(boxes, neighbor_offset=neighbor_offset)[0])]
        assert before is None or all(less <= more for less, more in zip(before, now, strict=True))
        before = now

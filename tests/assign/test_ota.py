import functools
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.assign.oracle import iou, ota_positives, predicted_box
from yolov7_jax.assign import ota
from yolov7_jax.assign.candidates import COARSE_NEIGHBOR_OFFSET, FINE_NEIGHBOR_OFFSET, candidates
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.types import Candidates

ANCHORS, STRIDES, SIZE = (((8, 8), (14, 10)), ((20, 20), (30, 16))), (8, 16), (32, 48)
GRID = make_grid(ANCHORS, STRIDES, SIZE)
N, M = len(GRID.stride), 6
BLOCK = 16  # so that most images take several


def brute_force(raw, boxes, class_ids, valid, some, **settings):
    """Rows (prediction, box, class), since equal boxes are interchangeable."""
    found = ota_positives(raw, boxes, class_ids, valid, some, GRID, **settings)
    return sorted((n, *map(float, boxes[m]), int(class_ids[m])) for n, m in found)


@functools.cache
def compiled(top_k, iou_cost=3.0, center_bound=0.5):
    assign = functools.partial(ota.OTA(top_k, iou_cost), grid=GRID._replace(center_bound=center_bound))
    return jax.jit(assign, compiler_options={"xla_backend_optimization_level": 0})  # compiling takes longest


def rows(assignment, boxes, class_ids):
    chosen = [np.asarray(part)[np.asarray(assignment.positive)] for part in assignment[:2]]
    return sorted((int(n), *map(float, boxes[m]), int(class_ids[m])) for n, m in zip(*chosen, strict=True))


def fill(boxes, valid, neighbor_offset, capacity):
    options = {"anchors": ANCHORS, "strides": STRIDES, "image_size": SIZE, "anchor_t": 4.0}
    found, left_out = candidates(boxes, valid, neighbor_offset=neighbor_offset, capacity=capacity, **options)
    wide = [np.pad(part, ((0, 0), (0, 20 - part.shape[1]))) for part in found]  # one shape, one compilation
    return Candidates(*wide), left_out


@st.composite
def images(draw, classes=3):
    """An image's outputs, boxes (near each other, some equal, some too small for any anchor) and candidates."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.normal(0, draw(st.sampled_from([0.3, 2.0])), (N, 5 + classes))
    count = draw(st.integers(0, M))
    boxes, class_ids, valid = np.zeros((M, 4)), np.zeros(M, np.int32), np.zeros(M, bool)
    spread = draw(st.sampled_from([5, 20]))
    boxes[:count] = np.c_[rng.uniform(12, 12 + spread, (count, 2)), rng.uniform(5, 34, (count, 2))]
    boxes[:count][rng.random(count) < 0.1, 2:] = 0.5
    class_ids[:count] = rng.integers(0, classes, count)
    if draw(st.booleans()):
        pairs = count // 2 * 2
        boxes[1:pairs:2], class_ids[1:pairs:2] = boxes[0:pairs:2], class_ids[0:pairs:2]
    valid[rng.permutation(M)[:count] if draw(st.booleans()) else slice(count)] = True
    boxes[~valid], class_ids[~valid] = 0, 0
    return raw, boxes, class_ids, valid, *fill(boxes, valid, *draw(st.sampled_from(FORMS)))


FORMS = (FINE_NEIGHBOR_OFFSET, None), (COARSE_NEIGHBOR_OFFSET, None), (FINE_NEIGHBOR_OFFSET, 3)


@pytest.mark.parametrize(
    ("classes", "examples", "settings_"),
    [
        (3, 200, {"top_k": 10}),
        (3, 60, {"top_k": 20}),
        (1, 60, {"top_k": 10}),
        (3, 60, {"top_k": 20, "center_bound": 1.0}),
        (3, 60, {"top_k": 10, "iou_cost": 0.5}),
    ],
)
def test_equals_brute_force(classes, examples, settings_):
    seen = {"several": 0, "left out": 0}

    @settings(max_examples=examples)
    @given(images(classes))
    def check(image):
        *given_, left_out = image
        raw, boxes, class_ids, valid, some = given_
        with jax.enable_x64(True), patch.object(ota, "BLOCK", BLOCK):
            found = compiled(**settings_)(*given_)
        expected = brute_force(raw, boxes, class_ids, valid, some, **settings_)
        assert rows(found, boxes, class_ids) == expected
        assert found.positive.shape == (M * settings_["top_k"],)
        seen["several"] += len(expected) > valid.sum()
        seen["left out"] += left_out > 0

    check()
    assert min(seen.values()) > examples / 20  # the cases are not all trivial


def one_image(count, seed=3, classes=3):
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 1, (N, 5 + classes)).astype(np.float32)
    boxes = np.zeros((M, 4), np.float32)
    boxes[:count] = np.c_[rng.uniform(5, 27, (count, 2)), rng.uniform(8, 30, (count, 2))]
    valid = np.arange(M) < count
    return raw, boxes, np.zeros(M, np.int32), valid, fill(boxes, valid, FINE_NEIGHBOR_OFFSET, None)[0]


def test_a_batch_is_its_images():
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *(one_image(count, seed=count) for count in (0, 6, 2)))
    with patch.object(ota, "BLOCK", BLOCK):
        together = jax.vmap(lambda *image: ota.OTA(10, image_axis="images")(*image, GRID), axis_name="images")
        found = jax.jit(together)(*batch)
        each = [compiled(10)(*one_image(count, seed=count)) for count in (0, 6, 2)]
    for i, alone in enumerate(each):
        for part, whole in zip(alone, found, strict=True):
            np.testing.assert_array_equal(part, whole[i])
    assert found.positive.any(1).tolist() == [False, True, True]


def test_boxes_without_candidates_take_those_of_others():
    raw, boxes, class_ids, valid, _ = one_image(2)
    boxes[1] = 40, 24, 1, 1
    some, _ = fill(boxes, valid, FINE_NEIGHBOR_OFFSET, None)
    assert some.valid.any(1).tolist() == [True] + [False] * 5
    found = compiled(10)(raw, boxes, class_ids, valid, some)
    assert set(found.truth[found.positive].tolist()) == {0, 1}


def test_a_box_takes_no_more_candidates_than_there_are():
    raw, boxes, class_ids, valid, some = one_image(1)
    raw[:, :4] = 0  # every prediction is its anchor in the middle of its cell
    raw[:] = raw[:1]
    boxes[0] = 12, 12, 8, 8
    only = Candidates(np.zeros_like(some.index), np.zeros_like(some.valid))
    target = next(n for n in range(N) if GRID.cell[n].tolist() == [1, 1] and GRID.anchor_px[n].tolist() == [8, 8])
    only.index[0, :4], only.valid[0, :4] = target, [True, True, True, False]  # a perfect overlap, three times: k = 3
    for count in (3, 2):
        only.valid[0, 2] = count == 3
        found = compiled(10)(raw, boxes, class_ids, valid, only)
        assert found.positive.sum() == count
        assert set(found.index[found.positive].tolist()) == {target}


@pytest.mark.parametrize("extreme", [100.0, 1e4, 1e30])
def test_outputs_that_saturate_still_have_finite_costs(extreme):
    logits = np.float32(np.array(np.meshgrid(*[[-extreme, 0, extreme]] * 3)).reshape(3, -1).T)
    raw = np.concatenate([np.zeros((len(logits), 4), np.float32), logits], axis=1)
    cost = np.asarray(ota._class_cost(jnp.asarray(raw), np.arange(2)))
    assert np.isfinite(cost).all()
    objectness, right, wrong = logits.T
    best = (objectness == extreme) & (right == extreme) & (wrong == -extreme)
    assert (cost[0, best] < cost[0, ~best].min()).all()  # surely this class, before all that is less sure


def test_no_gradient_flows_through_the_choice():
    image = one_image(4)

    def chosen(raw):
        found = ota.OTA()(raw, *image[1:], GRID)
        return (jnp.take_along_axis(raw, found.index[:, None], axis=0)[:, 0] * found.positive.astype(jnp.float32)).sum()

    found = compiled(10)(*image)
    slope = jax.jit(jax.grad(chosen))(image[0])
    expected = np.zeros((N, 8), np.float32)
    np.add.at(expected[:, 0], np.asarray(found.index)[np.asarray(found.positive)], 1)
    np.testing.assert_array_equal(slope, expected)


def chosen_overlaps(iou_cost):
    """Best overlaps with a box of what it takes, for some images."""
    found = []
    for seed in range(8):
        raw, boxes, class_ids, valid, some = one_image(4, seed=seed)
        positives = compiled(10, iou_cost)(raw, boxes, class_ids, valid, some)
        for n, m in rows_of(positives):
            cell = GRID.cell[n], GRID.stride[n], GRID.anchor_px[n]
            found.append(iou(boxes[m], predicted_box(raw[n, :4], *cell, 0.5)))
    return found


def rows_of(positives):
    return [(int(n), int(m)) for n, m, taken in zip(*map(np.asarray, positives), strict=True) if taken]


def test_a_dear_overlap_chooses_by_overlap():
    assert np.mean(chosen_overlaps(100.0)) > np.mean(chosen_overlaps(0.0)) + 0.1


def test_a_higher_top_takes_more():
    image = one_image(5)
    image[0][:, :4] = 0  # every prediction is its anchor: overlaps that add up
    counts = [int(compiled(top_k)(*image).positive.sum()) for top_k in (1, 10, 20)]
    assert counts[0] <= 5
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]

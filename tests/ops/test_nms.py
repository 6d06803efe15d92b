import functools
import json
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_jax.ops import nms
from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.ops.nms import non_max_suppression

BLOCK = 8  # far fewer than the candidates of a picture below, so that the walk takes many blocks


def brute_force(boxes, objectness, scores, class_mask, confidence, iou, multi_label, agnostic, capacity, most):
    """Textbook greedy suppression: rows (x1, y1, x2, y2, score, class), and how many candidates were left out."""

    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return np.float32(0)
        both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        return width * height / (both - width * height)

    found = []
    for n in range(len(boxes)):
        classes = range(scores.shape[1])
        if not multi_label:
            classes = [max(classes, key=lambda c, n=n: (scores[n, c], class_mask[c], -c))]
        for c in classes:
            if objectness[n] > confidence and scores[n, c] > confidence and class_mask[c]:
                found.append((scores[n, c], n, c))
    found.sort(key=lambda candidate: (-candidate[0], candidate[1], candidate[2]))
    kept = []
    for score, n, c in found[:capacity]:
        rivals = [k for k in kept if agnostic or k[5] == c]
        if len(kept) < most and all(overlap(k, boxes[n]) <= np.float32(iou) for k in rivals):
            kept.append((*boxes[n], score, c))
    return np.array(kept, np.float32).reshape(-1, 6), max(0, len(found) - capacity)


@functools.cache
def compiled(multi_label, agnostic, capacity, most, *, batch):
    def suppress(boxes, objectness, scores, class_mask, confidence, iou):
        return non_max_suppression(
            boxes,
            objectness,
            scores,
            class_mask,
            confidence=confidence,
            iou=iou,
            multi_label=multi_label,
            agnostic=agnostic,
            capacity=capacity,
            max_detections=most,
        )

    return jax.jit(jax.vmap(suppress, in_axes=(0, 0, 0, None, None, None)) if batch else suppress)


def rows(detections):
    """The valid rows as (x1, y1, x2, y2, score, class), after a check that they come first and all others are zero."""
    boxes, scores, class_ids, valid, _ = map(np.asarray, detections)
    count = valid.sum()
    assert valid[:count].all()
    assert not boxes[count:].any()
    assert not scores[count:].any()
    assert not class_ids[count:].any()
    return np.concatenate([boxes, scores[:, None], class_ids[:, None]], axis=1)[:count]


@st.composite
def pictures(draw):
    """Two pictures of boxes on a coarse grid, so that they overlap, with scores of few values, so that they tie."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corner, size = rng.integers(0, 12, (2, 24, 2)), rng.integers(0, 9, (2, 24, 2))
    boxes = np.concatenate([corner, corner + size], axis=2).astype(np.float32)
    if draw(st.booleans()):
        boxes[:, 1:] = boxes[:, :1]
    objectness = rng.integers(0, 9, (2, 24)).astype(np.float32) / 8
    values = draw(st.sampled_from([4, 1000]))
    scores = rng.integers(0, values + 1, (2, 24, 5)).astype(np.float32) / np.float32(values)
    return boxes, objectness, scores


@pytest.mark.parametrize(
    ("multi_label", "agnostic", "batch"),
    [(True, False, True), (True, True, False), (False, False, True), (False, True, False)],
)
@given(pictures(), st.data())
@settings(max_examples=40)
def test_equals_brute_force(multi_label, agnostic, batch, picture, data):
    confidence = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    iou = data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    capacity, most = data.draw(st.sampled_from([(200, 200), (11, 9)]))
    class_mask = np.array(data.draw(st.sampled_from(["11111", "01011", "00000"]).map(list)), int) > 0
    options = multi_label, agnostic, capacity, most
    images = [tuple(part[i] for part in picture) for i in range(2)]
    with patch.object(nms, "BLOCK", BLOCK):
        suppress = compiled(*options, batch=batch)
        results = [suppress(*given, class_mask, confidence, iou) for given in ([picture] if batch else images)]
    if batch:
        results = [jax.tree.map(lambda leaf, i=i: leaf[i], results[0]) for i in range(2)]
    for found, image in zip(results, images, strict=True):
        expected, left_out = brute_force(*image, class_mask, confidence, iou, *options)
        np.testing.assert_array_equal(rows(found), expected)  # values are copied, never computed: exact
        assert found.overflow == left_out


@pytest.mark.shared
@pytest.mark.parametrize("case", ["evaluate", "detect", "agnostic", "some_classes"])
def test_keeps_what_the_reference_keeps(shared, case):
    folder = shared / "goldens" / "detect"
    facts = json.loads((folder / "nms.json").read_text())
    settings = facts["cases"][case]
    with np.load(folder / "nms.npz") as recorded:
        predictions = recorded["predictions"]
        expected = [recorded[f"{case}/{i}"] for i in range(len(predictions))]
    objectness = predictions[..., 4]
    scores = predictions[..., 5:] * objectness[..., None]
    classes = np.arange(scores.shape[-1])
    suppress = compiled(
        settings.get("multi_label", False),
        settings.get("agnostic", False),
        facts["max_candidates"],
        facts["max_detections"],
        batch=True,
    )
    found = suppress(
        cxcywh_to_xyxy(predictions[..., :4]),
        objectness,
        scores,
        np.isin(classes, settings.get("classes", classes)),
        settings["conf_thres"],
        settings["iou_thres"],
    )
    for i, kept in enumerate(expected):
        np.testing.assert_array_equal(rows(jax.tree.map(lambda leaf, i=i: leaf[i], found)), kept)  # the same float32
        assert found.overflow[i] == 0


def test_one_compilation_serves_all_thresholds():
    traces = []

    @jax.jit
    def suppress(boxes, scores, class_mask, confidence, iou):
        traces.append(1)
        options = {"multi_label": True, "agnostic": False, "max_detections": 10}
        return non_max_suppression(boxes, scores[:, 0], scores, class_mask, confidence=confidence, iou=iou, **options)

    boxes, scores = np.tile(np.float32([0, 0, 4, 4]), (6, 1)), np.full((6, 3), 0.5, np.float32)
    for confidence, iou, mask in ((0.1, 0.5, [1, 1, 1]), (0.25, 0.45, [0, 1, 0]), (0.5, 0.45, [1, 1, 1])):
        kept = suppress(boxes, scores, np.array(mask, bool), confidence, iou)
        assert rows(kept)[:, 5].tolist() == ([] if confidence == 0.5 else np.flatnonzero(mask).tolist())
    assert len(traces) == 1


@pytest.mark.parametrize("multi_label", [True, False])
def test_scores_that_are_not_numbers_are_no_candidates(multi_label):
    boxes = np.float32([[0, 0, 4, 4], [10, 10, 14, 14], [20, 20, 24, 24]])
    scores = np.float32([[np.nan, np.nan], [0.5, 0.2], [0.4, 0.6]])
    suppress = compiled(multi_label, False, 100, 10, batch=False)
    kept = rows(suppress(boxes, np.float32([0.9, 0.9, np.nan]), scores, np.ones(2, bool), 0.25, 0.5))
    np.testing.assert_array_equal(kept, np.float32([[10, 10, 14, 14, 0.5, 0]]))


def test_a_tie_of_classes_goes_to_a_wanted_one():
    suppress = compiled(False, False, 100, 10, batch=False)
    scores = np.full((1, 3), 0.5, np.float32)
    kept = rows(suppress(np.float32([[0, 0, 4, 4]]), scores[:, 0], scores, np.array([False, True, True]), 0.25, 0.5))
    assert kept[:, 5] == [1]


def test_half_precision_scores():
    suppress = compiled(True, False, 100, 10, batch=False)
    scores = jnp.asarray([[0.5, 0.75]], jnp.bfloat16)
    kept = suppress(np.float32([[0, 0, 4, 4]]), scores[:, 0], scores, np.ones(2, bool), 0.25, 0.5)
    assert kept.scores.dtype == jnp.bfloat16
    assert kept.class_ids[kept.valid].tolist() == [1, 0]

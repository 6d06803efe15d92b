import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_coco import CLASSES, detection, one_class, pycocotools, random_case
from yolov7_jax.evaluation.by_confidence import at_best_f1
from yolov7_jax.evaluation.coco import evaluate
from yolov7_jax.types import CONFIDENCES, CocoResult

NUMBERS = ("precision", "recall", "f1", "confidence")


def numbers(result: CocoResult) -> tuple[float, ...]:
    return tuple(result.numbers()[name] for name in NUMBERS)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), confidence=st.integers(0, 1000))
def test_detections_are_right_wrong_or_ignored_as_pycocotools_has_them(seed: int, confidence: int):
    truth, detections = random_case(seed)
    if not detections:
        return  # pycocotools cannot
    result = evaluate(truth, detections)
    oracle = pycocotools(truth, detections)
    everywhere = oracle.params.areaRng[0]
    per_image = [row for row in oracle.evalImgs if row is not None and row["aRng"] == everywhere]
    for k, category_id in enumerate(oracle.params.catIds):
        rows = [row for row in per_image if row["category_id"] == category_id]
        boxes = sum(int((1 - row["gtIgnore"]).sum()) for row in rows)
        pairs = [
            (score, match > 0)
            for row in rows
            for score, match, ignored in zip(row["dtScores"], row["dtMatches"][0], row["dtIgnore"][0], strict=True)
            if not ignored and score > confidence / 1000
        ]
        right = sum(match for _, match in pairs)
        found = result.by_confidence[:, confidence, k]
        if not boxes:
            assert np.isnan(found).all()
            continue
        precision, recall = right / len(pairs) if pairs else 0.0, right / boxes
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        np.testing.assert_allclose(found, [precision, recall, f1], rtol=0, atol=1e-12)


def test_the_case_with_everything_is_among_them():
    truth, detections = random_case(3)
    result = evaluate(truth, detections)
    assert result.by_confidence.shape == (3, 1001, CLASSES)
    assert np.isnan(result.by_confidence[:, :, -1]).all()
    assert len(np.unique(result.by_confidence[0, :, 0])) > 5


def test_right_wrong_right_by_hand():
    truth = one_class([[0, 0, 50, 50], [100, 100, 50, 50]])
    found = [detection([0, 0, 50, 50], 0.9), detection([300, 300, 50, 50], 0.8), detection([100, 100, 50, 50], 0.7)]
    result = evaluate(truth, found)
    # Both of two boxes with one detection too many: 2 / 3 and 1; from 0.7 on one box of two, 1 / 2 and 1 / 2.
    assert numbers(result) == pytest.approx((2 / 3, 1.0, 0.8, 0.0), abs=1e-12)
    steps = {0.0: (2 / 3, 1, 0.8), 0.699: (2 / 3, 1, 0.8), 0.7: (0.5, 0.5, 0.5), 0.8: (1, 0.5, 2 / 3), 0.9: (0, 0, 0)}
    for confidence, expected in steps.items():
        at = int(np.argmin(np.abs(CONFIDENCES - confidence)))
        np.testing.assert_allclose(result.by_confidence[:, at, 0], expected, rtol=0, atol=1e-12)


def test_the_best_confidence_leaves_out_what_is_wrong():
    truth = one_class([[0, 0, 50, 50], [100, 100, 50, 50]])
    wrong = [detection([300, 300 + 60 * n, 50, 50], score) for n, score in enumerate((0.1, 0.2, 0.3331))]
    found = [detection([0, 0, 50, 50], 0.9), detection([100, 100, 50, 50], 0.7), *wrong]
    assert numbers(evaluate(truth, found)) == (1, 1, 1, 0.334)


def test_means_are_over_classes_with_boxes():
    truth = one_class([[0, 0, 50, 50]])
    truth["categories"] += [{"id": 2, "name": "dog"}, {"id": 3, "name": "none"}]
    truth["annotations"].append({"id": 7, "image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9]})
    found = [detection([0, 0, 50, 50], 0.9), {**detection([0, 0, 9, 9], 0.9), "category_id": 3}]
    assert numbers(evaluate(truth, found)) == (0.5, 0.5, 0.5, 0)


def test_objects_are_found_once_and_crowds_forgive():
    truth = one_class([[0, 0, 50, 50], [100, 100, 200, 200]])
    truth["annotations"][1]["iscrowd"] = 1
    twice = [detection([0, 0, 50, 50], 0.9), detection([0, 0, 50, 48], 0.9)]
    inside = [detection([110, 110, 20, 20], 0.9)]
    assert numbers(evaluate(truth, twice + inside)) == (0.5, 1, pytest.approx(2 / 3), 0)


def test_an_object_goes_to_the_higher_score_though_the_lower_fits_better():
    """At 0.75 the second alone would be right; at 0.50 the first is, and the second is left over."""
    truth = one_class([[0, 0, 100, 100]])
    found = [detection([0, 0, 60, 100], 0.9), detection([0, 0, 80, 100], 0.8)]
    assert numbers(evaluate(truth, found))[:3] == (1, 1, 1)
    assert evaluate(truth, found).by_confidence[0, 0, 0] == 0.5


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    assert numbers(evaluate(one_class([[0, 0, 50, 50]]), [])) == (0, 0, 0, 0)
    assert all(map(math.isnan, numbers(evaluate(one_class([]), [detection([0, 0, 5, 5], 0.5)]))))


def test_other_images_do_not_count():
    truth = one_class([[0, 0, 50, 50]])
    found = [detection([0, 0, 50, 50], 0.5), {**detection([0, 0, 9, 9], 0.9), "image_id": 2}]
    assert numbers(evaluate(truth, found, image_ids=[1]))[:3] == (1, 1, 1)
    assert numbers(evaluate(truth, found))[:3] == (0.5, 1, pytest.approx(2 / 3))


def test_of_equal_confidences_the_lowest():
    curves = np.zeros((3, len(CONFIDENCES), 1))
    curves[2, 200:300] = 0.5
    assert at_best_f1(curves) == {"precision": 0, "recall": 0, "f1": 0.5, "confidence": 0.2}

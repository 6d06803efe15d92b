import contextlib
import copy
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolov7_jax.errors import DataError
from yolov7_jax.evaluation.coco import IOU_THRESHOLDS, evaluate
from yolov7_jax.inference.results import to_coco_json
from yolov7_jax.types import RECALL_THRESHOLDS, Detections

Rows = list[dict[str, Any]]
CLASSES = 5  # the last has no boxes


def pycocotools(truth: dict[str, Any], detections: Rows, image_ids: list[int] | None = None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(copy.deepcopy(detections)), "bbox")
        if image_ids is not None:
            run.params.imgIds = image_ids
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def random_case(seed: int) -> tuple[dict[str, Any], Rows]:
    """Crowds, areas that are not the box's, tied scores, images without boxes, over 100 detections of a class."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 + 7 * k, "name": f"class {k}"} for k in range(CLASSES)]
    rng.shuffle(categories)
    annotations: Rows = []
    detections: Rows = []
    image_ids = rng.permutation(40)[:6].tolist()
    for image_id in image_ids:
        boxes = [rng.uniform([0, 0, 3, 3], [400, 400, 200, 200]) for _ in range(rng.integers(0, 12))]
        for box in boxes:
            row = {"image_id": image_id, "category_id": 3 + 7 * int(rng.integers(CLASSES - 1)), "bbox": box.tolist()}
            area = float(box[2] * box[3] * rng.uniform(0.4, 1))
            annotations.append({"id": len(annotations) + 1, **row, "area": area, "iscrowd": int(rng.random() < 0.15)})
            for _ in range(rng.integers(0, 4)):
                near = (box + rng.normal(0, 6, 4)).clip(1).tolist()
                detections.append({**row, "bbox": near, "score": float(rng.integers(1, 20) / 20)})
        for _ in range(rng.choice([0, 5, 130])):
            category_id = 3 + 7 * int(rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 0, CLASSES - 1]))
            box = rng.uniform([0, 0, 3, 3], [400, 400, 200, 200]).tolist()
            score = float(rng.integers(1, 20) / 20)
            detections.append({"image_id": image_id, "category_id": category_id, "bbox": box, "score": score})
    images = [{"id": image_id, "width": 600, "height": 600} for image_id in image_ids]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31))
def test_twelve_numbers_and_curves_are_those_of_pycocotools(seed: int):
    truth, detections = random_case(seed)
    if not detections:
        return  # pycocotools cannot
    result = evaluate(truth, detections)
    oracle = pycocotools(truth, detections)
    expected = np.where(oracle.stats == -1, np.nan, oracle.stats)
    # The same sums of the same float64 numbers, in another order at most.
    np.testing.assert_allclose(list(result.numbers().values())[:12], expected, rtol=0, atol=1e-12)
    curves = oracle.eval["precision"][:, :, :, 0, 2]
    np.testing.assert_allclose(result.precision_over_recall, np.where(curves == -1, np.nan, curves), rtol=0, atol=1e-12)


def test_random_cases_hold_what_they_promise():
    cases = [random_case(seed) for seed in range(10)]
    assert any(row["iscrowd"] for truth, _ in cases for row in truth["annotations"])
    images = [(image["id"], truth["annotations"], found) for truth, found in cases for image in truth["images"]]
    assert min(sum(row["image_id"] == image for row in annotations) for image, annotations, _ in images) == 0
    assert max(sum(row["image_id"] == image for row in found) for image, _, found in images) > 100


def test_numbers_are_named_in_the_order_of_coco():
    truth, detections = random_case(0)
    names = "AP AP50 AP75 AP_small AP_medium AP_large AR_1 AR_10 AR_100 AR_small AR_medium AR_large"
    assert list(evaluate(truth, detections).numbers()) == [*names.split(), "precision", "recall", "f1", "confidence"]


def test_a_subset_of_images_is_evaluated_as_pycocotools_does():
    truth, detections = random_case(1)
    chosen = sorted(image["id"] for image in truth["images"])[:3]
    expected = pycocotools(truth, detections, chosen).stats
    numbers = list(evaluate(truth, detections, image_ids=chosen).numbers().values())[:12]
    np.testing.assert_allclose(np.nan_to_num(numbers, nan=-1), expected, rtol=0, atol=1e-12)
    counted = sum(row["image_id"] in chosen and not row["iscrowd"] for row in truth["annotations"])
    assert sum(row.boxes for row in evaluate(truth, detections, image_ids=chosen).per_class) == counted


def one_class(boxes: list[list[float]]) -> dict[str, Any]:
    rows = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, box in enumerate(boxes, start=1)
    ]
    return {"images": [{"id": 1}, {"id": 2}], "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}


def detection(box: list[float], score: float, **other: int) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": box, "score": score, **other}


def test_right_wrong_right_by_hand():
    truth = one_class([[0, 0, 50, 50], [100, 100, 50, 50]])
    detections = [
        detection([0, 0, 50, 50], 0.9),
        detection([300, 300, 50, 50], 0.8),
        detection([100, 100, 50, 50], 0.7),
    ]
    result = evaluate(truth, detections)
    # 51 of the 101 recalls (0 to 0.50) are reached at precision 1, the other 50 at 2/3.
    expected = pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    assert (result.AP, result.AP50, result.AP_medium) == (expected, expected, expected)
    assert (result.AR_1, result.AR_10, result.AR_100) == (0.5, 1.0, 1.0)
    assert math.isnan(result.AP_small)
    assert math.isnan(result.AR_large)
    assert result.per_class == (("cat", result.AP, result.AP50, 2),)
    expected_curve = np.where(RECALL_THRESHOLDS <= 0.5, 1, 2 / 3)
    np.testing.assert_allclose(
        result.precision_over_recall[:, :, 0], np.tile(expected_curve, (10, 1)), rtol=0, atol=1e-12
    )


def test_a_loose_box_counts_up_to_its_overlap():
    result = evaluate(one_class([[0, 0, 100, 100]]), [detection([0, 0, 62, 100], 0.9)])  # IoU 0.62
    expected = (pytest.approx(0.3, abs=1e-12), 1.0, 0.0)
    assert expected == (result.AP, result.AP50, result.AP75)
    assert np.count_nonzero(IOU_THRESHOLDS <= 0.62) == 3


def test_no_detections_is_zero():
    result = evaluate(one_class([[0, 0, 50, 50]]), [])
    assert (result.AP, result.AP50, result.AR_100, result.AP_medium) == (0, 0, 0, 0)
    assert math.isnan(result.AP_large)


def test_nothing_to_find_is_nan():
    truth = one_class([])
    for detections in ([], [detection([0, 0, 5, 5], 0.5)]):
        result = evaluate(truth, detections)
        assert all(map(math.isnan, result.numbers().values()))
        assert np.isnan(result.precision_over_recall).all()
        assert result.per_class[0].boxes == 0


def test_crowds_are_no_boxes_to_find_and_forgive_detections():
    truth = one_class([[0, 0, 50, 50], [100, 100, 200, 200]])
    truth["annotations"][1]["iscrowd"] = 1
    inside_the_crowd = [detection([110, 110, 20, 20], 0.9), detection([150, 150, 20, 20], 0.9)]
    result = evaluate(truth, [*inside_the_crowd, detection([0, 0, 50, 50], 0.5)])
    assert (result.AP, result.per_class[0].boxes) == (1.0, 1)


def test_detections_in_an_image_without_boxes_count_as_wrong():
    truth = one_class([[0, 0, 50, 50]])
    right, wrong = detection([0, 0, 50, 50], 0.5), {**detection([0, 0, 9, 9], 0.9), "image_id": 2}
    half = pytest.approx(0.5, abs=1e-12)
    assert evaluate(truth, [right, wrong]).numbers()["AP"] == half
    assert evaluate(truth, [right, wrong], image_ids=[1]).numbers()["AP"] == 1
    assert math.isnan(evaluate(truth, [right, wrong], image_ids=[]).AP)


def test_annotation_ids_do_not_matter():
    truth, detections = random_case(2)
    expected = evaluate(truth, detections).numbers()
    for number, row in enumerate(truth["annotations"]):
        row["id"] = number // 2  # zero, and not unique
    assert evaluate(truth, detections).numbers() == pytest.approx(expected, abs=0, nan_ok=True)


def test_ids_of_detections_do_not_matter_either():
    truth, found = one_class([[0, 0, 50, 50], [100, 100, 50, 50]]), []
    for number, box in enumerate([[0, 0, 50, 50], [100, 100, 50, 50]]):
        found.append(detection(box, 0.5, id=number // 2, area=0, iscrowd=1))
    result = evaluate(truth, found)
    assert (result.AP, result.AP_medium) == (1, 1)


def test_a_missing_area_is_that_of_the_box():
    truth = one_class([[0, 0, 20, 20]])
    del truth["annotations"][0]["area"], truth["annotations"][0]["iscrowd"]
    result = evaluate(truth, [detection([0, 0, 20, 20], 0.5)])
    assert result.AP_small == 1
    assert math.isnan(result.AP_medium)


def test_arguments_stay_as_they_were_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    truth, detections = random_case(3)
    before = copy.deepcopy((truth, detections))
    evaluate(truth, detections)
    assert (truth, detections) == before
    assert capfd.readouterr() == ("", "")


def test_per_class_numbers_average_to_the_whole_and_follow_category_ids():
    truth, detections = random_case(4)
    result = evaluate(truth, detections)
    assert [row.name for row in result.per_class] == [f"class {k}" for k in range(CLASSES)]
    assert math.isnan(result.per_class[-1].AP)
    # A mean of means of equally many numbers: only the order of summation differs.
    assert np.nanmean([row.AP for row in result.per_class]) == pytest.approx(result.AP, abs=1e-12)
    assert np.nanmean([row.AP50 for row in result.per_class]) == pytest.approx(result.AP50, abs=1e-12)
    counted = sum(not row["iscrowd"] for row in truth["annotations"])
    assert sum(row.boxes for row in result.per_class) == counted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "image_id 9"),
        ({"category_id": 4}, "category_id 4"),
        ({"score": math.nan}, "image 1 is not finite"),
        ({"bbox": [0, 0, math.inf, 1]}, "image 1 is not finite"),
    ],
)
def test_bad_detections_are_named(change: dict[str, Any], message: str):
    truth = one_class([[0, 0, 50, 50]])
    with pytest.raises(DataError, match=message):
        evaluate(truth, [detection([0, 0, 5, 5], 0.5), {**detection([0, 0, 5, 5], 0.5), **change}])


def test_unknown_images_and_missing_categories_are_named():
    with pytest.raises(DataError, match="image 7"):
        evaluate(one_class([]), [], image_ids=[1, 7])
    with pytest.raises(DataError, match="no categories"):
        evaluate({**one_class([]), "categories": []}, [])


def found(class_ids: list[int]) -> Detections:
    boxes = np.array([[1.00049, 2, 11, 22.00051]] * len(class_ids), np.float32).reshape(-1, 4)
    scores = np.full(len(class_ids), 0.123456, np.float32)
    return Detections(boxes, scores, np.array(class_ids, np.int32), names=("a", "b"))


def test_rows_of_a_results_file():
    rows = to_coco_json(found([1, 0]), image_id=42, category_ids=(1, 90))
    # x1 = 1.00049 and y2 = 22.00051 show the three decimals of boxes; sizes are taken before rounding.
    expected = {"image_id": 42, "category_id": 90, "bbox": [1.0, 2.0, 10.0, 20.001], "score": 0.12346}
    assert rows == [expected, {**expected, "category_id": 1}]
    assert json.loads(json.dumps(rows)) == rows
    assert to_coco_json(found([]), image_id=1, category_ids=(1,)) == []


def test_a_class_that_the_data_has_not_is_named():
    with pytest.raises(DataError, match="class 1 but the data has 1 classes"):
        to_coco_json(found([1]), image_id=1, category_ids=(1,))


@pytest.mark.shared
def test_the_truth_detects_itself(shared):
    truth = json.loads((shared / "coco128/instances.json").read_text())
    copied = ("image_id", "category_id", "bbox")
    detections = [{**{key: row[key] for key in copied}, "score": 0.9} for row in truth["annotations"]]
    result = evaluate(truth, detections)
    assert result.AP == 1
    assert sum(row.boxes for row in result.per_class) == len(truth["annotations"])

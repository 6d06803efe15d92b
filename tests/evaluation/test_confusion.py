import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.evaluation.confusion import confusion_matrix, objects_by_image
from yolov7_jax.types import Detections

BACKGROUND = 3  # of three classes


def found(*rows: tuple[list[float], float, int]) -> Detections:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return Detections(boxes, scores, np.array([row[2] for row in rows], np.int32), names=("a", "b", "c"))


def matrix(detections: Detections, *objects: tuple[list[float], int], **options: float) -> np.ndarray:
    boxes = np.array([row[0] for row in objects], np.float32).reshape(-1, 4)
    classes = np.array([row[1] for row in objects], np.int32)
    return confusion_matrix(detections, boxes, classes, num_classes=3, **options)


def cells(counts: np.ndarray) -> dict[tuple[int, int], int]:
    return {(int(i), int(j)): int(counts[i, j]) for i, j in np.argwhere(counts)}


LEFT, RIGHT, FAR = [0, 0, 10, 10], [100, 0, 110, 10], [500, 0, 510, 10]


def test_right_confused_missed_and_invented():
    detections = found((LEFT, 0.9, 0), (RIGHT, 0.8, 2), (FAR, 0.7, 1))
    counts = matrix(detections, (LEFT, 0), (RIGHT, 1), ([0, 100, 10, 110], 2))
    assert cells(counts) == {(0, 0): 1, (2, 1): 1, (1, BACKGROUND): 1, (BACKGROUND, 2): 1}


def test_one_object_takes_the_largest_overlap_whatever_class_and_score():
    loose, tight = ([0, 0, 10, 8], 0.9, 0), (LEFT, 0.5, 1)
    assert cells(matrix(found(loose, tight), (LEFT, 0))) == {(1, 0): 1, (0, BACKGROUND): 1}


def test_a_detection_whose_object_is_taken_goes_to_its_next_object():
    # The first detection fits both objects; the second, tighter, takes the one that the first prefers.
    first, second = ([0, 0, 10, 9], 0.9, 0), ([0, 0, 10, 9.9], 0.8, 1)
    counts = matrix(found(first, second), (LEFT, 0), ([0, 2, 10, 12], 2))
    assert cells(counts) == {(1, 0): 1, (0, 2): 1}


def test_a_tie_goes_to_the_higher_score():
    counts = matrix(found((LEFT, 0.5, 1), (LEFT, 0.6, 2)), (LEFT, 0))
    assert cells(counts) == {(2, 0): 1, (1, BACKGROUND): 1}


def test_both_thresholds_are_exclusive():
    half = [0, 0, 10, 5]  # IoU 0.5 with LEFT
    hit, miss = {(0, 0): 1}, {(BACKGROUND, 0): 1}
    assert cells(matrix(found((LEFT, 0.25, 0)), (LEFT, 0))) == miss
    assert cells(matrix(found((LEFT, 0.25, 0)), (LEFT, 0), confidence=0.24)) == hit
    assert cells(matrix(found((half, 0.9, 0)), (LEFT, 0), iou=0.5)) == {(0, BACKGROUND): 1, **miss}
    assert cells(matrix(found((half, 0.9, 0)), (LEFT, 0))) == hit


@pytest.mark.parametrize("detections", [found(), found((LEFT, 0.9, 1))])
def test_images_without_objects(detections: Detections):
    assert cells(matrix(detections)) == ({(1, BACKGROUND): 1} if len(detections) else {})


def test_objects_of_a_ground_truth_by_image():
    rows = [
        {"image_id": 9, "category_id": 90, "bbox": [1, 2, 3.5, 4]},
        {"image_id": 9, "category_id": 1, "bbox": [5, 5, 9, 9], "iscrowd": 1},
        {"image_id": 9, "category_id": 1, "bbox": [5, 5, 9, 0], "iscrowd": 0},
        {"image_id": 9, "category_id": 1, "bbox": [5, 5, 0, 9], "iscrowd": 0},
        {"image_id": 9, "category_id": 3, "bbox": [10, 10, 10, 10], "iscrowd": 0},
    ]
    objects = objects_by_image({"images": [{"id": 9}, {"id": 4}], "annotations": rows}, (1, 3, 90))
    boxes, classes_of_nine = objects[9]
    assert (boxes.tolist(), classes_of_nine.tolist()) == ([[1, 2, 4.5, 6], [10, 10, 20, 20]], [2, 1])
    assert [array.dtype for array in objects[9]] == [np.float32, np.int32]
    assert [array.shape for array in objects[4]] == [(0, 4), (0,)]


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def brute_force(detections: list, objects: list) -> dict[tuple[int, int], int]:
    sure = sorted((row for row in detections if row[1] > 0.25), key=lambda row: -row[1])
    free = list(objects)
    counts: dict[tuple[int, int], int] = {}
    while True:
        pairs = [(overlap(d[0], o[0]), -n, -m) for n, d in enumerate(sure) for m, o in enumerate(free) if d and o]
        best = max(pairs, default=(0.0, 0, 0))
        if best[0] <= 0.45:
            break
        n, m = -best[1], -best[2]
        counts[sure[n][2], free[m][1]] = counts.get((sure[n][2], free[m][1]), 0) + 1
        sure[n] = free[m] = None
    for row in filter(None, sure):
        counts[row[2], BACKGROUND] = counts.get((row[2], BACKGROUND), 0) + 1
    for row in filter(None, free):
        counts[BACKGROUND, row[1]] = counts.get((BACKGROUND, row[1]), 0) + 1
    return counts


boxes = st.builds(
    lambda x, y, w, h: [x, y, x + w, y + h], st.integers(0, 6), st.integers(0, 6), st.integers(1, 8), st.integers(1, 8)
)
classes = st.integers(0, 2)
rows = st.lists(st.tuples(boxes, st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.9]), classes), max_size=7)


@given(detections=rows, objects=st.lists(st.tuples(boxes, classes), max_size=6))
def test_equals_picking_the_best_free_pair_again_and_again(detections: list, objects: list):
    counts = matrix(found(*detections), *objects)
    assert cells(counts) == brute_force(detections, objects)
    per_class = [sum(row[1] == k for row in objects) for k in range(3)]
    assert counts[:, :BACKGROUND].sum(axis=0).tolist() == per_class

"""What is the same detection, and what is a difference: by hand."""

import numpy as np
import pytest

from yolov7_jax.artefacts.proof import Differences, Found, Tolerance, compare_detections, largest_difference
from yolov7_jax.errors import DifferenceError

TOLERANCE = Tolerance(1e-3, 0.1, 0.2)
BOX, FAR = [10.0, 10, 50, 50], [100.0, 100, 140, 140]


def found(*rows: tuple[list[float], float, int]) -> Found:
    boxes, scores, class_ids = zip(*rows, strict=True) if rows else ((), (), ())
    return Found(np.reshape(np.float32(boxes), (-1, 4)), np.float32(scores), np.int32(class_ids))


def compare(source: Found, other: Found, capacity: int = 300) -> Differences:
    return compare_detections(source, other, confidence=0.25, iou=0.45, capacity=capacity, tolerance=TOLERANCE)


def test_the_same_in_another_order_is_the_same() -> None:
    source = found((BOX, 0.9, 0), (FAR, 0.8, 1))
    assert compare(source, found((FAR, 0.8, 1), (BOX, 0.9, 0))) == Differences(0.0, 0.0, 0.0, 2, 0)
    assert compare(found(), found()) == Differences()


def test_the_largest_differences_of_pairs_are_told() -> None:
    moved = [10.25, 10, 50, 49.5]
    measured = compare(found((BOX, 0.9, 0), (FAR, 0.8, 1)), found((moved, 0.875, 0), (FAR, 0.8, 1)))
    assert measured == Differences(pytest.approx(0.025, rel=1e-6), 0.5, 0.5, 2, 0)
    for tolerance, word in (
        (Tolerance(0.02, 1.0, 1.0), "scores"),
        (Tolerance(0.1, 0.4, 1.0), "boxes"),
        (Tolerance(0.1, 1.0, 0.4), "boxes"),
    ):
        with pytest.raises(DifferenceError, match=f"detections: {word} differ from those of the source by up to 0"):
            measured.check(tolerance, "detections")
    measured.check(Tolerance(0.03, 0.5, 0.5), "detections")


@pytest.mark.parametrize(
    ("source", "other", "words"),
    [
        (found((BOX, 0.9, 0)), found(), "does not find an object of class 0 with score 0.9000"),
        (found(), found((BOX, 0.9, 2)), "alone finds an object of class 2"),
        (found((BOX, 0.9, 0)), found((BOX, 0.9, 1)), "does not find an object of class 0"),  # another class
        (found((BOX, 0.9, 0)), found((FAR, 0.9, 0)), "does not find"),  # another place
        (found((BOX, 0.9, 0), (BOX, 0.9, 0)), found((BOX, 0.9, 0)), None),  # tied with its partner's
        (found((BOX, 0.252, 0)), found(), "does not find"),  # over the threshold by more than the tolerance
    ],
)
def test_what_one_side_alone_finds_is_a_difference(source: Found, other: Found, words: str | None) -> None:
    if words is None:
        assert compare(source, other).set_aside == 1
        return
    with pytest.raises(DifferenceError, match=words):
        compare(source, other)


def test_scores_at_a_threshold_and_ties_are_set_aside() -> None:
    assert compare(found((BOX, 0.2505, 0)), found()) == Differences(set_aside=1)
    assert compare(found(), found((BOX, 0.2505, 0))) == Differences(set_aside=1)
    shifted = [20.0, 10, 60, 50]  # IoU 0.6: one suppresses the other, and which is a matter of rounding
    assert compare(found((BOX, 0.8, 0)), found((shifted, 0.8005, 0))) == Differences(set_aside=2)
    with pytest.raises(DifferenceError):
        compare(found((BOX, 0.8, 0)), found((shifted, 0.803, 0)))
    # room for two, and the second is cut off at its score
    full = found((BOX, 0.9, 0), (FAR, 0.5, 0)), found((BOX, 0.9, 0), ([200.0, 200, 240, 240], 0.5005, 0))
    assert compare(*full, capacity=2) == Differences(detections=1, set_aside=2)
    with pytest.raises(DifferenceError):
        compare(*full, capacity=3)


def test_overlaps_at_the_threshold_are_set_aside() -> None:
    """Boxes of 40 px whose edges may be 0.1 px off: IoU may be 0.01 off."""
    for shift, close in ((15.3, True), (16.5, False)):  # IoU 0.447, 0.416
        both = found((BOX, 0.9, 0), ([10 + shift, 10, 50 + shift, 50], 0.5, 0))
        one = found((BOX, 0.9, 0))
        for sides in ((both, one), (one, both)):
            if close:
                assert compare(*sides) == Differences(detections=1, set_aside=1)
            else:
                with pytest.raises(DifferenceError):
                    compare(*sides)
    exact = Tolerance(0, 0, 0)
    touching = found((BOX, 0.9, 0), ([25.3, 10, 65.3, 50], 0.5, 0)), found((BOX, 0.9, 0))
    with pytest.raises(DifferenceError):
        compare_detections(*touching, confidence=0.25, iou=0.45, capacity=300, tolerance=exact)


def test_what_is_no_number_is_an_infinite_difference() -> None:
    assert largest_difference(np.zeros(3), np.float32([0, -0.5, 0.25])) == 0.5
    assert largest_difference(np.zeros(3), np.float32([0, np.nan, 0])) == np.inf
    assert largest_difference(np.zeros(3), np.zeros(4)) == np.inf
    with pytest.raises(DifferenceError):
        Differences(np.inf).check(TOLERANCE, "before suppression")
    with pytest.raises(DifferenceError):
        Differences(np.nan).check(TOLERANCE, "before suppression")

"""`Detections` as a list of objects that are chosen as rows of arrays are."""

from __future__ import annotations

import numpy as np
import pytest

from yolov7_jax.types import Detection, Detections

BOXES = np.arange(12, dtype=np.float32).reshape(3, 4)


def three(**more: object) -> Detections:
    scores, class_ids = np.array([0.9, 0.5, 0.3], np.float32), np.array([2, 0, 2], np.int32)
    return Detections(BOXES, scores, class_ids, ("ant", "bee", "cat"), **more)  # type: ignore[arg-type]


def test_a_place_gives_one_object() -> None:
    found = three(track_ids=np.array([7, 8, 9], np.int32))
    assert isinstance(found[-1], Detection)
    assert found[-1][1:] == (pytest.approx(0.3), 2, "cat", 9)
    assert found[0].box_xyxy_px.tolist() == [0, 1, 2, 3]
    assert [one.label for one in found] == ["cat", "ant", "cat"]
    assert three()[np.int64(1)].track_id is None
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize("which", [slice(1, None), np.array([False, True, True]), [1, 2], [False, True, True]])
def test_rows_are_chosen_as_those_of_arrays(which: object) -> None:
    found = three(overflow=4, track_ids=np.array([7, 8, 9], np.int32))[which]  # type: ignore[call-overload]
    assert found.boxes_xyxy_px.tolist() == BOXES[1:].tolist()
    assert found.labels == ("ant", "cat")
    assert (found.names, found.overflow, found.track_ids.tolist()) == (("ant", "bee", "cat"), 4, [8, 9])


def test_no_places_give_nothing() -> None:
    assert len(three()[[]]) == len(three()[three().scores > 1]) == 0
    assert three()[[]].boxes_xyxy_px.shape == (0, 4)


def test_a_short_text_counts_the_classes() -> None:
    assert repr(three()) == "<Detections: 2 cat, 1 ant>"
    assert repr(three()[[]]) == "<Detections: nothing found>"

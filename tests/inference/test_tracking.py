import math
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.inference.moving_scenes import NAMES, SCENES, Scene, detect
from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.inference.tracking import LOW_CONFIDENCE, Tracker
from yolov7_jax.types import Detections


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(InstallationError, match=r"install it: pip install 'yolov7-jax\[track\]'"):
        Tracker()


def test_nothing_of_the_library_is_imported_before_it_is_used():
    program = "import yolov7_jax.inference.tracking, sys; print({'trackers', 'supervision', 'av'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


pytest.importorskip("trackers", reason="pip install 'yolov7-jax[track]'")


def detections(*rows):
    """Of rows left, top, right, bottom, score, class."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int32), NAMES)


def square(x, score=0.9, class_id=0, y=100):
    """40 pixels wide and high."""
    return x, y, x + 40, y + 40, score, class_id


def ids(tracker, *rows, **options):
    return tracker.update(detections(*rows), **options).track_ids.tolist()


def iou(boxes, others):
    """[n, m], by definition."""
    low, high = np.maximum(boxes[:, None, :2], others[None, :, :2]), np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = (high - low).clip(0).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    return inside / (areas[0][:, None] + areas[1] - inside)


def measure(scene: Scene, tracker: Tracker, seed: int, **faults):
    """IDF1 (Ristani et al. 2016) and identity switches (Bernardin and Stiefelhagen 2008), by the package trackers."""
    from trackers.eval import compute_clear_metrics, compute_identity_metrics

    rng, truth, found, overlaps = np.random.default_rng(seed), [], [], []
    for frame, seen in enumerate(scene.seen):
        tracked = tracker.update(detect(rng, scene, frame, **faults))
        same_class = scene.class_ids[seen][:, None] == tracked.class_ids
        truth.append(np.flatnonzero(seen))
        found.append(tracked.track_ids)
        overlaps.append(np.where(same_class, iou(scene.boxes[frame][seen], tracked.boxes_xyxy_px), 0))
    switches = compute_clear_metrics(truth, found, overlaps)["IDSW"]
    return compute_identity_metrics(truth, found, overlaps)["IDF1"], switches


def test_the_oracle_agrees_with_a_case_counted_by_hand():
    # Two objects over four frames. Object 0 is track 1, then track 2 for one frame; object 1 is track 3, missed once,
    # and a track 4 is of nothing. Best matching: 0-1 (3 frames), 1-3 (3): IDTP 6 of 8 true and 8 found boxes.
    from trackers.eval import compute_clear_metrics, compute_identity_metrics

    truth = [np.array([0, 1])] * 4
    found = [np.array([1, 3]), np.array([1, 3]), np.array([1, 4]), np.array([2, 3])]
    overlaps = [np.eye(2), np.eye(2), np.diag([1.0, 0.0]), np.eye(2)]
    counted = compute_identity_metrics(truth, found, overlaps)
    assert (counted["IDTP"], counted["IDFP"], counted["IDFN"]) == (6, 2, 2)
    assert counted["IDF1"] == 2 * 6 / (8 + 8)
    assert compute_clear_metrics(truth, found, overlaps)["IDSW"] == 1


@pytest.mark.parametrize("name", SCENES)
def test_objects_keep_their_numbers(name):
    scene = SCENES[name]
    idf1, switches = measure(scene, Tracker(fps=scene.fps), seed=0)
    # 7 % of the objects are missed, which leaves an IDF1 of at most 2 · 0.93 / 1.93 = 0.964.
    assert idf1 > 0.9
    assert switches <= 1


def test_of_detections_without_faults_all_are_tracked():
    scene = SCENES["crossing"]
    idf1, switches = measure(scene, Tracker(fps=scene.fps, confidence=0), seed=0, jitter=0, missed=0, false=0)
    boxes = scene.seen.sum()
    # But those of the first frame, in which none of the twelve has a number yet.
    assert idf1 == pytest.approx(2 * (boxes - 12) / (2 * boxes - 12))
    assert switches == 0


def test_detections_stay_what_they_are():
    @dataclass(frozen=True, eq=False, repr=False)
    class Mine(Detections):
        path: str = ""

    tracker = Tracker()
    found = Mine(**vars(detections(square(300, 0.5), square(0, 0.9), square(600, 0.7))), path="a.jpg")
    found = replace(found, overflow=7)
    tracker.update(found)
    tracked = tracker.update(found)
    assert (type(tracked), tracked.path, tracked.overflow, tracked.names) == (Mine, "a.jpg", 7, NAMES)
    assert tracked.track_ids.dtype == np.int32
    np.testing.assert_array_equal(tracked.scores, np.float32([0.9, 0.7, 0.5]))
    np.testing.assert_array_equal(tracked.boxes_xyxy_px, found.boxes_xyxy_px[[1, 2, 0]])
    assert sorted(tracked.track_ids) == [1, 2, 3]
    assert [one.track_id for one in tracked] == tracked.track_ids.tolist()


def test_a_single_false_detection_has_no_number():
    tracker = Tracker(min_frames=3)
    assert ids(tracker, square(0)) == []
    assert ids(tracker, square(1)) == []
    assert ids(tracker, square(2), square(500)) == [1]
    assert ids(tracker) == []
    assert ids(tracker, square(4)) == [1]


def test_detections_that_score_low_carry_objects_on_but_start_none():
    tracker = Tracker(confidence=0.5, lost_seconds=0.2)
    for x in range(0, 20, 2):
        tracker.update(detections(square(x), square(x + 600, LOW_CONFIDENCE)))
    for x in range(20, 60, 2):
        assert ids(tracker, square(x, 0.15), square(x + 600, 0.49)) == [1]
    assert ids(tracker, square(60)) == [1]


def test_objects_of_different_classes_are_different_objects():
    tracker, numbers = Tracker(), set()
    for x in range(0, 100, 5):  # at the same place, now the one first, now the other
        rows = [square(x), square(x, class_id=1)]
        tracked = tracker.update(detections(*rows[:: -1 if x % 2 else 1]))
        numbers |= {(one.class_id, one.track_id) for one in tracked}
    assert len(tracked) == 2
    assert numbers in ({(0, 1), (1, 2)}, {(0, 2), (1, 1)})


@pytest.mark.parametrize(("agnostic", "expected"), [(False, 2), (True, 1)])
def test_an_object_may_change_its_class_where_that_is_asked_for(agnostic, expected):
    tracker = Tracker(agnostic=agnostic)
    for x in range(0, 50, 5):
        tracker.update(detections(square(x, class_id=2)))
    for x in range(50, 100, 5):
        last = ids(tracker, square(x, class_id=1))
    assert last == [expected]


def test_a_class_has_the_same_tracks_wherever_it_stands():
    person, last = Tracker(), Tracker()
    rng, scene = np.random.default_rng(0), SCENES["blinking"]
    for frame in range(60):
        found = detect(rng, scene, frame)
        of_last = replace(found, class_ids=found.class_ids + 999, names=("",) * 1000)
        np.testing.assert_array_equal(person.update(found).track_ids, last.update(of_last).track_ids)


@pytest.mark.parametrize(("frames", "expected"), [(10, 1), (1, 2)])
def test_objects_move_on_while_frames_are_dropped(frames, expected):
    tracker = Tracker()
    for frame in range(8):
        ids(tracker, square(15 * frame))
    ids(tracker, square(15 * 17), frames=frames)
    assert ids(tracker, square(15 * 18)) == [expected]


def test_a_source_that_drops_every_second_frame_still_has_objects():
    tracker = Tracker(fps=60)
    found = [ids(tracker, square(4 * frame), frames=2) for frame in range(0, 100, 2)]
    assert found == [[]] + [[1]] * 49


@pytest.mark.parametrize("fps", [0.5, 5, 10, 29.97, 30, 60])
@pytest.mark.parametrize(
    ("lost", "missing", "expected"), [(0, 0, 1), (0, 0.1, 2), (1, 0.9, 1), (1, 1.1, 2), (0.2, 0.3, 2)]
)
def test_how_long_an_object_may_be_missing_is_in_seconds(fps, lost, missing, expected):
    tracker = Tracker(fps=fps, lost_seconds=lost)
    for _ in range(4):
        ids(tracker, square(0))
    for _ in range(math.floor(missing * fps) if expected == 1 else math.ceil(missing * fps)):
        assert ids(tracker) == []
    ids(tracker, square(0))
    assert ids(tracker, square(0)) == [expected]


def test_a_long_pause_ends_all_objects():
    tracker = Tracker(fps=25)
    for _ in range(3):
        ids(tracker, square(0))
    assert ids(tracker, square(0), frames=1e300) == []
    assert ids(tracker, square(0)) == [2]


def test_numbers_begin_at_1_in_every_tracker_and_after_reset():
    first, second = Tracker(), Tracker()
    for _ in range(2):
        of_first = ids(first, square(0), square(500))
        of_second = ids(second, square(900))
    assert (sorted(of_first), of_second) == ([1, 2], [1])
    first.reset()
    assert ids(first, square(0)) == []
    assert ids(first, square(0)) == [1]
    assert ids(second, square(900)) == [1]


EDGES = [0.0, 1.0, 50.0, 1e6, 1e30, -1e30, -40.0, np.inf, -np.inf, np.nan]
numbers = st.one_of(st.sampled_from(EDGES), st.floats(-2000, 2000, width=32))


@st.composite
def frames(draw):
    """Detections with boxes of all kinds: the same twice, no area, upside down, huge, not finite, none."""
    count = draw(st.integers(0, 6))
    boxes = draw(arrays(np.float32, (count, 4), elements=numbers))
    scores = draw(arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    classes = draw(arrays(np.int32, count, elements=st.integers(0, 2)))
    again = draw(st.integers(1, 3))  # so that something has a number
    return Detections(boxes, scores, classes, NAMES), again, draw(st.sampled_from([1, 0.5, 3, 1e9]))


@settings(max_examples=50)
@given(st.lists(frames(), max_size=8), st.booleans())
def test_boxes_of_all_kinds_are_tracked_or_left_out(sequence, agnostic):
    tracker = Tracker(confidence=0.3, agnostic=agnostic)
    for found, again, gap in sequence:
        before = [array.tobytes() for array in (found.boxes_xyxy_px, found.scores, found.class_ids)]
        for _ in range(again):
            tracked = tracker.update(found, frames=gap)
            assert len({*tracked.track_ids.tolist()}) == len(tracked)
            assert (tracked.track_ids >= 1).all()
            assert (np.diff(tracked.scores) <= 0).all()
            rows = [(box.tobytes(), score, kind) for box, score, kind, *_ in found]
            for box, score, kind, *_ in tracked:
                rows.remove((box.tobytes(), score, kind))  # the detector's own, each at most once
        assert [array.tobytes() for array in (found.boxes_xyxy_px, found.scores, found.class_ids)] == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fps": 0}, "fps of a tracker must be from 0.001 to 1e+06, got 0"),
        ({"fps": float("nan")}, "fps of a tracker must be from 0.001 to 1e+06, got nan"),
        ({"confidence": 1.5}, "confidence of a tracker must be from 0 to 1, got 1.5"),
        ({"iou": 0}, "iou of a tracker must be from 0.01 to 1, got 0"),
        ({"lost_seconds": -1}, "lost_seconds of a tracker must be from 0 to 3600, got -1"),
        ({"min_frames": 0}, "min_frames of a tracker must be from 1 to 1000, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, sentence):
    with pytest.raises(InputError) as raised:
        Tracker(**options)
    assert str(raised.value) == sentence


@pytest.mark.parametrize("frames", [0, -1, float("nan")])
def test_time_goes_on(frames):
    with pytest.raises(InputError, match=r"frames must be at least 0\.001, as time passes between two updates"):
        Tracker().update(detections(), frames=frames)

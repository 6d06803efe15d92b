import itertools
import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.types import Detections
from yolov7_jax.viz.draw import Trails, class_color, draw_boxes, draw_detections, relative_luminance, text_color


def detections(*rows, names=("dog", "cat")):
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int32), names)


def painted(image, found, **options):
    """The image and where it changed, as (top, bottom, left, right) with ends excluded."""
    canvas = draw_detections(image, found, **options)
    rows, columns = np.nonzero((canvas != image).any(axis=2))
    return canvas, (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


@pytest.mark.parametrize("thickness", [1, 3])
def test_the_frame_has_the_color_of_its_class_and_lies_within_the_box(thickness):
    image = np.full((200, 300, 3), 90, np.uint8)
    canvas, (_, bottom, left, right) = painted(image, detections([40, 80, 200, 180, 0.5, 1]), thickness=thickness)
    frame = np.ones((100, 160), bool)
    frame[thickness:-thickness, thickness:-thickness] = False
    box = canvas[80:180, 40:200]
    assert (box[frame] == class_color(1)).all()
    assert (box[~frame] == 90).all()
    assert (bottom, left, right) == (180, 40, 200)


def test_the_image_given_is_left_alone():
    image = np.zeros((50, 50, 3), np.uint8)
    canvas = draw_detections(image, detections([5, 30, 40, 45, 0.9, 0]))
    assert not image.any()
    assert canvas.any()
    view = np.zeros((100, 50, 3), np.uint8)[::2]
    np.testing.assert_array_equal(draw_detections(view, detections([5, 30, 40, 45, 0.9, 0])), canvas)


def test_where_asked_to_it_is_drawn_on():
    found = tracked(detections([5, 30, 40, 45, 0.9, 0]), 4)
    on_copies, on_itself, itself = Trails(), Trails(), np.zeros((50, 50, 3), np.uint8)
    for _ in range(2):
        image = itself.copy()
        assert on_itself.draw(itself, found, copy=False) is itself
        expected = on_copies.draw(image, found)
        np.testing.assert_array_equal(itself, expected)
        assert draw_detections(itself, found, copy=False) is itself
        np.testing.assert_array_equal(itself, draw_detections(expected, found))


def test_nothing_found_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(draw_detections(image, detections()), image)


@pytest.mark.parametrize(
    ("box", "label"),
    [
        ((50, 100, 150, 180), (100, 50)),  # on top of the box, from its left edge
        ((50, 0, 150, 180), None),  # at the upper edge: inside the box
        ((190, 100, 200, 180), (100, 200)),  # at the right edge: moved left, as far as need be
    ],
)
def test_the_label_is_whole_and_in_the_image(box, label):
    image = np.full((200, 200, 3), 7, np.uint8)
    reference, (above, _, start, end) = painted(image, detections([0, 150, 1, 199, 0.87, 0]))
    height, width = 150 - above, end - start
    text = reference[above:150, start:end]
    canvas, (top, _, left, _) = painted(image, detections([*box, 0.87, 0]))
    assert width > 1
    if label is None:
        assert top == 0
        np.testing.assert_array_equal(canvas[:height, box[0] : box[0] + width], text)
    else:
        bottom, edge = label
        first = edge if edge == box[0] else edge - width
        assert (top, left) == (bottom - height, first)
        np.testing.assert_array_equal(canvas[top:bottom, first : first + width], text)


def test_a_label_shows_name_and_score():
    image = np.zeros((60, 200, 3), np.uint8)
    pictures = [
        draw_detections(image, detections([10, 40, 100, 55, score, 0], names=(name,)))
        for name, score in (("dog", 0.87), ("dig", 0.87), ("dog", 0.88), ("dog", 0.8749))
    ]
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0] != pictures[2]).any()
    np.testing.assert_array_equal(pictures[0], pictures[3])


@pytest.mark.parametrize(("name", "written"), [("Déjà vu", "Deja vu"), ("猫", "?"), ("a\nb\x7f", "a?b?"), ("", "")])
def test_letters_that_the_font_lacks(name, written):
    image = np.zeros((60, 200, 3), np.uint8)
    pictures = [
        draw_detections(image, detections([10, 40, 100, 55, 0.5, 0], names=(unicodedata.normalize(form, each),)))
        for form, each in (("NFC", name), ("NFD", name), ("NFC", written))
    ]
    np.testing.assert_array_equal(pictures[0], pictures[2])
    np.testing.assert_array_equal(pictures[1], pictures[2])


def test_the_better_detection_lies_on_top():
    image = np.zeros((100, 100, 3), np.uint8)
    canvas = draw_detections(image, detections([10, 40, 90, 90, 0.5, 1], [10, 40, 90, 90, 0.5, 0], names=("a", "a")))
    assert (canvas[89, 10:90] == class_color(1)).all()
    assert not (canvas == class_color(0)).all(axis=2).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (5, 5)])
def test_tiny_images(shape):
    image = np.zeros((*shape, 3), np.uint8)
    boxes = [[0, 0, shape[1], shape[0], 0.9, 0], [0.2, 0.2, 0.3, 0.3, 0.8, 1], [shape[1], shape[0]] * 2 + [0.7, 0]]
    assert draw_detections(image, detections(*boxes)).shape == image.shape


def test_a_box_without_area_is_seen():
    canvas = draw_detections(np.zeros((90, 90, 3), np.uint8), detections([5, 70.2, 80, 70.3, 0.5, 1]), thickness=3)
    assert (canvas[70, 5:80] == class_color(1)).all()
    assert not canvas[71:].any()


def test_many_boxes_in_and_outside_the_image():
    rng = np.random.default_rng(0)
    low = rng.uniform(-500, 800, (1000, 2))
    rows = np.concatenate([low, low + rng.uniform(0, 600, (1000, 2)), rng.uniform(0, 1, (1000, 2)).round()], axis=1)
    assert draw_detections(np.zeros((300, 400, 3), np.uint8), detections(*rows)).any()


def test_a_box_far_larger_than_the_image_frames_it():
    canvas = draw_detections(np.zeros((80, 90, 3), np.uint8), detections([-9e30, -9e30, 9e30, 9e30, 0.5, 1]))
    assert all((edge == class_color(1)).all() for edge in (canvas[-1], canvas[:, 0], canvas[20:, -1]))


def test_lines_and_labels_grow_with_the_image():
    heights = []
    for side in (320, 640, 1280, 2560):
        image = np.zeros((side, side, 3), np.uint8)
        canvas, (top, _, _, _) = painted(image, detections([side // 4, side // 2, side // 2, side, 0.5, 0]))
        line = (canvas[side * 3 // 4, side // 4 : side * 3 // 8] == class_color(0)).all(axis=1).sum()
        assert line == round(side / 300)
        heights.append(side // 2 - top)
    assert heights == sorted(heights)
    assert heights[-1] > 3 * heights[0]


def test_text_is_legible_on_the_color_of_every_class():
    for class_id in range(100):
        background = class_color(class_id)
        lights = sorted(map(relative_luminance, (background, text_color(background))))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5  # the contrast that WCAG 2 asks of text (level AA)


@pytest.mark.parametrize(
    ("color", "luminance"),
    [((0, 0, 0), 0), ((255, 255, 255), 1), ((255, 0, 0), 0.2126), ((119, 119, 119), 0.1845), ((10, 10, 10), 0.00304)],
)
def test_luminance_of_known_colors(color, luminance):
    assert relative_luminance(color) == pytest.approx(luminance, rel=2e-3)  # the hand values have three digits or more


def test_colors_are_stable_and_distinct():
    assert class_color(0) == (255, 38, 38)
    colors = [np.array(class_color(class_id)) for class_id in range(100)]
    distance = [(np.abs(a - b).max(), j - i) for (i, a), (j, b) in itertools.combinations(enumerate(colors), 2)]
    assert min(far for far, _ in distance) >= 8  # no two alike
    assert min(far for far, apart in distance if apart <= 8) >= 45  # classes that stand together differ plainly


def tracked(found, *track_ids):
    return replace(found, track_ids=np.array(track_ids, np.int32))


def test_a_tracked_object_has_its_number_in_the_label_and_its_color():
    image, found = np.zeros((120, 200, 3), np.uint8), detections([20, 50, 150, 110, 0.87, 1])
    canvas = draw_detections(image, tracked(found, 3))
    named = draw_boxes(image, found.boxes_xyxy_px, np.array([3]), ["cat 3 0.87"])
    np.testing.assert_array_equal(canvas, named)
    assert (canvas[109, 20:150] == class_color(3)).all()


def test_trails_lead_through_the_last_centers_of_each_object_in_its_color():
    image = np.full((100, 200, 3), 9, np.uint8)
    trails = Trails(frames=3)
    # Object 2 moves right, 30 pixels a frame, at y 20; object 5 stands at (100, 80), and is gone in the last frame.
    for step in range(5):
        moving, standing = [30 * step, 10, 30 * step + 20, 30, 0.9, 0], [90, 70, 110, 90, 0.8, 0]
        found = tracked(detections(moving, standing), 2, 5)
        canvas = trails.draw(image, found[:1] if step == 4 else found, thickness=3)
    row = (canvas[20] == class_color(2)).all(axis=1)
    assert row[72:129].all()  # centers 70, 100 and 130
    assert not row[:66].any()
    assert not row[134:].any()
    assert (canvas[80, 100] == class_color(5)).all()
    assert (image == 9).all()
    for _ in range(3):
        canvas = trails.draw(image, tracked(detections()))
    assert (canvas == 9).all()


def test_trails_stay_in_the_image_and_need_numbers():
    image = np.zeros((50, 50, 3), np.uint8)
    trails = Trails()
    for box in ([-1e9, -1e9, 1, 1], [20, 20, 30, 30], [5, 5, 1e30, 1e30]):
        assert trails.draw(image, tracked(detections([*box, 0.9, 0]), 1)).shape == image.shape
    with pytest.raises(InputError, match=r"trails need detections with track_ids; give those that Tracker\.update"):
        trails.draw(image, detections())
    with pytest.raises(InputError, match="frames of a trail must be at least 1, got 0"):
        Trails(0)

import numpy as np
import pytest

from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Issue, Labels
from yolov7_jax.viz.draw import class_color
from yolov7_jax.viz.labels import LabeledImage, draw_labels, left_out
from yolov7_jax.viz.sheet import GAP, HEADING, PAPER

NAMES = ["ant", "bee"]
TOP = GAP + 2 * HEADING  # of the first image, below its two lines


def labels(*boxes: tuple[float, float, float, float], class_ids: tuple[int, ...] = (), **more: object) -> Labels:
    return Labels(
        size=(400, 400),
        class_ids=np.array(class_ids, np.int32),
        boxes_xyxy_px=np.array(boxes, float).reshape(-1, 4),
        **more,
    )


def drawn(one: Labels, *, size: tuple[int, int] = (400, 400), name: str = "a.jpg") -> np.ndarray:
    """The drawing of an image that was all black, without the headings."""
    sheet = draw_labels([LabeledImage(name, np.zeros((*size, 3), np.uint8), one)], NAMES)
    return sheet[TOP:-GAP, GAP:-GAP]


def test_frames_are_drawn_in_the_color_of_their_class() -> None:
    picture = drawn(labels((50, 60, 150, 200), (200, 60, 300, 200), class_ids=(0, 1)))
    for left, class_id in ((50, 0), (200, 1)):
        assert (picture[60:200, left] == class_color(class_id)).all()
        assert (picture[199, left : left + 100] == class_color(class_id)).all()
    assert not picture[70:190, 60:140].any()


@pytest.mark.parametrize(("side", "factor"), [(400, 1), (100, 4), (1280, 0.5)])
def test_everything_is_scaled_with_the_image(side: int, factor: float) -> None:
    outline = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75]]) * side
    ignored = np.array([[0.1, 0.5, 0.2, 0.9]]) * side
    one = labels(
        (0.25 * side, 0.25 * side, 0.75 * side, 0.75 * side),
        class_ids=(1,),
        polygons=as_polygons([[outline]]),
        ignored_class_ids=np.zeros(1, np.int32),
        ignored_boxes_xyxy_px=ignored,
    )
    picture = drawn(one, size=(side, side))
    shown = round(side * factor)
    assert picture.shape[:2] == (shown, shown)
    # The diagonal of the triangle passes through the center; nothing else is drawn there.
    middle = shown // 2
    assert (picture[middle - 1 : middle + 2, middle] == class_color(1)).all(axis=-1).any()
    assert not picture[round(0.7 * shown), round(0.3 * shown)].any()  # the half of the box without the triangle
    dashes = picture[round(0.55 * shown) : round(0.85 * shown), round(0.1 * shown)]
    assert {tuple(color) for color in dashes.tolist()} == {(0, 0, 0), (255, 255, 255)}


def test_objects_without_polygons_have_no_outline() -> None:
    polygons = as_polygons([[], [np.array([[200, 200], [300, 200], [300, 300.0]])]])
    boxes = ((20, 20, 120, 120), (200, 200, 300, 300))
    picture = drawn(labels(*boxes, class_ids=(0, 1), polygons=polygons))
    assert not picture[40:110, 30:110].any()
    assert (picture[250] == class_color(1)).all(axis=-1).sum() >= 3  # both sides and the diagonal


def test_left_out_are_counted_together() -> None:
    assert left_out(labels(duplicates=1, empty=2, unlisted=4, issues=(Issue("error", "a", "b"),) * 3)) == 10


def test_a_narrow_image_has_room_for_its_headings() -> None:
    sheet = draw_labels([LabeledImage("x" * 300, np.zeros((400, 20, 3), np.uint8), labels())], NAMES)
    assert sheet.shape[1] == 320 + 2 * GAP
    assert (sheet[TOP:, GAP + 20 :] == PAPER).all()


def test_headings_tell_images_apart() -> None:
    long = "a" * 60
    sheets = [
        draw_labels([LabeledImage(long + end, np.zeros((400, 400, 3), np.uint8), one)], NAMES)
        for end, one in (("1", labels()), ("2", labels()), ("1", labels(duplicates=1)), ("1", labels(missing=True)))
    ]
    assert len({sheet.tobytes() for sheet in sheets}) == 4
    assert all((sheet[TOP:] == sheets[0][TOP:]).all() for sheet in sheets)

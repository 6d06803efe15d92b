import numpy as np
import pytest

from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Batch, Candidates, Detections, Issue, Labels, Sample
from yolov7_jax.viz.draw import class_color, draw_detections
from yolov7_jax.viz.sheet import (
    GAP,
    HEADING,
    MOST_IMAGES,
    PAPER,
    LabeledImage,
    draw_batch,
    draw_comparison,
    draw_labels,
    left_out,
)

NAMES = ("dog", "cat", "cow")


def batch_of(count: int, side: int, *boxes: tuple[int, int, int, int, int], padded: int = 0) -> Batch:
    """Images of one gray value each, all with the same boxes (cx, cy, w, h, class), and padding that is not valid."""
    images = np.repeat(np.arange(count, dtype=np.uint8), side * side * 3).reshape(count, side, side, 3)
    rows = np.array([*boxes, *[(side / 2, side / 2, side / 2, side / 2, 2)] * padded], np.float32).reshape(-1, 5)
    valid = np.arange(len(rows)) < len(boxes)
    repeated = (np.repeat(part[None], count, axis=0) for part in (rows[:, :4], rows[:, 4].astype(np.int32), valid))
    return batch(images, *repeated)


def batch(images: np.ndarray, *labeled: np.ndarray) -> Batch:
    none = Candidates(np.zeros(0, np.int32), np.zeros(0, bool))
    return Batch(images, *labeled, fine=none, coarse=None, overflow=np.zeros(0), index=np.zeros(0))


def cell_of(sheet: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    top, left = GAP + row * (side + GAP), GAP + column * (side + GAP)
    return sheet[top : top + side, left : left + side]


def frame_of(image: np.ndarray, class_id: int) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((image == class_color(class_id)).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def sample_of(height: int, width: int, *boxes: tuple[float, float, float, float, int]) -> Sample:
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return Sample(np.full((height, width, 3), 90, np.uint8), rows[:, :4], rows[:, 4].astype(np.int32), 0)


def found_in(sample: Sample, score: float = 0.5) -> Detections:
    scores = np.full(len(sample.class_ids), score, np.float32)
    return Detections(sample.boxes_xyxy_px, scores, sample.class_ids, NAMES)


@pytest.mark.parametrize(("count", "grid"), [(1, (1, 1)), (3, (1, 3)), (6, (2, 4)), (20, (4, 4))])
def test_images_are_in_rows_in_their_order(count, grid):
    sheet = draw_batch(batch_of(count, 400), NAMES)
    assert sheet.shape == (grid[0] * (400 + GAP) + GAP, grid[1] * (400 + GAP) + GAP, 3)
    shown = min(count, MOST_IMAGES)
    for number in range(grid[0] * grid[1]):
        row, column = divmod(number, grid[1])
        assert (cell_of(sheet, row, column, 400) == (number if number < shown else PAPER)).all()
    assert (sheet[:GAP] == PAPER).all()
    assert (sheet[:, -GAP:] == PAPER).all()


@pytest.mark.parametrize(("side", "cell"), [(160, 320), (150, 450), (320, 320), (640, 640), (1280, 640)])
def test_boxes_keep_their_place_when_images_are_resized(side, cell):
    box = (side // 2, side // 2, side // 5, side // 5 * 2, 1)
    sheet = draw_batch(batch_of(1, side, box, padded=2), NAMES)
    picture = cell_of(sheet, 0, 0, cell)
    scale = cell / side
    center_x, center_y, width, height = (value * scale for value in box[:4])
    left, _, right, bottom = frame_of(picture[round(center_y) :], 1)
    # Corners are rounded to whole pixels.
    assert (left, right) == pytest.approx((center_x - width / 2, center_x + width / 2), abs=0.5)
    assert bottom + round(center_y) == pytest.approx(center_y + height / 2, abs=0.5)
    assert not (picture == class_color(2)).all(axis=2).any()  # padding is not drawn


def test_small_images_keep_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (1, 160, 160, 3), np.uint8)
    empty = np.zeros((1, 0, 4), np.float32), np.zeros((1, 0), np.int32), np.zeros((1, 0), bool)
    picture = cell_of(draw_batch(batch(images, *empty), NAMES), 0, 0, 320)
    np.testing.assert_array_equal(picture[::2, ::2], images[0])
    np.testing.assert_array_equal(picture[1::2, 1::2], images[0])


def test_labels_name_the_classes():
    one, other = (
        draw_batch(batch_of(1, 320, (160, 200, 100, 100, 0)), (name, "cat", "cow")) for name in ("dog", "dig")
    )
    assert (one != other).any()


def test_no_images_make_an_empty_sheet():
    assert draw_batch(batch_of(0, 320), NAMES).shape == (GAP, 2 * GAP, 3)


def test_truth_is_left_and_predictions_are_right():
    sample = sample_of(400, 500, (50, 100, 150, 300, 0))
    found = found_in(sample_of(400, 500, (200, 60, 300, 350, 1)), 0.87)
    sheet = draw_comparison([sample], [found], NAMES)
    assert sheet.shape == (2 * GAP + HEADING + 400, 2 * GAP + 2 * 500 + GAP // 4, 3)
    left, right = sheet[GAP + HEADING : -GAP, GAP : GAP + 500], sheet[GAP + HEADING : -GAP, -GAP - 500 : -GAP]
    assert frame_of(left[150:], 0) == (50, 0, 150, 150)
    assert not (left == class_color(1)).all(axis=2).any()
    np.testing.assert_array_equal(right, draw_detections(sample.image, found))
    headings = sheet[GAP : GAP + HEADING, GAP : GAP + 500], sheet[GAP : GAP + HEADING, -GAP - 500 : -GAP]
    assert all((heading < 100).any() for heading in headings)  # something is written
    assert (headings[0] != headings[1]).any()


def test_pairs_of_several_sizes_are_in_rows():
    samples = [sample_of(*size, (10, 10, 60, 60, 0)) for size in ((320, 320), (640, 320), (160, 80))]
    sheet = draw_comparison(samples, [found_in(sample) for sample in samples], NAMES)
    cell = HEADING + 640 + GAP, 2 * 320 + GAP // 4 + GAP
    assert sheet.shape == (2 * cell[0] + GAP, 2 * cell[1] + GAP, 3)
    small = sheet[cell[0] + GAP + HEADING :, GAP:]  # doubled in size, and its boxes with it
    for start in (0, 160 + GAP // 4):
        assert frame_of(small[80:320, start : start + 160], 0) == (20, 0, 120, 40)
    assert (sheet[cell[0] + GAP :, cell[1] + GAP :] == PAPER).all()  # the fourth place is free


def test_truth_and_predictions_belong_together():
    with pytest.raises(ValueError, match="zip"):
        draw_comparison([sample_of(320, 320)], [], NAMES)


def test_what_is_given_is_left_alone():
    given = batch_of(2, 400, (200, 200, 100, 100, 0))
    copies = [array.copy() for array in given[:4]]
    draw_batch(given, NAMES)
    for array, copy in zip(given[:4], copies, strict=True):
        np.testing.assert_array_equal(array, copy)


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

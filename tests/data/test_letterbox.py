import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.data.letterbox import GRAY, fit, letterbox, rectangle
from yolov7_jax.image import read_image

SIDES = st.integers(1, 3000)
SIZES = st.integers(1, 40).map(lambda cells: cells * 32)


@pytest.mark.parametrize(
    ("source", "size", "options", "content", "offset", "shape"),
    [
        ((480, 640), 640, {"auto": False}, (480, 640), (80, 0), (640, 640)),
        ((480, 640), 640, {"auto": True}, (480, 640), (0, 0), (480, 640)),
        ((720, 1280), 640, {"auto": True}, (360, 640), (12, 0), (384, 640)),
        ((720, 1280), (320, 640), {"auto": False}, (320, 569), (0, 35), (320, 640)),  # 71 spare: 35 left, 36 right
        ((100, 50), 640, {"auto": False}, (640, 320), (0, 160), (640, 640)),
        ((427, 640), 640, {"auto": True}, (427, 640), (10, 0), (448, 640)),  # 21 spare: 10 above
        ((400, 640), 640, {"auto": True, "stride": 64}, (400, 640), (24, 0), (448, 640)),
        ((1, 1), 64, {"auto": True}, (64, 64), (0, 0), (64, 64)),
        ((10_000, 10), 640, {"auto": True}, (640, 1), (0, 15), (640, 32)),
        ((10, 10_000), 640, {"auto": False}, (1, 640), (319, 0), (640, 640)),
    ],
)
def test_geometry_by_hand(source, size, options, content, offset, shape):
    geometry = fit(source, size, **options)
    assert (geometry.source, geometry.content, geometry.offset, geometry.shape) == (source, content, offset, shape)


def test_undo_by_hand():
    # 427 × 640 in 448 × 640: 21 rows to spare, which undo takes as 10.5 and 10.5
    assert np.array_equal(fit((427, 640), 640, auto=True).undo(np.array([[3, 12.5, 5, 20.5]])), [[3, 2, 5, 10]])
    # 773 wide to 640: a scale of 640/773, 512 · 640/773 = 423.9 rows, 24.1 to spare
    geometry = fit((512, 773), 640, auto=True)
    expected = [[773 / 2, (100 - (448 - 512 * 640 / 773) / 2) * 773 / 640, 773, 512]]
    assert np.allclose(geometry.undo(np.array([[320.0, 100, 640, 999]])), expected, rtol=1e-12)


@pytest.mark.shared
def test_shapes_of_the_reference(shared):
    recorded = json.loads((shared / "goldens" / "detect" / "yolov5n_coco.json").read_text())
    for name, facts in recorded["images"].items():
        image, geometry = letterbox(read_image(shared / "images" / name), 640, auto=True)
        assert geometry.source == tuple(facts["original"])
        assert geometry.shape == image.shape[:2] == tuple(facts["letterboxed"])


@given(SIDES, SIDES, SIZES, SIZES, st.booleans())
def test_the_content_lies_within_and_has_the_aspect_of_the_source(h, w, height, width, auto):
    geometry = fit((h, w), (height, width), auto=auto)
    scale = min(height / h, width / w)
    for axis, (side, limit) in enumerate(((h, height), (w, width))):
        content, offset, total = geometry.content[axis], geometry.offset[axis], geometry.shape[axis]
        assert content == 1 or abs(content - side * scale) <= 0.5
        assert 0 <= offset <= total - content - offset <= offset + 1
        assert (total % 32 == 0 and total - content < 32) if auto else total == limit
        assert total <= limit


@given(SIDES, SIDES, SIZES, st.booleans(), st.integers(0, 2**32 - 1))
def test_undo_inverts_resizing_and_shifting(h, w, size, auto, seed):
    geometry = fit((h, w), size, auto=auto)
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (2, 20, 2)), axis=0)
    boxes = np.concatenate(list(corners), axis=1) * [w, h, w, h]
    scale = size / max(h, w)
    pad = [(geometry.shape[1] - w * scale) / 2, (geometry.shape[0] - h * scale) / 2]
    boxed = boxes * scale + pad * 2
    np.testing.assert_allclose(geometry.undo(boxed), boxes, rtol=0, atol=1e-9)  # float64 of numbers up to 3000
    single = geometry.undo(boxed.astype(np.float32))
    assert single.dtype == np.float32
    # float32 of coordinates up to `size` is off by size / 2**24, which the scale of at most h / 1 or w / 1 enlarges
    np.testing.assert_allclose(single, boxes, rtol=1e-6, atol=4 * size / 2**24 * max(1 / scale, 1))


def test_undo_clips_to_the_source():
    geometry = fit((100, 200), 640, auto=False)
    boxes = np.float32([[-50, -50, 700, 700], [0, 160, 640, 480], [10, 10, 20, 20]])
    np.testing.assert_array_equal(geometry.undo(boxes), np.float32([[0, 0, 200, 100]] * 2 + [[3.125, 0, 6.25, 0]]))
    assert geometry.undo(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(("h", "w"), [(90, 200), (333, 77), (40, 40), (20, 10), (1, 1), (5000, 3), (3, 5000)])
@pytest.mark.parametrize("auto", [True, False])
def test_pixels_are_resized_content_on_gray(h, w, auto):
    image = np.random.default_rng(h).integers(0, 256, (h, w, 3), np.uint8)
    boxed, geometry = letterbox(image, 96, auto=auto)
    (content_h, content_w), (top, left) = geometry.content, geometry.offset
    assert boxed.dtype == np.uint8
    assert boxed.shape == (*geometry.shape, 3)
    content = boxed[top : top + content_h, left : left + content_w]
    np.testing.assert_array_equal(content, cv2.resize(image, (content_w, content_h)))
    border = np.ones(geometry.shape, bool)
    border[top : top + content_h, left : left + content_w] = False
    assert (boxed[border] == GRAY).all()


def test_an_object_drawn_in_the_source_is_found_where_undo_says():
    image = np.zeros((300, 500, 3), np.uint8)
    image[60:180, 100:400] = 255
    boxed, geometry = letterbox(image, 320, auto=True)
    rows, columns = np.nonzero(boxed[..., 0] > 200)
    found = np.float32([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    # the edges of a shrunk object are sharp to one pixel of the letterbox, 1.6 pixels of the source
    np.testing.assert_allclose(geometry.undo(found), [[100, 60, 400, 180]], rtol=0, atol=1.6)


def test_by_area_shrinking_averages_and_enlarging_is_bilinear():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::4] = 255
    shrunk, _ = letterbox(stripes, 16, auto=False, resize="area")
    assert (shrunk == 64).all()  # each pixel is the mean of one white and three black rows, 63.75
    assert not (letterbox(stripes, 16, auto=False)[0] == 64).all()
    enlarged = [letterbox(stripes[:8, :8], 32, auto=False, resize=resize)[0] for resize in ("linear", "area")]
    np.testing.assert_array_equal(*enlarged)
    untouched, _ = letterbox(stripes, 64, auto=False, resize="area")
    np.testing.assert_array_equal(untouched, stripes)


def test_by_area_sides_are_cut_and_boxes_go_back_by_the_factor_of_each():
    geometry = fit((381, 500), 640, auto=False, resize="area")  # 381 · 1.28 = 487.68
    assert (geometry.content, geometry.offset, geometry.pad) == ((487, 640), (76, 0), (76.5, 0))
    np.testing.assert_allclose(geometry.undo(np.array([[0, 76.5, 640, 563.5]])), [[0, 0, 500, 381]], rtol=1e-12)
    assert fit((381, 500), 640, auto=False).content == (488, 640)


@pytest.mark.parametrize("source", [(720, 1280), (1280, 720), (333, 500), (64, 31), (50, 50)])
@pytest.mark.parametrize("auto", [True, False])
def test_a_hot_cell_lies_where_its_box_lies(source, auto):
    """In the source the center of what it heats is that of its pixels in the letterbox, which boxes are undone by."""
    geometry = fit(source, 320, auto=auto)
    stride = 32
    rows, columns = (side // stride for side in geometry.shape)
    for row, column in ((rows // 2, columns // 2), (rows // 2, columns // 2 - 1), (rows // 2 - 1, columns // 2)):
        cells = np.zeros((rows, columns))
        cells[row, column] = 1
        box = np.array([[column, row, column + 1, row + 1]]) * float(stride)
        left, top, right, bottom = geometry.undo(box)[0]
        heat = geometry.undo_cells(cells)
        assert heat.shape == source
        assert heat.dtype == np.float32
        hottest = np.argwhere(heat == heat.max()).mean(axis=0) + 0.5
        pixel = 1 / geometry.scale
        inside = left > 0 and right < source[1] and top > 0 and bottom < source[0]
        tolerance = pixel if inside else stride * pixel  # of the letterbox; what is cut off has its middle elsewhere
        assert np.abs(hottest - [(top + bottom) / 2, (left + right) / 2]).max() <= tolerance + 0.5
        outside = heat.copy()
        side = stride * pixel
        outside[max(int(top - side), 0) : int(bottom + side) + 1, max(int(left - side), 0) : int(right + side) + 1] = 0
        assert not outside.any()


def test_between_cells_values_change_evenly_and_beyond_them_not():
    geometry = fit((32, 64), 64, auto=False)  # 16 rows of padding above and below, cells of 16 pixels
    cells = np.arange(4.0)[None, :] + 10 * np.arange(4.0)[:, None]
    heat = geometry.undo_cells(cells)
    assert np.allclose(heat[8, :8], heat[8, 0])
    for y, x in ((0, 8), (20, 33), (31, 55)):
        expected = ((x + 0.5) / 16 - 0.5) + 10 * ((y + 0.5 + 16) / 16 - 0.5)
        assert heat[y, x] == pytest.approx(expected, abs=1e-5)


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.sampled_from([(640, 32), (1280, 64), (64, 8), (320, 32)])
)
def test_five_rectangles_hold_every_image(source: tuple[int, int], size_and_stride: tuple[int, int]) -> None:
    size, stride = size_and_stride
    shape = rectangle(source, size, stride)
    shorts = {-(-6 * size // (10 * stride)) * stride, -(-3 * size // (4 * stride)) * stride, size}
    assert max(shape) == size
    assert min(shape) in shorts
    exact = fit(source, size, stride=stride, auto=True)
    few = fit(source, shape, stride=stride, auto=False)
    assert few.scale == exact.scale
    assert few.content == exact.content
    assert all(side >= own for side, own in zip(shape, exact.shape, strict=True))
    assert min(shape) == min(side for side in shorts if side >= min(exact.content))

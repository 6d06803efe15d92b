import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.drawn_polygons import lies_in, random_polygon
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.geometry import random_warp
from yolov7_jax.data.letterbox import GRAY, letterbox
from yolov7_jax.data.mosaic import mosaic, place
from yolov7_jax.data.render import render
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Sample

SIZE = 96
SHAPES = ((96, 64), (60, 96), (96, 96), (96, 30))  # long side: the size
CENTER = (110, 77)
UPRIGHT = AugmentConfig(scale=0.5, translate=0.2)
TURNED = AugmentConfig(scale=0.4, translate=0.2, degrees=40, shear=10, perspective=0.0008)
SLOPE = 3.2  # greatest change of a wave from one pixel to the next: 50 · 2π / 100 px


def waves(shape, phase):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    angles = 2 * np.pi / 100 * np.stack([columns, rows, (columns + rows) / 2], axis=-1) + phase
    return np.round(128 + 50 * np.sin(angles)).astype(np.uint8)


def sample(shape, phase=0.0, boxes=(), name=0):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = waves(shape, phase)
    image.flags.writeable = boxes.flags.writeable = False
    return Sample(image, boxes, np.arange(len(boxes), dtype=np.int32) + 10 * name, name)


def centerd(one, canvas):
    height, width = one.image.shape[:2]
    return [place(one, (canvas - width) // 2, (canvas - height) // 2, canvas=canvas)]


def four():
    rng = np.random.default_rng(3)
    samples = []
    for index, (height, width) in enumerate(SHAPES):
        corners = np.sort(rng.uniform(0, 1, (6, 2, 2)), axis=1).reshape(6, 4) * (width, height, width, height)
        samples.append(sample((height, width), 1.5 * index, corners, index))
    return samples


def upper_left(shape, index, center):
    x, y = center
    return [(x - shape[1], y - shape[0]), (x, y - shape[0]), (x - shape[1], y), (x, y)][index]


def on_a_canvas(samples, center, size):
    """The canvas itself, and whose each of its pixels is (-1: nobody's)."""
    wide = 8 * size  # room for what the canvas proper cuts off
    canvas, owner = np.full((wide, wide, 3), GRAY, np.uint8), np.full((wide, wide), -1)
    for index, one in enumerate(samples):
        x, y = (3 * size + n for n in upper_left(one.image.shape, index, center))
        area = np.s_[y : y + one.image.shape[0], x : x + one.image.shape[1]]
        canvas[area], owner[area] = one.image, index
    proper = np.s_[3 * size : 5 * size, 3 * size : 5 * size]
    return canvas[proper], owner[proper]


def by_canvas(samples, center, warp, size):
    """The mosaic of the canvas way, whose each of its pixels is, and which of them are far from any seam."""
    canvas, owner = on_a_canvas(samples, center, size)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts from the middle of the first pixel
    image = cv2.warpPerspective(
        canvas, np.linalg.inv(half) @ warp @ half, (size, size), flags=cv2.INTER_LINEAR, borderValue=(GRAY,) * 3
    )
    centers = np.stack([*(np.mgrid[:size, :size][::-1] + 0.5), np.ones((size, size))], axis=-1) @ np.linalg.inv(warp).T
    x, y = centers[..., 0] / centers[..., 2], centers[..., 1] / centers[..., 2]

    def owner_at(dx, dy):
        column, row = np.floor(x + dx).astype(int), np.floor(y + dy).astype(int)
        inside = (column >= 0) & (column < 2 * size) & (row >= 0) & (row < 2 * size) & (centers[..., 2] > 0)
        return np.where(inside, owner[row.clip(0, 2 * size - 1), column.clip(0, 2 * size - 1)], -1)

    def alone(reach):
        around = [owner_at(dx, dy) for dx in (-reach, 0, reach) for dy in (-reach, 0, reach)]
        return np.all([other == around[0] for other in around], axis=0)

    return image, owner_at(0, 0), alone


def random_case(seed, config):
    rng = np.random.default_rng(seed)
    center = tuple(int(n) for n in rng.integers(SIZE // 2, 3 * SIZE // 2, 2, endpoint=True))
    warp, scale = random_warp(rng, config, canvas=(2 * SIZE, 2 * SIZE), size=(SIZE, SIZE))
    return center, warp, scale


@pytest.mark.parametrize("seed", range(12))
def test_turned_mosaic_is_that_of_the_canvas_way(seed):
    samples = four()
    center, warp, scale = random_case(seed, TURNED)
    ours = render(mosaic(samples, center, canvas=2 * SIZE), warp, scale, size=(SIZE, SIZE)).image
    theirs, owner, alone = by_canvas(samples, center, warp, SIZE)
    error = np.abs(ours.astype(int) - theirs)
    # Both are bilinear; OpenCV may take places in steps of 1/32 pixel (two axes, both ways), and each rounds once.
    # Bilinear colors reach one pixel far: nearer to a seam the canvas mixes neighbors, which the tiles do not.
    assert error[alone(1.01)].max() <= 2 * 2 * SLOPE / 64 + 1
    assert (ours[(owner == -1) & alone(1e-3)] == GRAY).all()
    # Up to the seam, a pixel has a color of its own tile: what lies within one pixel of its place there.
    for index in range(4):
        own = (owner == index) & alone(1e-3)
        single = [one if n == index else one._replace(image=np.zeros_like(one.image)) for n, one in enumerate(samples)]
        assert np.array_equal(
            render(mosaic(single, center, canvas=2 * SIZE), warp, scale, size=(SIZE, SIZE)).image[own], ours[own]
        )


@pytest.mark.parametrize("seed", range(12))
def test_upright_mosaic_is_within_a_pixel_of_the_canvas_way(seed):
    samples = four()
    center, warp, scale = random_case(seed, UPRIGHT)
    ours = render(mosaic(samples, center, canvas=2 * SIZE), warp, scale, size=(SIZE, SIZE)).image
    theirs, owner, alone = by_canvas(samples, center, warp, SIZE)
    error = np.abs(ours.astype(int) - theirs)
    # Adjusted by half a pixel of the source, or of the image, along both axes; and as above.
    shift = max(0.5, 0.5 / scale)
    assert error[alone(1.01)].max() <= 2 * SLOPE * shift + 2 * 2 * SLOPE / 64 + 1
    assert (ours[(owner == -1) & alone(1e-3)] == GRAY).all()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("config", [UPRIGHT, TURNED, AugmentConfig(scale=0.9, translate=0.5)])
def test_each_pixel_belongs_to_the_tile_at_its_center(seed, config):
    center, warp, scale = random_case(seed, config)
    flat = [
        Sample(np.full((*shape, 3), 50 * n, np.uint8), *one[1:])
        for n, (shape, one) in enumerate(zip(SHAPES, four(), strict=True))
    ]
    ours = render(mosaic(flat, center, canvas=2 * SIZE), warp, scale, size=(SIZE, SIZE)).image
    _, owner, alone = by_canvas(flat, center, warp, SIZE)
    expected = np.where(owner < 0, GRAY, 50 * owner)[..., None]
    certain = alone(1e-3)  # places are kept in single precision
    assert certain.mean() > 0.99
    assert (ours == expected)[certain].all()


@pytest.mark.parametrize(("zoom", "x", "y"), [(1, -48, -48), (1, 0, 0), (1, -77, -13), (2, -200, -160), (2, -96, -96)])
def test_whole_pixels_are_not_adjusted(zoom, x, y):
    samples = four()
    warp = np.array([[zoom, 0, x], [0, zoom, y], [0, 0, 1.0]])
    ours = render(mosaic(samples, CENTER, canvas=2 * SIZE), warp, zoom, size=(SIZE, SIZE))
    theirs, _, alone = by_canvas(samples, CENTER, warp, SIZE)
    # the same places; resize works in steps of 1/2048 and rounds twice, warps in steps of 1/32
    assert np.abs(ours.image.astype(int) - theirs)[alone(1.01)].max() <= (0 if zoom == 1 else 1)
    boxes, class_ids = analytic_boxes(samples, CENTER, warp, zoom)
    assert np.array_equal(ours.boxes_xyxy_px, boxes.astype(np.float32))
    assert np.array_equal(ours.class_ids, class_ids)


def analytic_boxes(samples, center, warp, scale):
    """Boxes and classes of a mosaic, corner by corner."""
    boxes, class_ids = [], []
    for index, one in enumerate(samples):
        left, top = upper_left(one.image.shape, index, center)
        for box, class_id in zip(one.boxes_xyxy_px.astype(float), one.class_ids, strict=True):
            x0, y0, x1, y1 = np.clip(box + np.array([left, top, left, top]), 0, 2 * SIZE)
            corners = [warp @ (x, y, 1) for x in (x0, x1) for y in (y0, y1)]
            places = np.array([corner[:2] / corner[2] for corner in corners])
            out = np.clip([*places.min(axis=0), *places.max(axis=0)], 0, SIZE)
            width, height = out[2] - out[0], out[3] - out[1]
            if min(width, height) <= 2 or max(width, height) >= 20 * min(width, height):
                continue
            if width * height > 0.1 * (x1 - x0) * (y1 - y0) * scale**2:
                boxes.append(out)
                class_ids.append(class_id)
    return np.array(boxes).reshape(-1, 4), np.array(class_ids, int)


@pytest.mark.parametrize("seed", range(30))
def test_labels_of_turned_mosaics(seed):
    samples = four()
    center, warp, scale = random_case(seed, TURNED)
    ours = render(mosaic(samples, center, canvas=2 * SIZE), warp, scale, size=(SIZE, SIZE))
    boxes, class_ids = analytic_boxes(samples, center, warp, scale)
    assert np.array_equal(ours.class_ids, class_ids)
    assert np.allclose(ours.boxes_xyxy_px, boxes, rtol=0, atol=1e-5)  # single precision of 96: 4e-6
    assert ours.id == 0


@pytest.mark.parametrize("seed", range(30))
def test_labels_of_upright_mosaics_are_within_a_pixel(seed):
    samples = four()
    center, warp, scale = random_case(seed, UPRIGHT)
    ours = render(mosaic(samples, center, canvas=2 * SIZE), warp, scale, size=(SIZE, SIZE))
    boxes, class_ids = analytic_boxes(samples, center, warp, scale)
    found = dict(zip(ours.class_ids.tolist(), ours.boxes_xyxy_px, strict=True))
    sure = {name: box for name, box in zip(class_ids.tolist(), boxes, strict=True) if (box[2:] - box[:2]).min() > 20}
    assert sure.keys() <= found.keys()  # small ones may be over a limit with one map and not with the other
    for name, box in sure.items():
        # half a pixel of the image, or half a pixel of the source, which is half the scale; and single precision
        assert np.abs(found[name] - box).max() <= max(0.5, 0.5 * scale) + 1e-4


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 2.1))
@settings(max_examples=60)
def test_ramps_show_where_pixels_come_from_and_labels_follow(seed, zoom):
    # the first channel counts columns, the second rows, in steps of 2: colors give places to a quarter of a pixel
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    image = np.stack([2 * columns, 2 * rows, np.full_like(rows, 255)], axis=-1).astype(np.uint8)
    box = np.array([[20, 30, 70, 60]], np.float32)
    one = Sample(image, box, np.zeros(1, np.int32), 0)
    x, y = rng.uniform(-30, 30, 2)
    warp = np.array([[zoom, 0, x], [0, zoom, y], [0, 0, 1]])
    out = render(centerd(one, canvas=SIZE), warp, zoom, size=(SIZE, SIZE))
    shown = out.image[..., 2] == 255
    inside = (out.image[..., :2] >= 2 * box[0, :2]) & (out.image[..., :2] <= 2 * (box[0, 2:] - 1))
    if not len(out.boxes_xyxy_px):
        return
    low, high = out.boxes_xyxy_px[0, :2], out.boxes_xyxy_px[0, 2:]
    found_rows, found_columns = np.nonzero(shown & inside.all(axis=-1))
    # the middles of such pixels come from between the middles of the box's outer pixels: half a pixel inside it
    assert found_columns.min() + 0.5 >= low[0]
    assert found_columns.max() + 0.5 <= high[0]
    assert found_rows.min() + 0.5 >= low[1]
    assert found_rows.max() + 0.5 <= high[1]
    # and the next pixel outside lies at most half a source pixel, a pixel, and a quarter's step of color inside
    slack = 1 + 0.75 * zoom
    assert found_columns.min() <= low[0] + slack
    assert found_columns.max() + 1 >= high[0] - slack
    assert found_rows.min() <= low[1] + slack
    assert found_rows.max() + 1 >= high[1] - slack


@pytest.mark.parametrize("shape", [(96, 96), (60, 96), (96, 33), (1, 96), (96, 1)])
def test_a_single_image_that_is_not_warped_is_a_letterbox(shape):
    one = sample(shape, boxes=[[0, 0, shape[1], shape[0]]])
    out = render(centerd(one, canvas=SIZE), np.eye(3), 1.0, size=(SIZE, SIZE))
    expected, geometry = letterbox(one.image, SIZE, auto=False)
    assert np.array_equal(out.image, expected)
    if min(shape) > 20:
        top, left = geometry.offset
        assert out.boxes_xyxy_px.tolist() == [[left, top, left + shape[1], top + shape[0]]]
    else:
        assert len(out.boxes_xyxy_px) == 0  # a pixel wide


@pytest.mark.parametrize("turn", [0.0, 1e-3])
def test_nothing_to_see(turn):
    away = np.array([[1, turn, 5000], [0, 1, 0], [0, 0, 1]])
    out = render(mosaic(four(), CENTER, canvas=2 * SIZE), away, 1.0, size=(SIZE, SIZE))
    assert (out.image == GRAY).all()
    assert out.boxes_xyxy_px.shape == (0, 4)


def test_behind_the_horizon_is_gray():
    # w = 1 - x / 100: the canvas right of x = 100 is behind
    warp = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    one = sample((96, 96), boxes=[[0, 0, 96, 96]])
    out = render(centerd(one, canvas=SIZE), warp, 1.0, size=(SIZE, SIZE))
    assert (out.image[0] != GRAY).any()
    assert out.boxes_xyxy_px.tolist() == [[0, 0, 96, 96]]
    # the tiles at x = 110 … 192 are all behind: divided by their negative w, their points would lie in the image
    far = np.array([[1.0, 0, -200], [0, 1, -200], [-0.01, 0, 1]])
    behind = render(mosaic([one] * 4, (110, 96), canvas=2 * SIZE)[1::2], far, 1.0, size=(SIZE, SIZE))
    assert (behind.image == GRAY).all()
    assert len(behind.boxes_xyxy_px) == 0


@pytest.mark.parametrize("turn", [0.0, 1e-9])
def test_what_the_canvas_cuts_off_does_not_count_for_a_label(turn):
    # 96 wide at x = -46: the canvas shows 50 of it and the image the last 6, an eighth of 50 but a sixteenth of 96
    one = sample((96, 96), boxes=[[0, 0, 96, 96]])
    tiles = mosaic([sample((96, 96)), sample((96, 96)), one], (50, 96), canvas=2 * SIZE)
    warp = np.array([[1, turn, -44], [0, 1, -96], [0, 0, 1]])
    assert render(tiles, warp, 1.0, size=(SIZE, SIZE)).boxes_xyxy_px == pytest.approx(
        np.array([[0, 0, 6, 96]]), abs=1e-5
    )


def darkened(one):
    return one._replace(image=np.zeros_like(one.image))


@pytest.mark.parametrize("config", [UPRIGHT, TURNED])
@pytest.mark.parametrize("seed", range(15))
def test_what_an_outline_marked_is_where_its_box_says(config, seed):
    rng = np.random.default_rng(seed)
    samples = []
    for name, (height, width) in enumerate(SHAPES):
        polygon = random_polygon(rng, np.array([width, height]) / 2, 0.7 * min(width, height), corners=9)
        middles = np.stack(np.mgrid[:height, :width][::-1], axis=-1) + 0.5
        image = np.where(lies_in(middles, [polygon])[..., None], 250, 10).astype(np.uint8).repeat(3, axis=-1)
        box = np.array([[*polygon.min(axis=0), *polygon.max(axis=0)]], np.float32)
        samples.append(Sample(image, box, np.array([name], np.int32), name, as_polygons([[polygon]])))
    center, warp, scale = random_case(seed, config)
    tiles = mosaic(samples, center, canvas=2 * SIZE)
    loose = 0.0
    marked = render(tiles, warp, scale, size=(SIZE, SIZE))
    checked = 0
    for number, tile in enumerate(tiles):
        dark = [other if other is tile else other._replace(sample=darkened(other.sample)) for other in tiles]
        image = render(dark, warp, scale, size=(SIZE, SIZE)).image
        bright = np.argwhere(image[..., 0] > 200)[:, ::-1] + 0.5
        boxes = marked.boxes_xyxy_px[marked.class_ids == number]
        if not len(boxes):  # let go: less than 2 pixels, or a hundredth of what it was
            assert len(bright) <= max(2 * SIZE, 0.01 * np.prod(image.shape[:2]) * 1.6**2)
            continue
        if not len(bright):
            continue
        # Bright middles come from within the polygon's outermost marked pixels, whose middles lie in it, or half a
        # source pixel beside them; upright warps are adjusted by half a pixel of the source or the image.
        slack = max(0.5, 0.5 * scale) + 1
        assert (bright.min(axis=0) >= boxes[0, :2] - slack).all()
        assert (bright.max(axis=0) <= boxes[0, 2:] + slack).all()
        checked += 1
        loose += (np.abs(np.concatenate([bright.min(axis=0), bright.max(axis=0)]) - boxes[0]) > 4).mean()
    assert checked
    assert loose <= 0.25 * checked  # but for points of polygons thinner than a pixel


def test_rectangles():
    one = sample((60, 96), boxes=[[0, 0, 96, 60]])
    out = render([place(one, 0, 0, canvas=96)], np.array([[0.5, 0, 4], [0, 0.5, 10], [0, 0, 1]]), 0.5, size=(64, 128))
    assert out.image.shape == (64, 128, 3)
    assert out.boxes_xyxy_px.tolist() == [[4, 10, 52, 40]]
    outside = np.ones((64, 128), bool)
    outside[10:40, 4:52] = False
    assert (out.image[outside] == GRAY).all()
    far = render([place(one, 0, 0, canvas=96)], np.array([[1, 0, 100.0], [0, 1, 30], [0, 0, 1]]), 1.0, size=(64, 128))
    assert np.array_equal(far.image[30:, 100:], one.image[:34, :28])
    assert far.boxes_xyxy_px.tolist() == [[100, 30, 128, 64]]  # across the longer side, which a square has not

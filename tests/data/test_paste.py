import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.drawn_polygons import lies_in, random_polygon
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.geometry import random_warp, scale_and_shift, shift
from yolov7_jax.data.mosaic import place
from yolov7_jax.data.paste import MOST_COVER, MOST_PASTED, flipped_copies, is_in_front, paste, paste_in
from yolov7_jax.data.pieces import Piece, shown
from yolov7_jax.data.render import render
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Sample

SHAPE = (70, 90)
SIZE = (60, 80)
STRAIGHT = AugmentConfig(scale=0.3, translate=0.2)
ROTATED = AugmentConfig(scale=0.3, translate=0.2, degrees=180, shear=20, perspective=0.002)
SLOPE = 2.5


def ramps(shape):
    """Colors that say where a pixel is: 2.5 levels a column, a row."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.round(np.stack([SLOPE * columns, SLOPE * rows, np.full_like(rows, 200)], axis=-1)).astype(np.uint8)


def with_polygons(objects, shape=SHAPE, name=0, image=None):
    """A sample of objects given by lists of polygons, nobody can write to; their classes count from 10 times its id."""
    polygons = as_polygons(objects)
    boxes = [np.concatenate(each) for each in objects]
    boxes = np.array([[*each.min(axis=0), *each.max(axis=0)] for each in boxes], np.float32).reshape(-1, 4)
    image = ramps(shape) if image is None else image
    class_ids = np.arange(len(boxes), dtype=np.int32) + 10 * name
    for array in (image, boxes, class_ids, *polygons):
        array.flags.writeable = False
    return Sample(image, boxes, class_ids, name, polygons)


def square(x, y, side=10):
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]], np.float32)


def distance_to_edges(points, polygons):
    """From points [..., 2] to the nearest edge."""
    nearest = np.full(points.shape[:-1], np.inf)
    for polygon in polygons:
        for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            share = ((points - start) @ (end - start) / max(((end - start) ** 2).sum(), 1e-12)).clip(0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(points - start - share[..., None] * (end - start), axis=-1))
    return nearest


@pytest.mark.parametrize("config", [STRAIGHT, ROTATED])
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_pasted_pixels_are_those_of_the_warped_polygon(config, seed):
    rng = np.random.default_rng(seed)
    warp, scale = random_warp(rng, config, canvas=SHAPE, size=SIZE)
    if rng.random() < 0.5:
        warp = warp @ scale_and_shift(-1, 1, SHAPE[1], 0)
    part = ((0, 0, 90, 70), (30, 20, 75, 60))[rng.integers(2)]
    polygons = [
        random_polygon(rng, rng.uniform(20, 60, 2), rng.uniform(5, 40), corners=int(rng.integers(3, 9))).astype(
            np.float32
        )
        for _ in range(rng.integers(1, 3))
    ]
    piece = Piece(with_polygons([polygons]), part, warp, scale)
    if not is_in_front(piece):
        return
    box = shown([piece], SIZE).boxes_xyxy_px[0]
    image = np.zeros((*SIZE, 3), np.uint8)
    paste(image, piece, box)
    painted = image[..., 2] == 200
    assert (image[..., 2][~painted] == 0).all()

    centers = np.stack([*(np.mgrid[: SIZE[0], : SIZE[1]][::-1] + 0.5), np.ones(SIZE)], axis=-1)
    places = centers @ np.linalg.inv(warp).T
    source = places[..., :2] / places[..., 2:]
    ahead = places[..., 2] > 0
    frame = np.reshape(part, (2, 2))
    expected = ahead & lies_in(source, polygons) & (source >= frame[0]).all(-1) & (source <= frame[1]).all(-1)
    corners = np.array([[part[0], part[1]], [part[2], part[1]], [part[2], part[3]], [part[0], part[3]]], float)
    drawn = []
    for polygon in [*polygons, corners]:
        x, y, w = warp @ np.column_stack([polygon, np.ones(len(polygon))]).T
        if (w > 1e-3).all():
            drawn.append(np.column_stack([x / w, y / w]))
    # Polygons are drawn in quarters of a pixel, and OpenCV draws a quarter where a polygon goes through any of it:
    # so a center may be off by the diagonal of one, and by the rounding of corners to 1/16 of one.
    certain = distance_to_edges(centers[..., :2], drawn) > np.hypot(0.25, 0.25) + 1 / 32
    assert (painted == expected)[certain].all()
    if box.any():  # and what is painted has its center in the box
        rows, columns = np.nonzero(painted)
        assert (np.column_stack([columns, rows]) + 0.5 >= box[:2]).all()
        assert (np.column_stack([columns, rows]) + 0.5 <= box[2:]).all()
    else:
        assert not painted.any()

    inner = painted & ahead & (source >= frame[0] + 1).all(-1) & (source <= frame[1] - 1).all(-1)
    # a linear ramp, half a level rounded there and here; OpenCV may take places in steps of 1/32 pixel
    error = np.abs(image[..., :2] - SLOPE * (source - 0.5))[inner]
    assert (error <= 1 + SLOPE / 32).all()


def test_pasting_whole_pixels_by_hand():
    piece = Piece(with_polygons([[square(20, 30)]]), (0, 0, 25, 70), shift(7, -20), 1.0)
    image = np.zeros((*SIZE, 3), np.uint8)
    paste(image, piece, np.array([27.0, 10, 32, 20]))
    expected = np.zeros_like(image)
    expected[10:20, 27:32] = ramps(SHAPE)[30:40, 20:25]
    assert np.array_equal(image, expected)


def tiles_of(*samples):
    """Tiles side by side on a canvas of 200."""
    return [place(sample, 90 * number, 10, canvas=200) for number, sample in enumerate(samples)]


def test_flipped_objects_are_those_of_the_flipped_canvas():
    concave = np.array([[20, 20], [40, 20], [40, 24], [26, 24], [26, 50], [20, 50]], np.float32)
    samples = [with_polygons([[concave]]), with_polygons([[square(20, 45)], [square(60, 50, side=35)]], name=1)]
    tiles = tiles_of(*samples)
    canvas = np.full((200, 200, 3), 114, np.uint8)
    canvas[10:80, :90] = canvas[10:80, 90:180] = ramps(SHAPE)
    copies = flipped_copies(np.random.default_rng(0), tiles, 1.0, canvas=200)
    assert [copy.sample.class_ids.tolist() for copy in copies] == [[0], [10], [11]]
    out = render(tiles, np.eye(3), 1.0, size=(200, 200), copies=copies)
    rows, columns = np.mgrid[:200, :200] + 0.5
    inside = lies_in(np.stack([200 - columns, rows], axis=-1), [concave + np.float32([0, 10]), square(110, 55)])
    inside |= (200 - columns > 150) & (200 - columns < 180) & (rows > 60) & (rows < 80)  # what the image cuts off
    assert np.array_equal(out.image, np.where(inside[..., None], canvas[:, ::-1], canvas))
    assert out.boxes_xyxy_px.tolist() == [
        [20, 30, 40, 60],
        [110, 55, 120, 65],
        [150, 60, 180, 80],
        [160, 30, 180, 60],
        [80, 55, 90, 65],
        [20, 60, 50, 80],
    ]
    assert out.class_ids.tolist() == [0, 10, 11, 0, 10, 11]


def test_nothing_is_put_on_itself():
    # at 90 … 110 of 200, which is the same when flipped
    one = with_polygons([[square(90, 20, side=20)]], shape=(100, 200))
    assert flipped_copies(np.random.default_rng(0), [place(one, 0, 0, canvas=200)], 1.0, canvas=200) == []


@pytest.mark.parametrize(("covered", "copied"), [(2.9, [0, 1]), (3.1, []), (10, [])])
def test_objects_that_cover_much_of_another_are_not_copied(covered, copied):
    # the first, at 20 … 30, is flipped to 170 … 180: the second lies so far in there, and the same the other way round
    one = with_polygons([[square(20, 20)], [square(160 + covered, 20)]], (100, 200))
    copies = flipped_copies(np.random.default_rng(0), [place(one, 0, 0, canvas=200)], 1.0, canvas=200)
    assert [int(copy.sample.class_ids[0]) for copy in copies] == copied


def test_copies_do_not_cover_much_of_each_other_nor_are_what_is_hidden_in_the_way():
    # two objects one upon the other: the second copy would cover the first; the third lies beyond the canvas
    one = with_polygons([[square(20, 20)], [square(22, 21)], [square(230, 20)]], (100, 260))
    copies = flipped_copies(np.random.default_rng(0), [place(one, 0, 0, canvas=200)], 1.0, canvas=200)
    assert [int(copy.sample.class_ids[0]) for copy in copies] == [0]


def test_the_share_of_objects_that_are_copied():
    objects = [[square(4 * x, 10 * y, side=3)] for x in range(20) for y in range(10)]  # left half: all free
    tiles = [place(with_polygons(objects, (100, 200)), 0, 0, canvas=200)]
    counts = [len(flipped_copies(np.random.default_rng(seed), tiles, 0.3, canvas=200)) for seed in range(30)]
    assert abs(np.sum(counts) - 0.3 * 6000) < 4 * np.sqrt(6000 * 0.3 * 0.7)  # four standard deviations
    assert len(set(counts)) > 1
    assert flipped_copies(np.random.default_rng(0), tiles, 0.0, canvas=200) == []


def test_objects_without_outline_are_not_copied():
    one = with_polygons([[square(20, 20)], [square(20, 50)]])
    one = one._replace(polygons=as_polygons([[], [square(20, 50)]]))
    copies = flipped_copies(np.random.default_rng(0), [place(one, 0, 0, canvas=200)], 1.0, canvas=200)
    assert [copy.sample.class_ids.tolist() for copy in copies] == [[1]]


def test_copies_that_reach_behind_the_horizon_are_left_out():
    one = with_polygons([[square(20, 20, side=40)]])
    tiles = [place(one, 0, 0, canvas=200)]
    copies = flipped_copies(np.random.default_rng(0), tiles, 1.0, canvas=200)
    # the copy is at 140 … 180 and the horizon at 175; the canvas's x = 140 is seen at 140 · 0.1 / 0.2 = 70
    away = np.diag([0.1, 0.1, 1]) @ np.array([[1.0, 0, 0], [0, 1, 0], [-1 / 175, 0, 1]])
    assert len(copies) == 1
    assert not is_in_front(copies[0]._replace(matrix=away @ copies[0].matrix))
    with_copies = render(tiles, away, 0.1, size=(200, 200), copies=copies)
    without = render(tiles, away, 0.1, size=(200, 200))
    assert np.array_equal(with_copies.image, without.image)
    assert len(without.boxes_xyxy_px) == len(with_copies.boxes_xyxy_px) == 1


def test_much_is_put_in_where_there_is_room():
    others = [with_polygons([[square(10 * x, 10 * y, side=9)] for x in range(4) for y in range(5)])] * 3
    counts = []
    for seed in range(20):
        sample = Sample(np.zeros((*SIZE, 3), np.uint8), np.zeros((1, 4), np.float32), np.zeros(1, np.int32), 0)
        counts.append(len(paste_in(np.random.default_rng(seed), sample, others, zoom=1.0).class_ids) - 1)
    assert max(counts) == MOST_PASTED


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.sampled_from([0.5, 1.0, 1.3]))
@settings(max_examples=40)
def test_objects_of_other_images(seed, images, zoom):
    rng = np.random.default_rng(seed)
    others = []
    for name in range(images):
        objects = [
            [random_polygon(rng, rng.uniform(0, 90, 2), rng.uniform(5, 60), corners=7).astype(np.float32)]
            for _ in range(rng.integers(0, 9))
        ]
        others.append(with_polygons(objects, name=name + 1, image=np.full((*SHAPE, 3), 10 * (name + 1), np.uint8)))
    boxes = np.array([[5, 5, 30, 30], [40, 20, 79, 59], [0, 0, 0, 0]], np.float32)
    sample = Sample(np.full((*SIZE, 3), 255, np.uint8), boxes, np.array([1, 2, 3], np.int32), 7)
    out = paste_in(np.random.default_rng(seed), sample, others, zoom=zoom)
    assert out.id == 7
    assert out.image is sample.image
    assert out.boxes_xyxy_px.dtype == np.float32
    assert out.class_ids.dtype == np.int32
    assert np.array_equal(out.boxes_xyxy_px[:3], boxes)
    assert out.class_ids[:3].tolist() == [1, 2, 3]
    added = out.boxes_xyxy_px[3:].astype(float)
    assert len(added) <= MOST_PASTED
    assert (added >= 0).all()
    assert (added <= np.array(SIZE[::-1] * 2)).all()
    everything = out.boxes_xyxy_px.astype(float)
    for number, (x0, y0, x1, y1) in enumerate(added):
        before = everything[: 3 + number]
        width = np.minimum(before[:, 2], x1) - np.maximum(before[:, 0], x0)
        height = np.minimum(before[:, 3], y1) - np.maximum(before[:, 1], y0)
        covered = width.clip(0) * height.clip(0)
        whole = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1])
        assert (covered < MOST_COVER * whole + 1e-2).all() or not covered.any()
        # its pixels are there, and up to the edges of its box, where no later one lies on them
        color = 10 * (out.class_ids[3 + number] // 10)
        rows, columns = np.nonzero(out.image[..., 0] == color)
        if number == len(added) - 1 and len(rows):
            mine = (rows + 0.5 >= y0) & (rows + 0.5 <= y1) & (columns + 0.5 >= x0) & (columns + 0.5 <= x1)
            assert mine.any()
    changed = np.argwhere((out.image != 255).any(axis=-1))[:, ::-1] + 0.5
    within = [(changed >= box[:2] - 1e-4) & (changed <= box[2:] + 1e-4) for box in added]
    assert np.any([each.all(axis=1) for each in within], axis=0).all() if len(changed) else True


def test_nothing_to_put_in():
    sample = Sample(np.full((*SIZE, 3), 255, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 7)
    for others in ([], [with_polygons([])]):
        assert paste_in(np.random.default_rng(0), sample, others, zoom=1.0) is sample


def test_an_object_put_in_is_whole_and_bilinear():
    one = with_polygons([[square(20, 10, side=40)]])
    places = []
    for seed in range(200):
        sample = Sample(np.zeros((*SIZE, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 0)
        out = paste_in(np.random.default_rng(seed), sample, [one], zoom=1.0)
        ((x0, y0, x1, y1),) = out.boxes_xyxy_px.tolist()
        places.append([x0 / (SIZE[1] - x1 + x0), y0 / (SIZE[0] - y1 + y0), (x1 - x0) / 40])
        assert x1 - x0 == pytest.approx(y1 - y0, abs=1e-4)
        rows, columns = np.nonzero(out.image[..., 2])
        assert len(rows) == pytest.approx((x1 - x0) * (y1 - y0), abs=2 * (x1 - x0) + 2 * (y1 - y0))
        factor = 40 / (x1 - x0)
        expected = (
            SLOPE * np.column_stack([20 + (columns + 0.5 - x0) * factor, 10 + (rows + 0.5 - y0) * factor]) - SLOPE / 2
        )
        assert np.abs(out.image[rows, columns, :2] - expected).max() <= 1 + SLOPE / 32
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    # of two hundred uniform draws none is in a given tenth of the range in less than one case of a million
    assert (low[:2] < 0.1).all()
    assert (high[:2] > 0.9).all()
    assert 0.25 <= low[2] < 0.3
    assert 0.9 < high[2] <= 1
    # uniform in the logarithm: four standard deviations of the mean of 200 such numbers
    spread = np.log(1 / 0.25)
    assert np.mean(np.log(places), axis=0)[2] == pytest.approx(-spread / 2, abs=4 * spread / np.sqrt(12 * 200))


def test_a_polygon_that_the_image_cuts_off_is_put_in_as_far_as_it_shows():
    one = with_polygons([[square(60, 10, side=50)]])  # 30 of 50 columns are in the image
    farthest = 0
    for seed in range(20):
        sample = Sample(np.zeros((*SIZE, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 0)
        ((x0, y0, x1, y1),) = paste_in(np.random.default_rng(seed), sample, [one], zoom=1.0).boxes_xyxy_px.tolist()
        assert (x1 - x0) / (y1 - y0) == pytest.approx(30 / 50, abs=1e-4)
        farthest = max(farthest, x1)
    assert farthest > 0.9 * SIZE[1]  # where it lies depends on what shows alone

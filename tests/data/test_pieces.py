import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datasets.drawn_polygons import lies_in, random_polygon
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.geometry import random_warp, scale_and_shift, warp_boxes
from yolov7_jax.data.pieces import Piece, cut_out, shown, visible_boxes, visible_region, warp_points
from yolov7_jax.ops.boxes import clip_boxes
from yolov7_jax.ops.polygons import as_polygons, of_object
from yolov7_jax.types import Sample

SHAPE = (60, 80)
PARTS = ((0, 0, 90, 70), (13, 21, 90, 64), (40, 0, 50, 70))
WARPS = {
    "upright": AugmentConfig(scale=0.5, translate=0.5),
    "affine": AugmentConfig(scale=0.5, translate=0.5, degrees=180, shear=30),
    "perspective": AugmentConfig(scale=0.3, translate=0.3, degrees=40, perspective=0.004),
    "horizon": AugmentConfig(scale=0.3, translate=0.3, degrees=180, perspective=0.03),
}
SAMPLES = 1500


def box_by_samples(polygons, part, matrix):
    """The box of many points of the outlines and of the borders that show; none: zeros."""
    x0, y0, x1, y1 = part
    height, width = SHAPE

    def along(corners):
        share = np.linspace(0, 1, SAMPLES)[:, None]
        ends = zip(corners, np.roll(corners, -1, axis=0), strict=True)
        return np.concatenate([start + share * (end - start) for start, end in ends])

    frame = along(np.array([[0, 0], [width, 0], [width, height], [0, height]], float))
    pulled = np.column_stack([frame, np.ones(len(frame))]) @ np.linalg.inv(matrix).T
    with np.errstate(divide="ignore", invalid="ignore"):
        pulled = pulled[:, :2] / pulled[:, 2:]
    border = np.concatenate([along(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)), pulled])
    border = border[np.isfinite(border).all(axis=1)]
    points = np.concatenate([*map(along, polygons), border[lies_in(border, polygons)]])
    x, y, w = matrix @ np.column_stack([points, np.ones(len(points))]).T
    slack = 1e-6
    shows = (w > 1e-6) & (points >= np.array([x0, y0]) - slack).all(1) & (points <= np.array([x1, y1]) + slack).all(1)
    x, y = x[shows] / w[shows], y[shows] / w[shows]
    shows = (x >= -slack) & (x <= width + slack) & (y >= -slack) & (y <= height + slack)
    if not shows.any():
        return np.zeros(4)
    return np.array([x[shows].min(), y[shows].min(), x[shows].max(), y[shows].max()])


def random_objects(rng, number):
    """Objects of one to three polygons each, of a few corners, that may reach beyond the part."""
    return [
        [
            random_polygon(
                rng,
                rng.uniform(-20, 100, 2),
                rng.uniform(3, 70),
                corners=int(rng.integers(3, 12)),
                wild=rng.random() < 0.3,
            ).astype(np.float32)
            for _ in range(rng.integers(1, 4))
        ]
        for _ in range(number)
    ]


@pytest.mark.parametrize("kind", WARPS)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=12)
def test_boxes_hold_what_shows_and_are_tight(kind, seed):
    rng = np.random.default_rng(seed)
    config = WARPS[kind]
    warps = [random_warp(rng, config, canvas=(70, 90), size=SHAPE)[0] for _ in PARTS]
    regions = [visible_region(part, warp, SHAPE) for part, warp in zip(PARTS, warps, strict=True)]
    objects = random_objects(rng, 5)
    place_of_object = np.sort(rng.integers(0, len(PARTS), 5))
    objects[int(rng.integers(5))] = []  # one without outline
    polygons = as_polygons(objects)
    place = place_of_object[polygons.owner]
    owners, boxes = visible_boxes(polygons, place, regions)
    assert owners.tolist() == [n for n in range(5) if objects[n]]
    for owner, box in zip(owners, boxes, strict=True):
        at = place_of_object[owner]
        expected = box_by_samples(objects[owner], PARTS[at], warps[at])
        if not expected.any():  # a sliver between samples at most
            assert (box[2:] - box[:2]).min() < 0.1
            continue
        # samples lie within their 1e-6 of slack, and single corners are not warped to better than that at a horizon
        assert (box[:2] <= expected[:2] + 1e-3).all()
        assert (box[2:] >= expected[2:] - 1e-3).all()
        # and a pixel is farther than two samples of an outline that shows are from each other
        assert np.abs(box - expected).max() < 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=12)
def test_pixels_that_show_are_in_the_box(seed):
    rng = np.random.default_rng(seed)
    warp, _ = random_warp(rng, WARPS["perspective"], canvas=(70, 90), size=SHAPE)
    (objects,) = random_objects(rng, 1)
    box = visible_boxes(as_polygons([objects]), np.zeros(len(objects), int), [visible_region(PARTS[1], warp, SHAPE)])[
        1
    ][0]
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    places = np.stack([columns, rows, np.ones(SHAPE)], axis=-1) @ np.linalg.inv(warp).T
    source = places[..., :2] / places[..., 2:]
    x0, y0, x1, y1 = PARTS[1]
    # the third coordinates of a warp and its inverse have the same sign: what is behind one is behind the other
    shows = (
        (source >= (x0, y0)).all(-1) & (source <= (x1, y1)).all(-1) & (places[..., 2] > 0) & lies_in(source, objects)
    )
    if shows.any():
        assert columns[shows].min() >= box[0] - 1e-6
        assert columns[shows].max() <= box[2] + 1e-6
        assert rows[shows].min() >= box[1] - 1e-6
        assert rows[shows].max() <= box[3] + 1e-6


L_SHAPE = [[0, 0], [4, 0], [4, 30], [30, 30], [30, 40], [0, 40]]


@pytest.mark.parametrize(
    ("part", "matrix", "expected"),
    [
        ((0, 0, 90, 70), np.eye(3), [0, 0, 30, 40]),
        ((10, 0, 90, 70), np.eye(3), [10, 30, 30, 40]),  # the upright arm is cut off: the box of corners would keep it
        ((0, 0, 90, 20), np.eye(3), [0, 0, 4, 20]),
        ((10, 0, 90, 20), np.eye(3), [0, 0, 0, 0]),  # in its box, but nothing of it
        ((0, 0, 90, 70), scale_and_shift(2, 2, -20, 0), [0, 60, 40, 60]),  # only its lower edge's level of 60 touches
        ((0, 0, 90, 70), scale_and_shift(-1, 1, 30, 0), [0, 0, 30, 40]),
        ((1, 1, 3, 3), np.eye(3), [1, 1, 3, 3]),  # all of the part lies in it
    ],
)
def test_by_hand(part, matrix, expected):
    polygons = as_polygons([[np.array(L_SHAPE, np.float32)]])
    region = visible_region(part, matrix, SHAPE)
    assert visible_boxes(polygons, np.zeros(1, int), [region])[1].tolist() == [expected]


def test_a_corner_of_the_image_alone_in_an_object():
    # the image's corner lies in the polygon, none of its edges in the image but two that cut off the corner
    triangle = np.array([[-30, 20], [20, -30], [-30, -30]], np.float32)
    region = visible_region((-0, 0, 90, 70), np.eye(3), SHAPE)
    assert not visible_boxes(as_polygons([[triangle]]), np.zeros(1, int), [region])[1].any()  # x + y = -10: passes by
    shifted = visible_region((0, 0, 90, 70), scale_and_shift(1, 1, -80, 0), SHAPE)
    around = np.array([[70, -10], [130, -10], [130, 50]], np.float32)  # y < x - 80: in the image at (0, 0) … (10, 10)
    assert visible_boxes(as_polygons([[around]]), np.zeros(1, int), [shifted])[1][0] == pytest.approx([0, 0, 10, 10])


@pytest.mark.parametrize("kind", WARPS)
def test_corners_of_regions_are_corners_of_what_shows(kind):
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(200):
        warp, _ = random_warp(rng, WARPS[kind], canvas=(70, 90), size=SHAPE)
        region = visible_region(PARTS[1], warp, SHAPE)
        corners = region.corners_xy_px
        if not corners.size:
            continue
        heights = region.sides[:, :2] @ corners + region.sides[:, 2:]
        reach = np.abs(region.sides).sum(axis=1)[:, None] * 100
        assert (heights >= -1e-12 * reach).all()  # inside
        assert ((np.abs(heights) <= 1e-12 * reach).sum(axis=0) >= 2).all()  # on two sides each
        places = warp_points(corners, warp)
        assert (places >= -1e-3).all()
        assert (places <= np.array(SHAPE[::-1])[:, None] + 1e-3).all()
        most = max(most, corners.shape[1])
    assert most >= (4 if kind == "upright" else 6)


def sample(objects, boxes=None, first=0):
    """A sample of 70 × 90 whose objects have these polygons, and the boxes around them unless others are given."""
    if boxes is None:
        boxes = [[*np.concatenate(each).min(axis=0), *np.concatenate(each).max(axis=0)] for each in objects]
    class_ids = np.arange(len(objects), dtype=np.int32) + first
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(np.zeros((70, 90, 3), np.uint8), boxes, class_ids, 0, as_polygons(objects))


def rectangle(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


@pytest.mark.parametrize(
    ("visible", "with_polygon_is_enough", "plain_is_enough"),
    [(1.9, False, False), (2.1, True, False), (3.9, True, False), (4.1, True, True)],
)
def test_less_of_an_object_with_polygon_is_enough(visible, with_polygon_is_enough, plain_is_enough):
    # 40 wide, of which so many columns are left
    whole = [0, 10, 40, 30]
    matrix = scale_and_shift(1, 1, visible - 40, 0)
    objects = sample([[rectangle(*whole)], []], [whole, whole])
    found = shown([Piece(objects, (0, 0, 90, 70), matrix, 1.0)], SHAPE)
    assert found.boxes_xyxy_px == pytest.approx(np.array([[0, 10, visible, 30]] * 2))
    assert found.enough.tolist() == [with_polygon_is_enough, plain_is_enough]


@pytest.mark.parametrize(("height", "enough"), [(4.9, False), (5.1, True)])
def test_a_hundredth_is_enough_of_an_outlined_object(height, enough):
    # a thin leg of 10 columns below a body that does not show: of a former area of 50 · 100, 50 is a hundredth
    body = np.array([[20, -40], [70, -40], [70, 0], [30, 0], [30, 60], [20, 60]], np.float32)
    objects = sample([[body]])._replace(image=np.zeros((100, 90, 3), np.uint8))
    shifted = scale_and_shift(1, 1, 0, height - 60)
    whole = Piece(objects, (0, -40, 90, 60), shifted, 1.0)
    found = shown([whole], SHAPE)
    assert found.boxes_xyxy_px[0] == pytest.approx([20, 0, 30, height])
    assert found.enough.tolist() == [enough]


def test_scale_counts_for_the_former_area():
    objects = sample([[]], [[0, 0, 40, 20]])
    for scale, enough in ((1.0, True), (2.0, False)):  # 5 of 40 columns are left, of a former area of 1 or 4
        found = shown([Piece(objects, (0, 0, 90, 70), scale_and_shift(1, 1, -35, 0), scale)], SHAPE)
        assert found.enough.tolist() == [enough]


@pytest.mark.parametrize("seed", range(10))
def test_objects_in_a_row_are_those_one_by_one(seed):
    rng = np.random.default_rng(seed)
    config = (AugmentConfig(scale=0.5, translate=0.3), AugmentConfig(scale=0.3, degrees=60, perspective=0.002))[
        seed % 2
    ]
    pieces = []
    for first in (0, 10, 20, 30):
        objects = [
            [random_polygon(rng, rng.uniform(0, 80, 2), 20, corners=6) for _ in range(rng.integers(0, 3))]
            for _ in range(rng.integers(0, 5))
        ]
        boxes = [
            [*np.concatenate(each).min(axis=0), *np.concatenate(each).max(axis=0)] if each else [10, 20, 40, 50]
            for each in objects
        ]
        warp, scale = random_warp(rng, config, canvas=(70, 90), size=SHAPE)
        pieces.append(
            Piece(sample(objects, boxes, first), ((0, 0, 90, 70), (20, 10, 60, 65))[first % 3 % 2], warp, scale)
        )
    found = shown(pieces, SHAPE)
    at = 0
    for piece in pieces:
        x0, y0, x1, y1 = piece.part
        for index, box in enumerate(piece.sample.boxes_xyxy_px.astype(float)):
            polygons = of_object(piece.sample.polygons, index)
            if polygons:
                region = visible_region(piece.part, piece.matrix, SHAPE)
                _, (expected,) = visible_boxes(as_polygons([polygons]), np.zeros(len(polygons), int), [region])
            else:
                clipped = np.clip(box, [x0, y0, x0, y0], [x1, y1, x1, y1])
                expected = clip_boxes(warp_boxes(clipped[None], piece.matrix), SHAPE)[0]
            area = np.prod(found.boxes_xyxy_px[at, 2:] - found.boxes_xyxy_px[at, :2])
            if area or np.prod(expected[2:] - expected[:2]) > 1e-9:
                assert found.boxes_xyxy_px[at] == pytest.approx(expected, abs=1e-9)
            assert found.class_ids[at] == piece.sample.class_ids[index]
            at += 1
    assert at == len(found.class_ids) == len(found.enough)


def test_one_object_of_a_sample():
    objects = sample(
        [[rectangle(0, 0, 5, 5)], [], [rectangle(10, 10, 20, 20), rectangle(30, 30, 40, 50)]], np.eye(3, 4)
    )
    one = cut_out(objects, 2)
    assert one.class_ids.tolist() == [2]
    assert one.boxes_xyxy_px.tolist() == [[0, 0, 1, 0]]
    assert [each.tolist() for each in of_object(one.polygons, 0)] == [
        rectangle(10, 10, 20, 20).tolist(),
        rectangle(30, 30, 40, 50).tolist(),
    ]
    assert one.image is objects.image


def test_objects_of_parts_that_do_not_show_have_no_box():
    region = visible_region((0, 0, 90, 70), scale_and_shift(1, 1, 200, 0), SHAPE)
    assert region.corners_xy_px.shape == (2, 0)
    owners, boxes = visible_boxes(as_polygons([[rectangle(0, 10, 40, 30)]]), np.zeros(1, int), [region])
    assert (owners.tolist(), boxes.tolist()) == ([0], [[0, 0, 0, 0]])

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data import augment
from yolov7_jax.data.augment import LIMITS, augmented
from yolov7_jax.data.letterbox import GRAY, letterbox
from yolov7_jax.errors import InputError
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Sample

SIZE = 64
COLORLESS = AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0)
AS_IT_IS = replace(COLORLESS, mosaic=0, scale=0, translate=0, fliplr=0)


def locked(image, boxes=(), class_ids=(), name=0):
    """A sample that nobody can write to."""
    arrays = image, np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int32)
    for array in arrays:
        array.flags.writeable = False
    return Sample(*arrays, name)


def noise(position, size=SIZE, sliver=False, boxes=5, with_polygons=False):
    rng = np.random.default_rng(position)
    short = 1 if sliver else int(rng.integers(1, size + 1))
    height, width = (short, size) if rng.random() < 0.5 else (size, short)
    corners = np.sort(rng.uniform(0, 1, (boxes, 2, 2)), axis=1).reshape(boxes, 4) * (width, height, width, height)
    one = locked(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), corners, range(boxes), 100 + position)
    if not with_polygons:
        return one
    polygons = as_polygons(
        [[np.array([[x0, y0], [x1, y0], [x0, y1]])] if x0 % 1 < 0.7 else [] for x0, y0, x1, y1 in corners]
    )
    for array in polygons:
        array.flags.writeable = False
    return one._replace(polygons=polygons)


def made(seed, fetch=noise, position=0, *, count=10, mosaic_window=5, size=SIZE, config=COLORLESS):
    return augmented(
        np.random.default_rng(seed),
        fetch,
        position,
        count=count,
        mosaic_window=mosaic_window,
        side=size,
        size=(size, size),
        config=config,
    )


def equal(first, second):
    return first.id == second.id and all(np.array_equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


CONFIGS = st.builds(
    AugmentConfig,
    **{name: st.floats(low, min(high, 10)) for name, (low, high) in LIMITS.items() if name != "perspective"},
    perspective=st.sampled_from([0, 0.001, 0.02]),
)


@given(
    st.integers(0, 2**32 - 1),
    CONFIGS,
    st.sampled_from([32, 64, 96]),
    st.sampled_from([(1, 1), (0.5, 0.5), (1.5, 1.5), (0.6, 1)]),
    st.integers(1, 6),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from([0, 1, 30]),
)
@settings(max_examples=150)
def test_any_sample_is_what_training_takes(seed, config, side, multiple, count, window, sliver, boxes):
    height, width = shape = tuple(round(side * times) for times in multiple)
    fetched = {}

    def fetch(position):
        assert 0 <= position < count
        return fetched.setdefault(position, noise(position, side, sliver, boxes, with_polygons=seed % 2 == 0))

    position = seed % count
    options = {"count": count, "mosaic_window": window, "side": side, "size": shape, "config": config}
    sample = augmented(np.random.default_rng(seed), fetch, position, **options)
    assert sample.image.shape == (height, width, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image.flags.c_contiguous
    assert sample.boxes_xyxy_px.dtype == np.float32
    assert sample.class_ids.dtype == np.int32
    assert sample.boxes_xyxy_px.shape == (len(sample.class_ids), 4)
    assert sample.id == 100 + position
    low, high = sample.boxes_xyxy_px[:, :2], sample.boxes_xyxy_px[:, 2:]
    assert (low >= 0).all()
    assert (high <= (width, height)).all()
    sides = high - low
    assert (sides > 2 - 1e-4).all()  # single precision of 144
    assert (sides.max(axis=1, initial=0) < 20 * sides.min(axis=1, initial=np.inf) + 1e-2).all()
    again = augmented(np.random.default_rng(seed), fetch, position, **options)
    assert equal(sample, again)
    for one in fetched.values():
        assert not np.shares_memory(one.image, sample.image)


def test_samples_differ_with_the_seed():
    assert not np.array_equal(made(1).image, made(2).image)


def test_nothing_is_changed_where_nothing_may_be():
    one = noise(3, boxes=0)._replace(
        boxes_xyxy_px=np.array([[0, 0, 9, 5]], np.float32), class_ids=np.array([4], np.int32)
    )
    sample = made(0, lambda _: one, config=AS_IT_IS)
    height, width = one.image.shape[:2]
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    expected = np.full((SIZE, SIZE, 3), GRAY, np.uint8)
    expected[top : top + height, left : left + width] = one.image
    assert np.array_equal(sample.image, expected)
    assert sample.boxes_xyxy_px.tolist() == [[left, top, left + 9, top + 5]]
    assert sample.class_ids.tolist() == [4]


@pytest.mark.parametrize("config", [COLORLESS, replace(COLORLESS, mosaic=0), replace(COLORLESS, mixup=1)])
@pytest.mark.parametrize(("fliplr", "flipud"), [(1, 0), (0, 1), (1, 1)])
def test_flips(config, fliplr, flipud):
    plain = made(5, config=replace(config, fliplr=0))
    sample = made(5, config=replace(config, fliplr=fliplr, flipud=flipud))
    image, boxes = plain.image, plain.boxes_xyxy_px
    if fliplr:
        image, boxes = image[:, ::-1], np.stack([SIZE - boxes[:, 2], boxes[:, 1], SIZE - boxes[:, 0], boxes[:, 3]], 1)
    if flipud:
        image, boxes = image[::-1], np.stack([boxes[:, 0], SIZE - boxes[:, 3], boxes[:, 2], SIZE - boxes[:, 1]], 1)
    assert len(boxes)
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.boxes_xyxy_px, boxes)


def fetched_positions(seed, position, *, count, mosaic_window, config=COLORLESS):
    asked = []

    def fetch(at):
        asked.append(at)
        return noise(at, boxes=0)

    made(seed, fetch, position, count=count, mosaic_window=mosaic_window, config=config)
    assert all(type(at) is int for at in asked)
    return asked


@pytest.mark.parametrize(
    ("position", "count", "mosaic_window", "allowed"),
    [
        (7, 10, 3, {4, 5, 6}),
        (1, 10, 3, {8, 9, 0}),  # round the start of the epoch
        (0, 4, 100, {1, 2, 3}),  # no more than there are
        (1, 2, 1, {0}),
        (0, 1, 5, {0}),  # alone: its own partner
        (3, 4, 0, {3}),
    ],
)
def test_partners_are_those_of_the_window_and_equally_likely(position, count, mosaic_window, allowed):
    both = replace(COLORLESS, mixup=1)
    draws = [
        fetched_positions(seed, position, count=count, mosaic_window=mosaic_window, config=both) for seed in range(200)
    ]
    assert {one[0] for one in draws} == {position}
    partners = [at for one in draws for at in one[1:]]
    assert len(partners) == 200 * 7  # three of the mosaic, four of the second
    assert set(partners) == allowed
    counts = np.bincount(partners)[list(allowed)]
    expected = 1400 / len(allowed)
    assert (np.abs(counts - expected) <= 4 * np.sqrt(expected)).all()  # four standard deviations


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"mosaic": 0, "mixup": 1}, {1}),
        ({"mosaic": 1}, {4}),
        ({"mixup": 1}, {8}),
        ({"mosaic": 0.5}, {1, 4}),
        ({"mosaic": 0.5, "mixup": 0.5}, {1, 4, 8}),
        ({"mosaic9": 1}, {9}),
        ({"mosaic9": 0.5}, {4, 9}),
        ({"mosaic9": 0.5, "mixup": 1}, {8, 13, 18}),
        ({"mosaic": 0, "paste_in": 1}, {4}),
        ({"paste_in": 0.5}, {4, 7}),
    ],
)
def test_images_of_a_sample(options, numbers):
    config = replace(COLORLESS, **options)
    found = [len(fetched_positions(seed, 3, count=9, mosaic_window=4, config=config)) for seed in range(100)]
    assert set(found) == numbers
    if len(numbers) == 2:
        assert 30 <= found.count(min(numbers)) <= 70  # four standard deviations of 100 coins: 20


def test_mixup_joins_the_labels_of_two_mosaics():
    def fetch(position):  # the first image is black; the partners, and so all of the second mosaic, are white
        level = 0 if position == 1 else 255
        return locked(np.full((SIZE, SIZE, 3), level, np.uint8), [[0, 0, SIZE, SIZE]], [level])

    calm = replace(COLORLESS, scale=0, translate=0, fliplr=0)
    alone = made(0, fetch, 1, count=2, mosaic_window=1, config=calm)
    mixed = made(0, fetch, 1, count=2, mosaic_window=1, config=replace(calm, mixup=1))
    assert np.array_equal(mixed.boxes_xyxy_px[: len(alone.class_ids)], alone.boxes_xyxy_px)
    assert np.array_equal(mixed.class_ids[: len(alone.class_ids)], alone.class_ids)
    assert len(mixed.class_ids) > len(alone.class_ids)
    dark = mixed.image[(alone.image == 0).all(axis=-1)]
    assert len(dark)
    levels = np.unique(dark)  # the other share of white, or of gray where the second mosaic has none
    assert levels[-1] > 0
    assert levels[0] == levels[-1] or levels[0] == pytest.approx(levels[-1] * GRAY / 255, abs=1)


@pytest.mark.parametrize(
    ("name", "nine", "least", "most"),
    [("mosaic", 0, SIZE // 2, 3 * SIZE // 2), ("mosaic9", 1, 0, SIZE)],
)
def test_centers_of_four_and_windows_of_nine_fill_their_range(monkeypatch, name, nine, least, most):
    places = []

    def spy(samples, place, *, canvas):
        assert canvas == 2 * SIZE
        assert len(samples) == (9 if nine else 4)
        places.append(place)
        return original(samples, place, canvas=canvas)

    original = getattr(augment, name)
    monkeypatch.setattr(augment, name, spy)
    one = noise(0, boxes=0)
    for seed in range(1000):
        made(seed, lambda _: one, count=1, config=replace(COLORLESS, mosaic9=nine))
    assert np.min(places, axis=0).tolist() == [least, least]
    assert np.max(places, axis=0).tolist() == [most, most]
    # four standard deviations of the mean of 1000 uniform numbers
    assert np.allclose(np.mean(places, axis=0), (least + most) / 2, rtol=0, atol=4 * SIZE / np.sqrt(12 * 1000))


@pytest.mark.parametrize("mosaic", [1, 0])
def test_the_range_of_scales(monkeypatch, mosaic):
    scales = []

    def spy(tiles, warp, scale, **options):
        scales.append(scale)
        return original(tiles, warp, scale, **options)

    original = augment.render
    one = noise(0, boxes=0)
    monkeypatch.setattr(augment, "render", spy)
    for seed in range(500):
        made(seed, lambda _: one, config=replace(COLORLESS, mosaic=mosaic, scale=0.5))
    assert 0.5 <= min(scales) < 0.52
    assert 1.58 < max(scales) <= 1.6


COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)


MARK = (50, 40)


def marked(number):
    """A dark image with a rectangle of its own color, which its box marks."""
    rng = np.random.default_rng(number)
    height, width = ((128, 100), (90, 128), (128, 128), (110, 128))[number]
    image = rng.integers(0, 100, (height, width, 3)).astype(np.uint8)
    x0, y0 = (int(n) for n in rng.integers(5, 25, 2))
    x1, y1 = x0 + MARK[0], y0 + MARK[1]
    image[y0:y1, x0:x1] = COLORS[number]
    return locked(image, [[x0, y0, x1, y1]], [number])


@pytest.mark.parametrize("mosaic", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.9, "translate": 0.5},
        {"degrees": 180},
        {"shear": 30},
        {"perspective": 0.002},
        {"degrees": 45, "shear": 10, "perspective": 0.001, "flipud": 0.5},
        {"flipud": 0.5},
    ],
)
def test_what_a_box_marked_stays_in_its_box(options, mosaic):
    config = replace(COLORLESS, mosaic=mosaic, **options)
    is_upright = not options.keys() & {"degrees", "shear", "perspective"}
    held = tight = 0
    for seed in range(40):
        numbers = iter(range(4))
        sample = made(seed, lambda _, numbers=numbers: marked(next(numbers)), count=4, size=128, config=config)
        for number, color in enumerate(COLORS):
            rows, columns = np.nonzero((sample.image == color).all(axis=-1))
            boxes = sample.boxes_xyxy_px[sample.class_ids == number]
            if len(rows) == 0:
                continue
            first, last = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
            if len(boxes) == 0:  # let go: 2 pixels, or a tenth of what it was at a scale of 2 at most
                assert min(last - first) <= 2 or len(rows) <= 0.1 * MARK[0] * MARK[1] * 2**2
                continue
            # A pure color comes from pixels of the rectangle alone, so the middles of such pixels lie in the box, but
            # for the 1/32 pixel in steps of which OpenCV may take places.
            (low, high) = boxes[0].reshape(2, 2)
            assert (first + 0.5 >= low - 1 / 32).all()
            assert (last - 0.5 <= high + 1 / 32).all()
            held += 1
            if is_upright:
                # Half a pixel of the source, which is one at a scale of 2, along the rim is mixed with the dark around;
                # then the next middle is at most a pixel on.
                assert (first - low < 2).all()
                assert (high - last < 2).all()
                tight += 1
    assert held >= 25
    assert tight == (held if is_upright else 0)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), 200.0])
def test_settings_out_of_range_are_refused(name, wrong):
    if LIMITS[name][1] >= wrong:
        return
    with pytest.raises(InputError, match=rf"^augment\.{name}: {wrong} is out of range; expected a number from"):
        made(0, config=replace(AugmentConfig(), **{name: wrong}))


def test_every_number_has_a_range():
    assert [*LIMITS, "transforms"] == list(AugmentConfig.__dataclass_fields__)
    assert made(0, config=AugmentConfig(**{name: low for name, (low, _) in LIMITS.items()})).id == 100


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (96, 96), (40, 64), (64, 40)])
def test_one_image_alone_is_seen_in_its_letterbox(size):
    one = noise(4, boxes=0)._replace(
        boxes_xyxy_px=np.array([[0, 0, 9, 5]], np.float32), class_ids=np.array([4], np.int32)
    )
    sample = augmented(
        np.random.default_rng(0), lambda _: one, 0, count=1, mosaic_window=0, side=64, size=size, config=AS_IT_IS
    )
    expected, box = letterbox(one.image, size, auto=False)
    assert np.array_equal(sample.image, expected)
    scale, (top, left) = box.scale, box.offset
    # content is rounded to whole pixels, so its scale is off by half a pixel over the image at most
    assert sample.boxes_xyxy_px == pytest.approx(
        np.array([[left, top, left + 9 * scale, top + 5 * scale]]), abs=0.5 * 9 / 20
    )


@pytest.mark.parametrize("mosaic", [0, 1])
@pytest.mark.parametrize("multiple", [0.5, 1.5])
def test_size_changes_resolution_alone(mosaic, multiple):
    # the same draws: boxes are as many and as large a part of the image, but for those near a limit
    config = replace(COLORLESS, mosaic=mosaic, mosaic9=0.5, mixup=0.3, degrees=10, translate=0.2, flipud=0.5)
    side = 128
    for seed in range(10):
        options = {"count": 10, "mosaic_window": 5, "side": side, "config": config}

        def fetch(position):
            return noise(position, side)

        plain = augmented(np.random.default_rng(seed), fetch, 3, size=(side, side), **options)
        other = round(side * multiple)
        scaled = augmented(np.random.default_rng(seed), fetch, 3, size=(other, other), **options)
        larger = [
            {
                int(n)
                for n, box in zip(each.class_ids, each.boxes_xyxy_px / len(each.image), strict=True)
                if (box[2:] - box[:2]).min() > 0.1
            }
            for each in (plain, scaled)
        ]
        assert larger[0] == larger[1]
        if len(plain.class_ids) == len(scaled.class_ids):
            # letterboxes are rounded to whole pixels, which a size of 1.5 or 0.5 times the side moves by one
            assert np.allclose(plain.boxes_xyxy_px / side, scaled.boxes_xyxy_px / other, rtol=0, atol=2 / other)


def test_a_box_is_judged_by_the_size_it_is_seen_in():
    one = locked(np.zeros((SIZE, SIZE, 3), np.uint8), [[10, 10, 50, 50]], [3])
    # a quarter as wide and high, which is a sixteenth of its area, yet all of it
    small = augmented(
        np.random.default_rng(0), lambda _: one, 0, count=1, mosaic_window=0, side=64, size=(16, 16), config=AS_IT_IS
    )
    assert small.boxes_xyxy_px.tolist() == [[2.5, 2.5, 12.5, 12.5]]


def test_objects_put_in_are_seen_in_the_same_size():
    corners = np.array([[10, 10], [50, 10], [50, 50], [10, 50]], np.float32)
    one = noise(0, boxes=0)._replace(polygons=as_polygons([[corners]]))
    one = one._replace(
        image=np.zeros((SIZE, SIZE, 3), np.uint8),
        boxes_xyxy_px=np.array([[0, 0, 3, 3]], np.float32),
        class_ids=np.array([4], np.int32),
    )
    found = [
        augmented(
            np.random.default_rng(3),
            lambda _: one,
            0,
            count=1,
            mosaic_window=0,
            side=SIZE,
            size=(side, side),
            config=replace(AS_IT_IS, paste_in=1),
        ).boxes_xyxy_px
        / side
        for side in (64, 32, 160)
    ]
    assert all(len(boxes) > 1 for boxes in found)
    for boxes in found[1:]:
        assert np.allclose(boxes[-1], found[0][-1], rtol=0, atol=1e-6)


def test_objects_are_put_in_after_colors_and_before_flips():
    def fetch(position):
        image = np.full((SIZE, SIZE, 3), 200 if position else 100, np.uint8)
        corners = np.array([[10, 10], [50, 10], [50, 50], [10, 50]], np.float32)
        one = locked(image, [[10, 10, 50, 50]] if position else [], [7] if position else [])
        return one._replace(polygons=as_polygons([[corners]])) if position else one

    # brightness alone changes, and an image to the left of which all is put is flipped
    config = replace(AS_IT_IS, hsv_v=0.4, paste_in=1, fliplr=1)
    for seed in range(20):
        sample = augmented(
            np.random.default_rng(seed), fetch, 0, count=2, mosaic_window=1, side=SIZE, size=(SIZE, SIZE), config=config
        )
        assert set(sample.class_ids.tolist()) == {7}
        levels = np.unique(sample.image)
        assert 200 in levels  # as it was
        assert len(levels) == 2
        assert 60 <= levels[levels != 200][0] <= 140  # 100 · 0.6 … 1.4
        pasted = np.argwhere(sample.image[..., 0] == 200)[:, ::-1]
        first, last = sample.boxes_xyxy_px[:, :2].min(axis=0), sample.boxes_xyxy_px[:, 2:].max(axis=0)
        assert (np.abs(pasted.min(axis=0) - first) <= 0.5).all()
        assert (np.abs(pasted.max(axis=0) + 1 - last) <= 0.5).all()


def test_copies_of_objects_are_in_mosaics_alone():
    both = replace(COLORLESS, copy_paste=1)
    more = 0
    for mosaic in (0, 1):
        for seed in range(10):
            counts = [
                len(
                    made(
                        seed, lambda at: noise(at, with_polygons=True), config=replace(config, mosaic=mosaic)
                    ).class_ids
                )
                for config in (COLORLESS, both)
            ]
            more += counts[1] > counts[0]
        assert (more > 0) == bool(mosaic)

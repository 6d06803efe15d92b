from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data import augment
from yolov7_jax.data.augment import LIMITS, augmented
from yolov7_jax.data.letterbox import GREY
from yolov7_jax.errors import InputError
from yolov7_jax.types import Sample

SIZE = 64
COLOURLESS = AugmentConfig(hsv_h=0, hsv_s=0, hsv_v=0)
AS_IT_IS = replace(COLOURLESS, mosaic=0, scale=0, translate=0, fliplr=0)


def locked(image, boxes=(), class_ids=(), name=0):
    """A sample that nobody can write to."""
    arrays = image, np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int32)
    for array in arrays:
        array.flags.writeable = False
    return Sample(*arrays, name)


def noise(position, size=SIZE, sliver=False, boxes=5):
    rng = np.random.default_rng(position)
    short = 1 if sliver else int(rng.integers(1, size + 1))
    height, width = (short, size) if rng.random() < 0.5 else (size, short)
    corners = np.sort(rng.uniform(0, 1, (boxes, 2, 2)), axis=1).reshape(boxes, 4) * (width, height, width, height)
    return locked(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), corners, range(boxes), 100 + position)


def made(seed, fetch=noise, position=0, *, count=10, window=5, size=SIZE, config=COLOURLESS):
    return augmented(np.random.default_rng(seed), fetch, position, count=count, window=window, size=size, config=config)


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
    st.integers(1, 6),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from([0, 1, 30]),
)
@settings(max_examples=150)
def test_any_sample_is_what_training_takes(seed, config, size, count, window, sliver, boxes):
    fetched = {}

    def fetch(position):
        assert 0 <= position < count
        return fetched.setdefault(position, noise(position, size, sliver, boxes))

    position = seed % count
    sample = made(seed, fetch, position, count=count, window=window, size=size, config=config)
    assert sample.image.shape == (size, size, 3)
    assert sample.image.dtype == np.uint8
    assert sample.image.flags.c_contiguous
    assert sample.boxes_xyxy_px.dtype == np.float32
    assert sample.class_ids.dtype == np.int32
    assert sample.boxes_xyxy_px.shape == (len(sample.class_ids), 4)
    assert sample.id == 100 + position
    low, high = sample.boxes_xyxy_px[:, :2], sample.boxes_xyxy_px[:, 2:]
    assert (low >= 0).all()
    assert (high <= size).all()
    sides = high - low
    assert (sides > 2 - 1e-4).all()  # single precision of 96
    assert (sides.max(axis=1, initial=0) < 20 * sides.min(axis=1, initial=np.inf) + 1e-2).all()
    again = made(seed, fetch, position, count=count, window=window, size=size, config=config)
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
    expected = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    expected[top : top + height, left : left + width] = one.image
    assert np.array_equal(sample.image, expected)
    assert sample.boxes_xyxy_px.tolist() == [[left, top, left + 9, top + 5]]
    assert sample.class_ids.tolist() == [4]


@pytest.mark.parametrize("config", [COLOURLESS, replace(COLOURLESS, mosaic=0), replace(COLOURLESS, mixup=1)])
@pytest.mark.parametrize(("fliplr", "flipud"), [(1, 0), (0, 1), (1, 1)])
def test_mirrors(config, fliplr, flipud):
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


def fetched_positions(seed, position, *, count, window, config=COLOURLESS):
    asked = []

    def fetch(at):
        asked.append(at)
        return noise(at, boxes=0)

    made(seed, fetch, position, count=count, window=window, config=config)
    assert all(type(at) is int for at in asked)
    return asked


@pytest.mark.parametrize(
    ("position", "count", "window", "allowed"),
    [
        (7, 10, 3, {4, 5, 6}),
        (1, 10, 3, {8, 9, 0}),  # round the start of the epoch
        (0, 4, 100, {1, 2, 3}),  # no more than there are
        (1, 2, 1, {0}),
        (0, 1, 5, {0}),  # alone: its own partner
        (3, 4, 0, {3}),
    ],
)
def test_partners_are_those_of_the_window_and_equally_likely(position, count, window, allowed):
    both = replace(COLOURLESS, mixup=1)
    draws = [fetched_positions(seed, position, count=count, window=window, config=both) for seed in range(200)]
    assert {one[0] for one in draws} == {position}
    partners = [at for one in draws for at in one[1:]]
    assert len(partners) == 200 * 7  # three of the mosaic, four of the second
    assert set(partners) == allowed
    counts = np.bincount(partners)[list(allowed)]
    expected = 1400 / len(allowed)
    assert (np.abs(counts - expected) <= 4 * np.sqrt(expected)).all()  # four standard deviations


@pytest.mark.parametrize(
    ("mosaic", "mixup", "numbers"), [(0, 1, {1}), (1, 0, {4}), (1, 1, {8}), (0.5, 0, {1, 4}), (0.5, 0.5, {1, 4, 8})]
)
def test_images_of_a_sample(mosaic, mixup, numbers):
    config = replace(COLOURLESS, mosaic=mosaic, mixup=mixup)
    found = [len(fetched_positions(seed, 3, count=9, window=4, config=config)) for seed in range(100)]
    assert set(found) == numbers
    if 0 < mosaic < 1:
        assert 30 <= found.count(1) <= 70  # four standard deviations of 100 coins: 20


def test_mixup_joins_the_labels_of_two_mosaics():
    def fetch(position):  # the first picture is black; the partners, and so all of the second mosaic, are white
        level = 0 if position == 1 else 255
        return locked(np.full((SIZE, SIZE, 3), level, np.uint8), [[0, 0, SIZE, SIZE]], [level])

    calm = replace(COLOURLESS, scale=0, translate=0)
    alone = made(0, fetch, 1, count=2, window=1, config=calm)
    mixed = made(0, fetch, 1, count=2, window=1, config=replace(calm, mixup=1))
    assert np.array_equal(mixed.boxes_xyxy_px[: len(alone.class_ids)], alone.boxes_xyxy_px)
    assert np.array_equal(mixed.class_ids[: len(alone.class_ids)], alone.class_ids)
    assert len(mixed.class_ids) > len(alone.class_ids)
    dark = mixed.image[(alone.image == 0).all(axis=-1)]
    assert len(dark)
    levels = np.unique(dark)  # the other share of white, or of grey where the second mosaic has none
    assert levels[-1] > 0
    assert levels[0] == levels[-1] or levels[0] == pytest.approx(levels[-1] * GREY / 255, abs=1)


def test_mosaic_centres_fill_the_middle_of_the_canvas(monkeypatch):
    centres = []

    def spy(samples, centre, *, canvas):
        assert canvas == 2 * SIZE
        centres.append(centre)
        return original(samples, centre, canvas=canvas)

    original = augment.mosaic
    monkeypatch.setattr(augment, "mosaic", spy)
    rng = np.random.default_rng(0)
    one = noise(0, boxes=0)
    for _ in range(1000):
        augmented(rng, lambda _: one, 0, count=1, window=1, size=SIZE, config=COLOURLESS)
    low, high = np.min(centres, axis=0), np.max(centres, axis=0)
    assert low.tolist() == [SIZE // 2, SIZE // 2]
    assert high.tolist() == [3 * SIZE // 2, 3 * SIZE // 2]
    # four standard deviations of the mean of 1000 uniform numbers
    assert np.allclose(np.mean(centres, axis=0), SIZE, rtol=0, atol=4 * SIZE / np.sqrt(12 * 1000))


@pytest.mark.parametrize("mosaic", [1, 0])
def test_the_range_of_scales(monkeypatch, mosaic):
    scales = []

    def spy(tiles, warp, scale, *, size):
        scales.append(scale)
        return original(tiles, warp, scale, size=size)

    original = augment.render
    one = noise(0, boxes=0)
    monkeypatch.setattr(augment, "render", spy)
    for seed in range(500):
        made(seed, lambda _: one, config=replace(COLOURLESS, mosaic=mosaic, scale=0.5))
    assert 0.5 <= min(scales) < 0.52
    assert 1.58 < max(scales) <= 1.6


COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)


MARK = (50, 40)


def marked(number):
    """A dark picture with a rectangle of its own colour, which its box marks."""
    rng = np.random.default_rng(number)
    height, width = ((128, 100), (90, 128), (128, 128), (110, 128))[number]
    image = rng.integers(0, 100, (height, width, 3)).astype(np.uint8)
    x0, y0 = (int(n) for n in rng.integers(5, 25, 2))
    x1, y1 = x0 + MARK[0], y0 + MARK[1]
    image[y0:y1, x0:x1] = COLOURS[number]
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
    config = replace(COLOURLESS, mosaic=mosaic, **options)
    is_upright = not options.keys() & {"degrees", "shear", "perspective"}
    held = tight = 0
    for seed in range(40):
        numbers = iter(range(4))
        sample = made(seed, lambda _, numbers=numbers: marked(next(numbers)), count=4, size=128, config=config)
        for number, colour in enumerate(COLOURS):
            rows, columns = np.nonzero((sample.image == colour).all(axis=-1))
            boxes = sample.boxes_xyxy_px[sample.class_ids == number]
            if len(rows) == 0:
                continue
            first, last = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
            if len(boxes) == 0:  # let go: 2 pixels, or a tenth of what it was at a scale of 2 at most
                assert min(last - first) <= 2 or len(rows) <= 0.1 * MARK[0] * MARK[1] * 2**2
                continue
            # A pure colour comes from pixels of the rectangle alone, so the middles of such pixels lie in the box, but
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
    if name == "mixup_beta" and wrong == 200:
        return
    with pytest.raises(InputError, match=rf"^augment\.{name}: {wrong} is out of range; expected a number from"):
        made(0, config=replace(AugmentConfig(), **{name: wrong}))


def test_every_setting_has_a_range():
    assert list(LIMITS) == list(AugmentConfig.__dataclass_fields__)
    assert made(0, config=AugmentConfig(**{name: low for name, (low, _) in LIMITS.items()})).id == 100

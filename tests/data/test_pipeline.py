import pickle
from collections import Counter
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.training_source import DrawnSource
from yolov7_jax.assign.candidates import candidates
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.letterbox import GRAY
from yolov7_jax.data.pipeline import Pipeline, load_resized
from yolov7_jax.data.sampling import rectangles
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.types import Sample

ANCHORS = (((10, 13), (16, 30)), ((30, 61), (62, 45)))
STRIDES = (8, 16)
DRAWN = DrawnSource()
PLAIN = AugmentConfig(mosaic=0, hsv_h=0, hsv_s=0, hsv_v=0)


def pipeline(source: DrawnSource = DRAWN, **options: Any) -> Pipeline:
    defaults: dict[str, Any] = {
        "source": source,
        "augment": AugmentConfig(mixup=0.5),
        "shapes": ((64, 64),),
        "anchors": ANCHORS,
        "strides": STRIDES,
        "anchor_t": 4.0,
        "batch_size": 4,
        "seed": 0,
        "mosaic_window": 5,
    }
    return Pipeline(**defaults | options)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        np.testing.assert_array_equal(one, other)


def order_of(made: Pipeline, epoch: int = 0) -> list[int]:
    return [made.index(epoch, position) for position in range(made.steps * made.batch_size)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 2**40))
def test_an_epoch_has_every_image_once_and_its_last_batch_begins_anew(count, batch_size, epoch, seed):
    order = order_of(pipeline(DrawnSource(count), batch_size=batch_size, seed=seed), epoch)
    assert len(order) - batch_size < count <= len(order)
    assert sorted(order[:count]) == list(range(count))
    assert order[count:] == [order[position % count] for position in range(count, len(order))]
    assert order[:count] == np.random.default_rng([seed, epoch]).permutation(count).tolist()


def test_epochs_and_seeds_differ():
    orders = {tuple(order_of(pipeline(DrawnSource(30), seed=seed), epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_images_are_repeated_as_asked():
    made = pipeline(DrawnSource(3), repeats=np.array([1.0, 0.5, 3.5]))
    assert made.steps == 2  # five images in batches of four
    order = order_of(made)
    assert order[5:] == order[:3]
    assert (order[:5].count(0), order[:5].count(1) + order[:5].count(2)) == (1, 4)


def test_a_row_is_a_function_of_epoch_and_position_alone():
    straight, backwards = pipeline(), pipeline()
    slots = [(epoch, position) for epoch in (0, 1) for position in range(12)]
    rows = {slot: straight.row(*slot) for slot in slots}
    for slot in reversed(slots):
        assert_same(backwards.row(*slot), rows[slot])
    images = {rows[slot].sample.image.tobytes() for slot in slots}
    assert len(images) == len(slots)  # also where an epoch's end begins anew: at 10 is the image of 0


def test_a_copy_makes_the_same():
    made = pipeline()
    expected = made.row(0, 3)
    content = pickle.dumps(made)
    assert len(content) < 2000  # no decoded images in it
    assert_same(pickle.loads(content).row(0, 3), expected)


@pytest.fixture
def cornered(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """No augmentation: the image in the upper left corner, on gray; with what the augmentation was called."""
    calls = []

    def augmented(rng: Any, fetch: Any, position: int, **options: Any) -> Sample:
        calls.append({"draw": rng.random(), "position": position} | options)
        sample = fetch(position)
        h, w = options["size"]
        height, width = sample.image.shape[:2]
        image = np.full((h, w, 3), GRAY, np.uint8)
        image[:height, :width] = sample.image[:h, :w]
        return sample._replace(image=image)

    monkeypatch.setattr("yolov7_jax.data.pipeline.augmented", augmented)
    return calls


def test_fields_by_hand(cornered: list[dict[str, Any]]):
    source = DrawnSource(1)
    row = pipeline(source, seed=7, max_boxes=5, coarse=True).row(3, 2)
    image, boxes, class_ids, *_ = source[0]
    assert row.errors == ()
    height, width = image.shape[:2]
    content_h, content_w = 64, round(64 * width / height)
    assert height > width
    resized = cv2.resize(image, (content_w, content_h), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(row.sample.image[:, :content_w], resized)
    assert row.sample.valid.tolist() == [True] * 3 + [False] * 2
    assert row.sample.class_ids.tolist() == [*class_ids.tolist(), 0, 0]
    scale = np.array([content_w / width, content_h / height])
    center, extent = (boxes[:, :2] + boxes[:, 2:]) / 2 * scale, (boxes[:, 2:] - boxes[:, :2]) * scale
    expected = np.concatenate([np.concatenate([center, extent], axis=1), np.zeros((2, 4))])
    # float32 of coordinates up to 64, after a handful of operations
    np.testing.assert_allclose(row.sample.boxes_cxcywh_px, expected, rtol=0, atol=5e-5)
    assert (row.sample.index, row.sample.overflow.tolist()) == (0, [0, 0])
    for found, neighbor_offset in ((row.sample.fine, 0.5), (row.sample.coarse, 1.0)):
        direct, _ = candidates(
            row.sample.boxes_cxcywh_px,
            row.sample.valid,
            anchors=ANCHORS,
            strides=STRIDES,
            image_size=(64, 64),
            anchor_t=4.0,
            neighbor_offset=neighbor_offset,
        )
        assert_same(found, direct)
        assert found.valid[:3].any(axis=1).all()
    assert row.sample.fine.index.shape == (5, 12)  # 2 levels of 2 anchors, 3 cells each
    assert row.sample.coarse.index.shape == (5, 20)


def test_what_augmentation_is_given(cornered: list[dict[str, Any]]):
    made = pipeline(DrawnSource(3), seed=7, mosaic_window=2)
    made.row(5, 1)
    made.row(5, 3)  # the batch of four is completed with the first image again, but not with its random numbers
    expected = {"count": 4, "mosaic_window": 2, "side": 64, "size": (64, 64), "config": made.augment, "polygons": False}
    assert cornered == [
        {"draw": np.random.default_rng([7, 5, 1 + position]).random(), "position": position} | expected
        for position in (1, 3)
    ]


NO_MOSAIC = AugmentConfig(mosaic=0, mixup=0, copy_paste=0, mosaic9=0.2, close_mosaic=2, paste_in=0.3)
MOSAIC = replace(NO_MOSAIC, mosaic=0.7, mixup=0.6, copy_paste=0.5)


@pytest.mark.parametrize(("epochs", "last_with"), [(5, 2), (2, -1), (1, -1), (None, 9)])
def test_mosaics_end_before_the_last_epochs(cornered: list[dict[str, Any]], epochs: int | None, last_with: int):
    made = pipeline(augment=MOSAIC, epochs=epochs)
    for epoch in range(epochs or 9):
        made.row(epoch, 0)
    used = [call["config"] for call in cornered]
    assert used == [MOSAIC if epoch <= last_with else NO_MOSAIC for epoch in range(len(used))]


def test_without_a_number_of_last_epochs_all_have_mosaics(cornered: list[dict[str, Any]]):
    augment = replace(MOSAIC, close_mosaic=0)
    pipeline(augment=augment, epochs=3).row(2, 0)
    assert cornered[0]["config"] == augment


def test_each_batch_has_one_of_the_sides_and_its_own_candidates(cornered: list[dict[str, Any]]):
    made = pipeline(DrawnSource(40), shapes=((32, 32), (64, 64), (96, 96)))
    sides = []
    for step in range(made.steps):
        rows = [made.row(0, step * 4 + number).sample for number in range(4)]
        (side,) = {row.image.shape[:2] for row in rows}
        sides.append(side[0])
        assert {(call["side"], call["size"]) for call in cornered[-4:]} == {(96, side)}
        for row in rows:
            direct, _ = candidates(
                row.boxes_cxcywh_px,
                row.valid,
                anchors=ANCHORS,
                strides=STRIDES,
                image_size=side,
                anchor_t=4.0,
                neighbor_offset=0.5,
            )
            assert_same(row.fine, direct)
    assert set(sides) == {32, 64, 96}
    assert made.largest_shape == (96, 96)


def test_batches_of_like_shapes_have_no_mosaic(cornered: list[dict[str, Any]]):
    source = DrawnSource(12)
    sizes = [source[index].image.shape[:2] for index in range(12)]
    shapes, buckets = rectangles(sizes, 64, stride=16)
    made = pipeline(source, augment=MOSAIC, shapes=shapes, buckets=buckets, batch_size=3)
    for position in range(12):
        sample = made.row(1, position).sample
        height, width = load_resized(source, int(sample.index), side=64, on_error="stop").sample.image.shape[:2]
        h, w, _ = sample.image.shape
        assert (h, w) in shapes
        assert height <= h
        assert width <= w
    assert len({call["size"] for call in cornered}) > 1
    assert {call["side"] for call in cornered} == {64}
    assert all(call["config"] == NO_MOSAIC for call in cornered)


def test_the_largest_shape_is_one_that_there_can_be():
    shapes = ((32, 64), (64, 64), (64, 32))
    for wanted, largest in (([0, 0, 0], (32, 64)), ([0, 2, 2], (64, 64)), ([2, 2, 2], (64, 32))):
        made = pipeline(DrawnSource(3), shapes=shapes, buckets=np.array(wanted))
        assert made.largest_shape == largest


def test_types():
    sample = pipeline().row(0, 0).sample
    assert (sample.image.dtype, sample.image.shape) == (np.uint8, (64, 64, 3))
    assert (sample.boxes_cxcywh_px.dtype, sample.boxes_cxcywh_px.shape) == (np.float32, (120, 4))
    assert (sample.class_ids.dtype, sample.valid.dtype, sample.overflow.dtype) == (np.int32, np.bool_, np.int32)
    assert (sample.index.dtype, sample.fine.index.dtype, sample.fine.valid.dtype) == (np.int32, np.int32, np.bool_)
    assert sample.coarse is None


def test_what_is_left_out_is_counted(cornered: list[dict[str, Any]]):
    source = DrawnSource(1)
    full = pipeline(source, coarse=True).row(0, 0).sample
    few = pipeline(source, max_boxes=2).row(0, 0).sample
    assert (few.overflow.tolist(), few.valid.tolist()) == ([1, 0], [True, True])
    np.testing.assert_array_equal(few.boxes_cxcywh_px, full.boxes_cxcywh_px[:2])
    narrow = pipeline(source, capacity=2, coarse=True).row(0, 0).sample
    beyond = sum(np.maximum(kind.valid.sum(axis=1) - 2, 0).sum() for kind in (full.fine, full.coarse))
    assert narrow.overflow.tolist() == [0, beyond]
    assert beyond > 0
    assert narrow.fine.index.shape == (120, 2)


@pytest.mark.parametrize("index", range(8))
def test_resizing_makes_the_long_side_the_size_and_moves_boxes_along(index):
    source = DrawnSource(with_polygons=True)
    image, boxes, _, image_id, polygons = source[index]
    sample, issue = load_resized(source, index, side=64, on_error="stop")
    height, width = image.shape[:2]
    assert max(sample.image.shape[:2]) == 64
    assert (sample.id, issue) == (image_id, "")
    ratio = np.array([sample.image.shape[1] / width, sample.image.shape[0] / height] * 2)
    assert np.abs(ratio - 64 / max(height, width)).max() <= 0.5 / min(height, width)
    np.testing.assert_allclose(sample.boxes_xyxy_px, boxes * ratio, rtol=1e-6)  # float32
    np.testing.assert_allclose(sample.polygons.points_xy_px, polygons.points_xy_px * ratio[:2], rtol=1e-6)
    for array, before in zip(sample.polygons[1:], polygons[1:], strict=True):
        np.testing.assert_array_equal(array, before)
    assert not any(array.flags.writeable for array in (*sample[:3], *sample.polygons))


def test_every_image_of_an_epoch_is_decoded_about_once():
    read: Counter[int] = Counter()

    class Counting(DrawnSource):
        def __getitem__(self, index):
            read[index] += 1
            return super().__getitem__(index)

    made = pipeline(Counting(40), mosaic_window=20)
    for position in range(40):
        made.row(0, position)
    assert read == Counter(range(40))


def test_an_image_that_cannot_be_read_is_gray_or_stops():
    source = DrawnSource(6, bad=(2,))
    skipping, stopping = (pipeline(source, augment=PLAIN, on_error=mode) for mode in ("skip", "stop"))
    where = order_of(skipping).index(2)
    for _ in range(2):
        row = skipping.row(0, where)
        assert row.errors == ("2.png: is empty; expected an image",)
        assert (row.sample.image == GRAY).all()
        assert (row.sample.valid.any(), row.sample.index) == (False, 2)
    with pytest.raises(DataError, match=r"^2\.png: is empty"):
        stopping.row(0, where)
    assert skipping.row(0, (where + 1) % 6).errors == stopping.row(0, (where + 1) % 6).errors == ()


def test_mosaics_name_each_image_that_is_gray_once():
    made = pipeline(DrawnSource(2, bad=(0, 1)), augment=AugmentConfig(mosaic=1))
    (row,) = {made.row(0, 0).errors}
    assert sorted(row) == ["0.png: is empty; expected an image", "1.png: is empty; expected an image"]


def test_a_failure_of_code_names_the_image():
    made = pipeline(DrawnSource(3, wrong=1), augment=PLAIN)
    where = order_of(made).index(1)
    with pytest.raises(DataError, match=r"^1\.png: no training sample could be made .*a bug"):
        made.row(0, where)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(DataError, match="there are no images to train on"):
        pipeline(DrawnSource(0))
    for name, value in (("seed", -1), ("batch_size", 0), ("max_boxes", 0), ("mosaic_window", -1)):
        with pytest.raises(InputError, match=f"{name} is {value}; expected"):
            pipeline(**{name: value})
    with pytest.raises(InputError, match=r"augment\.mosaic"):
        pipeline(augment=replace(PLAIN, mosaic=2))

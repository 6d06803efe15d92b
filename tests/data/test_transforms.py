"""Transforms of users: what they are given, what becomes of what they return, in threads and processes."""

import re
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.training_source import DrawnSource
from tests.data.user_transforms import broken, shift, thinned
from tests.datasets.drawn_polygons import lies_in
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.loader import Loader
from yolov7_jax.data.pipeline import Pipeline
from yolov7_jax.data.transforms import check_sendable, named_transforms, transformed
from yolov7_jax.errors import InputError
from yolov7_jax.ops.polygons import as_polygons, of_object
from yolov7_jax.types import NO_POLYGONS, Polygons, Sample

SIDE = 64
EVERYTHING = AugmentConfig(mosaic9=0.3, mixup=0.3, copy_paste=0.5, paste_in=0.6, degrees=20, shear=5, perspective=2e-3)
PLAIN = AugmentConfig(mosaic=0, scale=0, translate=0, hsv_h=0, hsv_s=0, hsv_v=0, fliplr=0)


def pipeline(config: AugmentConfig = EVERYTHING, **options: Any) -> Pipeline:
    anchors, strides = (((8, 8), (16, 16)), ((24, 24), (40, 40))), (8, 16)
    shape: dict[str, Any] = {"shapes": [(SIDE, SIDE)], "anchors": anchors, "strides": strides}
    chance: dict[str, Any] = {"anchor_t": 4.0, "batch_size": 2, "seed": 3, "mosaic_window": 4}
    source: Any = DrawnSource(with_polygons=True)
    return Pipeline(source=source, augment=config, **shape, **chance, **options)


def drawn(polygon: list[tuple[float, float]], box: tuple[float, ...] = (10, 10, 30, 30)) -> Sample:
    image = np.full((40, 50, 3), 90, np.uint8)
    return Sample(image, np.array([box], np.float32), np.zeros(1, np.int32), 7, as_polygons([[np.array(polygon)]]))


def apply(sample: Sample, *transforms: Any, seed: int = 0, num_classes: int = 2) -> Sample:
    return transformed(np.random.default_rng(seed), sample, transforms, num_classes=num_classes)


@pytest.mark.parametrize("epoch", range(12))
def test_samples_have_polygons_that_fill_their_boxes(epoch: int) -> None:
    """With mosaics, copies, blends, pasted objects and flips: the box of a polygon's points is the object's."""
    seen: list[Sample] = []

    def kept(rng: np.random.Generator, sample: Sample) -> Sample:
        seen.append(sample)
        return sample

    with_transform, without = pipeline(transforms=[kept]), pipeline()
    for position in range(4):
        ours, theirs = (each.row(epoch, position).sample for each in (with_transform, without))
        np.testing.assert_array_equal(ours.image, theirs.image)  # chance is drawn as without transforms
        np.testing.assert_allclose(ours.boxes_cxcywh_px, theirs.boxes_cxcywh_px, atol=1e-3)
        np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
    outlined = 0
    for sample in seen:
        for index, box in enumerate(sample.boxes_xyxy_px):
            polygons = of_object(sample.polygons, index)
            if polygons:
                points = np.concatenate(polygons)
                np.testing.assert_allclose([*points.min(axis=0), *points.max(axis=0)], box, atol=2e-3)
                outlined += 1
    assert outlined


def test_polygons_are_where_their_objects_are_drawn() -> None:
    """White objects on black, warped and flipped: their pixels are those in the polygons."""

    class White(DrawnSource):
        def __getitem__(self, index: int) -> Sample:
            one = super().__getitem__(index)
            grid = np.stack(np.meshgrid(*(np.arange(side) + 0.5 for side in one.image.shape[1::-1])), axis=-1)
            inside = np.zeros(one.image.shape[:2], bool)
            for at in range(len(one.class_ids)):
                for polygon in of_object(one.polygons, at):
                    inside |= lies_in(grid.reshape(-1, 2), [polygon]).reshape(inside.shape)
            return one._replace(image=np.repeat(inside[..., None] * np.uint8(255), 3, axis=-1))

    seen: list[Sample] = []

    def kept(rng: np.random.Generator, sample: Sample) -> Sample:
        seen.append(sample._replace(image=sample.image.copy()))
        return sample

    warps = AugmentConfig(degrees=20, shear=5, scale=0.3, flipud=0.5, hsv_h=0, hsv_s=0, hsv_v=0)
    source: Any = White(with_polygons=True)
    made = replace(pipeline(warps, transforms=[kept]), source=source)
    for position in range(8):
        made.row(0, position)
    grid = np.stack(np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5), axis=-1).reshape(-1, 2)
    shares = []
    for sample in seen:
        inside = np.zeros(len(grid), bool)
        for at in range(len(sample.class_ids)):
            for polygon in of_object(sample.polygons, at):
                inside |= lies_in(grid, [polygon])
        white = (sample.image > 200).all(axis=-1).ravel()
        black = (sample.image < 60).all(axis=-1).ravel()
        assert not (inside & black).sum() > 0.08 * max(inside.sum(), 1)
        shares.append((inside & white).sum() / max(inside.sum(), 1))
    assert np.mean(shares) > 0.8


def test_boxes_are_clipped_and_too_small_ones_left_out() -> None:
    def moved(rng: np.random.Generator, sample: Sample) -> Sample:
        boxes = np.array([(-5, 10, 20, 60), (48.5, 5, 70, 30), (5, 5, 6, 30), (60, 60, 80, 80), (0, 0, 50, 2.1)])
        return Sample(sample.image, boxes, np.arange(5) % 2, 99)

    made = apply(drawn([(10, 10), (30, 10), (30, 30)]), moved)
    assert made.boxes_xyxy_px.tolist() == [[0, 10, 20, 40]]  # others: 1.5 and 1 pixels wide, outside, 1 : 24
    assert (made.class_ids.tolist(), made.id) == ([0], 7)
    assert (made.boxes_xyxy_px.dtype, made.class_ids.dtype) == (np.float32, np.int32)


def test_a_box_becomes_that_of_what_shows_of_its_polygon() -> None:
    triangle = [(-10, 10), (30, 10), (30, 30)]  # it crosses x = 0 at y = 15 on its long side

    def turned(rng: np.random.Generator, sample: Sample) -> Sample:
        return drawn(triangle, (-10, 5, 33, 33))

    assert apply(drawn(triangle), turned).boxes_xyxy_px.tolist() == [[0, 10, 30, 30]]


WRONG: dict[str, tuple[Any, str]] = {
    "none": (lambda s: None, "NoneType; expected a Sample"),
    "float": (
        lambda s: s._replace(image=s.image / 255),
        r"an image float64 \[40, 50, 3\]; expected uint8 \[40, 50, 3\]",
    ),
    "shape": (lambda s: s._replace(image=s.image[:20]), r"an image uint8 \[20, 50, 3\]; expected uint8 \[40, 50, 3\]"),
    "flat": (lambda s: s._replace(boxes_xyxy_px=s.boxes_xyxy_px[0]), r"boxes_xyxy_px float32 \[4\]; expected numbers"),
    "infinite": (lambda s: s._replace(boxes_xyxy_px=s.boxes_xyxy_px * np.inf), "boxes that are not finite"),
    "corners": (
        lambda s: s._replace(boxes_xyxy_px=s.boxes_xyxy_px[:, [2, 1, 0, 3]]),
        "boxes whose second corner is left of the first or above it; expected x1, y1, x2, y2",
    ),
    "count": (lambda s: s._replace(class_ids=s.class_ids[:0]), r"class_ids int32 \[0\]; expected integers \[1\]"),
    "class": (lambda s: s._replace(class_ids=s.class_ids + 2), "class_ids from 2 to 2; expected 0 to 1"),
    "owner": (
        lambda s: s._replace(boxes_xyxy_px=s.boxes_xyxy_px[:0], class_ids=s.class_ids[:0]),
        r"polygons of other objects than its 0; .*polygons\.select",
    ),
    "points": (
        lambda s: s._replace(polygons=Polygons(np.zeros((2, 2), np.float32), *s.polygons[1:])),
        "polygons whose points, corners and owner do not fit",
    ),
    "forgotten": (
        lambda s: s._replace(boxes_xyxy_px=s.boxes_xyxy_px + np.float32(4)),
        r"polygons that reach 4\.0 pixels beyond the boxes",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_trained_on_is_refused_by_name(kind: str) -> None:
    change, sentence = WRONG[kind]

    def mine(rng: np.random.Generator, sample: Sample) -> Sample:
        return change(sample)

    with pytest.raises(InputError, match=f"^mine: the transform returned {sentence}"):
        apply(drawn([(10, 10), (30, 10), (30, 30)]), mine)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(*[st.floats(-200, 200)] * 4), max_size=6))
def test_whatever_boxes_come_back_fit_the_image(seed: int, boxes: list[tuple[float, ...]]) -> None:
    def mine(rng: np.random.Generator, sample: Sample) -> Sample:
        found = np.sort(np.array(boxes, np.float64).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        return Sample(sample.image, found, rng.integers(0, 2, len(found)), 0, NO_POLYGONS)

    made = apply(drawn([(10, 10), (30, 10), (30, 30)]), mine, seed=seed)
    width, height = (made.boxes_xyxy_px[:, 2:] - made.boxes_xyxy_px[:, :2]).T
    assert (width > 2).all()
    assert (height > 2).all()
    assert (made.boxes_xyxy_px >= 0).all()
    assert (made.boxes_xyxy_px <= np.array([50, 40, 50, 40])).all()
    again = apply(made, lambda rng, sample: sample)
    np.testing.assert_array_equal(again.boxes_xyxy_px, made.boxes_xyxy_px)


def test_a_failure_is_the_users_and_ours_is_not_mixed_in() -> None:
    with pytest.raises(InputError) as caught:
        pipeline(transforms=[broken]).row(0, 0)
    sentence = str(caught.value)
    assert sentence.startswith("broken: the transform failed; correct it\nTraceback")
    assert "in broken" in sentence
    assert sentence.endswith("ZeroDivisionError: a bug of the user")
    assert re.findall(r'File ".*/(\w+)\.py"', sentence) == ["user_transforms", "user_transforms"]


@pytest.mark.parametrize("workers", [{"workers": 0}, {"workers": 2}, {"workers": 2, "processes": True}])
def test_samples_are_the_same_whoever_makes_them(workers: dict[str, Any]) -> None:
    transforms = [*named_transforms(["test_shift(most=9)"]), thinned]
    made = pipeline(transforms=transforms)
    assert any(made.row(0, at).sample.valid.any() for at in range(4))
    with closing(Loader(made, **workers).batches()) as batches:
        for step, batch in enumerate(islice(batches, 3)):
            for row in range(2):
                expected = made.row(0, 2 * step + row).sample
                np.testing.assert_array_equal(batch.image[row], expected.image)
                np.testing.assert_array_equal(batch.boxes_cxcywh_px[row], expected.boxes_cxcywh_px)


def test_a_failure_in_a_process_says_the_same() -> None:
    with (
        closing(Loader(pipeline(transforms=[broken]), workers=1, processes=True).batches()) as batches,
        pytest.raises(
            InputError, match=r"(?s)^broken: the transform failed; correct it\nTraceback.*a bug of the user$"
        ),
    ):
        next(batches)


def test_what_it_moves_is_moved() -> None:
    plain, moved = (pipeline(PLAIN, transforms=list(t)).row(0, 0).sample for t in ((), (partial(shift, most=1),)))
    np.testing.assert_array_equal(moved.image[:, 1:], plain.image[:, :-1])
    first, second = (one.boxes_cxcywh_px[one.valid] for one in (plain, moved))
    inner = first[:, 0] + first[:, 2] / 2 < SIDE - 1
    assert inner.any()
    np.testing.assert_allclose(second[inner], first[inner] + np.array([1, 0, 0, 0]), atol=1e-3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("test_shif", r"augment\.transforms: 'test_shif' is not known \(did you mean 'test_shift'\?"),
        ("test_shift(least=4)", r"augment\.transforms: 'test_shift\(least=4\)' cannot be called .*'least'"),
        ("test_shift(most=open('x'))", r"augment\.transforms: .* cannot be read"),
    ],
)
def test_names_are_checked_before_the_run(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        named_transforms([text])


def test_what_processes_cannot_be_given_is_refused() -> None:
    check_sendable([partial(shift, most=3)])
    with pytest.raises(InputError, match=r"<lambda>: the transform cannot be sent .*data\.processes=false"):
        check_sendable([lambda rng, sample: sample])

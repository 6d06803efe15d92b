"""Tiles cover an image, and what is found in them becomes one list."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_networks import noise, small_weights
from yolov7_jax.config import Options
from yolov7_jax.datasets import open_source
from yolov7_jax.evaluation.coco import evaluate
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.results import ImageDetections
from yolov7_jax.inference.tiling import merge_tiles, tile_windows

SIDES = st.integers(1, 3000)


@given(size=st.tuples(SIDES, SIDES), tile=st.integers(200, 1000), overlap=st.sampled_from([0.0, 0.2, 0.5]))
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int], tile: int, overlap: float) -> None:
    *tiles, whole = tile_windows(size, tile, overlap)
    assert whole == (0, 0, size[1], size[0])
    if not tiles:
        assert max(size) <= tile
        return
    for axis, side in ((0, size[1]), (1, size[0])):
        spans = sorted({(window[axis], window[axis + 2]) for window in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        assert all(end - start == min(tile, side) for start, end in spans)
        # Rounding to whole pixels takes one from an overlap at most.
        assert all(end - start >= tile * overlap - 1 for (_, end), (start, _) in itertools.pairwise(spans))


def test_one_tile_finds_what_plain_detection_finds() -> None:
    detector, image = Detector(small_weights()), noise(50, 64)
    (plain,), (tiled,) = detector(image, confidence=0.1), detector(image, confidence=0.1, tiles=64)
    assert len(plain) > 0
    for part in ("boxes_xyxy_px", "scores", "class_ids"):
        assert np.array_equal(getattr(tiled, part), getattr(plain, part))


def test_arrays_of_other_kinds_are_read_once() -> None:
    detector, image = Detector(small_weights()), noise(100, 150)
    (expected,) = detector(image, tiles=64)
    floats = (image[..., ::-1].transpose(2, 0, 1) / np.float32(255)).astype(np.float32)
    (given,) = detector(floats, tiles=64, bgr=True, channels_first=True, unit_range=True)
    assert len(expected) > 0
    assert np.array_equal(given.boxes_xyxy_px, expected.boxes_xyxy_px)
    assert np.array_equal(given.image, image)


def found(*rows: tuple[float, float, float, float, float, int]) -> ImageDetections:
    values = np.array(rows, np.float32).reshape(-1, 6)
    return ImageDetections(values[:, :4], values[:, 4], values[:, 5].astype(np.int32), ("a", "b"))


WINDOWS = [(0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)]


@pytest.mark.parametrize(
    ("parts", "options", "kept"),
    [
        # One object in the overlap of two tiles and in the whole: the best of the three.
        ([(82, 10, 98, 30, 0.8, 0), (2, 10, 18, 30, 0.9, 0), (82, 10, 98, 30, 0.5, 0)], {}, [(82, 10, 98, 30, 0.9)]),
        # An object over the edge between tiles: the whole box, though its halves score more.
        ([(60, 10, 100, 30, 0.9, 0), (0, 10, 50, 30, 0.8, 0), (60, 10, 130, 30, 0.6, 0)], {}, [(60, 10, 130, 30, 0.6)]),
        # By intersection over union the halves, which are under 0.45 of nothing, stay.
        (
            [(69, 10, 100, 30, 0.9, 0), (20, 10, 49, 30, 0.8, 0), (60, 10, 160, 30, 0.6, 0)],
            {"merge": "iou"},
            [(69, 10, 100, 30, 0.9), (100, 10, 129, 30, 0.8), (60, 10, 160, 30, 0.6)],
        ),
        # Another class is another object, unless NMS is across classes.
        ([(10, 10, 30, 30, 0.9, 0), (), (10, 10, 30, 30, 0.8, 1)], {}, [(10, 10, 30, 30, 0.9), (10, 10, 30, 30, 0.8)]),
        ([(10, 10, 30, 30, 0.9, 0), (), (10, 10, 30, 30, 0.8, 1)], {"agnostic": True}, [(10, 10, 30, 30, 0.9)]),
        ([(10, 10, 30, 30, 0.9, 0), (), (60, 10, 70, 30, 0.8, 0)], {"max_detections": 1}, [(10, 10, 30, 30, 0.9)]),
        ([(), (), ()], {}, []),
    ],
)
def test_boxes_of_tiles_become_one_list(parts: list, options: dict, kept: list) -> None:
    merged = merge_tiles([found(*([part] if part else [])) for part in parts], WINDOWS, Options(**options))
    assert merged.boxes_xyxy_px.tolist() == [list(map(float, row[:4])) for row in kept]
    assert merged.scores.tolist() == pytest.approx([row[4] for row in kept])


def test_failures_keep_their_place(tmp_path: Path) -> None:
    detector = Detector(small_weights())
    images = [noise(100, 150), tmp_path / "absent.jpg", noise(30, 40, 1)]
    results = {r.position: r for r in detector.stream(images, Options(tiles=64, batch_size=3, few_shapes=False))}
    assert "absent.jpg" in str(results[1].error)
    assert results[0].detections is not None
    assert results[0].detections.size == (100, 150)
    assert np.array_equal(results[0].detections.image, images[0])
    assert results[2].detections is not None
    assert results[2].detections.size == (30, 40)


@pytest.mark.shared
def test_small_objects_of_large_images_are_found_in_tiles(shared: Path) -> None:
    source = open_source(shared / "coco128" / "data.yaml")
    detector = Detector.load(shared / "weights/yolov5n.pt")
    images, boxes, class_ids = mosaic(source, range(12), columns=4, cell=(480, 640))
    truth = {
        "images": [{"id": 1, "height": images.shape[0], "width": images.shape[1]}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(source.names)],
        "annotations": [
            {"id": row, "image_id": 1, "category_id": class_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for row, (class_id, box) in enumerate(zip(class_ids.tolist(), boxes.tolist(), strict=True))
        ],
    }
    by_tiles = {}
    for tiles in (None, 640):
        (one,) = detector(images, confidence=0.01, tiles=tiles, few_shapes=True)
        by_tiles[tiles] = evaluate(truth, one.to_coco(1))
    assert by_tiles[640].AP_small > 0.04 > by_tiles[None].AP_small  # at 640 px nothing of under 32² is left of them
    assert by_tiles[640].AP_medium > by_tiles[None].AP_medium + 0.1


def mosaic(source, places, *, columns, cell):
    """Photographs beside each other, each at its own size, and the boxes (x, y, w, h) of the objects in all."""
    height, width = cell
    canvas = np.full((-(-len(places) // columns) * height, columns * width, 3), 114, np.uint8)
    boxes, class_ids = [], []
    for number, place in enumerate(places):
        sample = source[place]
        top, left = number // columns * height, number % columns * width
        part = sample.image[:height, :width]
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        low, high = sample.boxes_xyxy_px[:, :2], sample.boxes_xyxy_px[:, 2:].clip(0, [part.shape[1], part.shape[0]])
        seen = (high - low > 2).all(axis=1)
        boxes.append(np.concatenate([low + np.array([left, top]), high - low], axis=1)[seen])
        class_ids.append(sample.class_ids[seen])
    return canvas, np.concatenate(boxes), np.concatenate(class_ids)

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.curate.anchors import fit
from yolov7_jax.datasets.curate.statistics import Objects, objects_of, sizes_at, statistics
from yolov7_jax.errors import DataError
from yolov7_jax.graph.zoo.anchors import YOLOV3
from yolov7_jax.types import Labels


def labels(size: tuple[int, int], *objects: tuple[int, float, float, float, float]) -> Labels:
    rows = np.array(objects, np.float64).reshape(-1, 5)
    return Labels(size=size, class_ids=rows[:, 0].astype(np.int32), boxes_xyxy_px=rows[:, 1:])


THREE_IMAGES = [
    labels((100, 200), (0, 10, 10, 30, 50), (2, -20, 0, 100, 100), (2, 210, 0, 250, 50)),  # beyond; wholly outside
    labels((80, 80)),
    labels((320, 160), (0, 0, 0, 160, 320)),
]


def test_boxes_are_clipped_and_those_outside_left_out() -> None:
    objects = objects_of(THREE_IMAGES)
    assert objects.image.tolist() == [0, 0, 2]
    assert objects.class_ids.tolist() == [0, 2, 0]
    assert objects.boxes_xyxy_px.tolist() == [[10, 10, 30, 50], [0, 0, 100, 100], [0, 0, 160, 320]]
    assert objects.image_sizes.tolist() == [[100, 200], [80, 80], [320, 160]]


def test_sizes_are_those_of_the_letterbox() -> None:
    # Images of 200 and 320 pixels on their longer side become 640: factors 3.2 and 2.
    assert sizes_at(objects_of(THREE_IMAGES), 640).tolist() == [[64, 128], [320, 320], [320, 640]]


def test_counts_by_hand() -> None:
    found = statistics(objects_of(THREE_IMAGES), ["ant", "bee", "cat"], size=640, anchors=YOLOV3)
    assert (found.images, found.objects) == (3, 3)
    assert (found.class_objects, found.class_images) == ((2, 0, 1), (2, 0, 1))
    assert found.objects_of_images == (1, 1, 1)  # none, one, two
    assert (found.small, found.medium, found.large, found.tiny) == (0, 1, 2, 0)  # 64 · 128 = 8192 < 96²
    assert np.flatnonzero(found.aspects.counts).tolist() == [12, 16]  # log2 of 1/2 (twice) and of 1
    assert found.aspects.counts[12] == 2
    # Centers at (0.1, 0.3), (0.25, 0.5), (0.5, 0.5) of their images, of 32 rows and columns.
    assert np.argwhere(found.places).tolist() == [[9, 3], [16, 8], [16, 16]]


def test_an_image_counts_once_for_a_class() -> None:
    twice = labels((64, 64), (1, 0, 0, 8, 8), (1, 8, 8, 16, 16), (0, 0, 0, 9, 9))
    found = statistics(objects_of([twice, twice]), ["ant", "bee"], size=64, anchors=YOLOV3)
    assert (found.class_objects, found.class_images) == ((2, 4), (2, 2))
    assert found.objects_of_images == (0, 0, 0, 2)


@st.composite
def data_sets(draw: st.DrawFn) -> Objects:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any))
    images = []
    for count in counts:
        height, width = rng.integers(1, 900, 2)
        corners = rng.uniform(-0.1, 1.1, (2, count, 2)) * (width, height)
        boxes = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
        images.append(
            Labels(size=(height, width), class_ids=rng.integers(0, 4, count).astype(np.int32), boxes_xyxy_px=boxes)
        )
    return objects_of(images)


@given(data_sets(), st.sampled_from([32, 100, 640, 1280]))
def test_every_object_is_counted_once_everywhere(objects: Objects, size: int) -> None:
    n = len(objects.image)
    if not n:
        return
    found = statistics(objects, "abcd", size=size, anchors=YOLOV3)
    sizes = np.array(found.sizes.counts)
    assert n == sizes.sum() == sum(found.aspects.counts) == np.sum(found.places) == sum(found.class_objects)
    assert n == found.small + found.medium + found.large
    assert n == sum(number * images for number, images in enumerate(found.objects_of_images))
    assert sum(found.objects_of_images) == found.images
    assert found.class_objects == tuple(Counter(objects.class_ids.tolist())[k] for k in range(4))
    edges = np.array(found.sizes.edges)
    column, row = np.searchsorted(edges, sizes_at(objects, size)[0].clip(1, edges[-1] * 0.999), "right") - 1
    assert sizes[row, column] >= 1


@given(data_sets())
def test_coverage_at_a_ratio_is_the_recall_for_it(objects: Objects) -> None:
    if not len(objects.image):
        return
    found = statistics(objects, "abcd", size=640, anchors=YOLOV3)
    for place in (4, 24, 56):
        one = fit(sizes_at(objects, 640), YOLOV3, found.coverage.ratios[place])
        assert found.coverage.all[place] == one.recall
        assert tuple(level[place] for level in found.coverage.levels) == one.level_recall
    assert found.coverage.ratios[24] == found.anchor_t
    assert found.coverage.all[24] == found.anchor_fit.recall


def test_no_objects_are_refused() -> None:
    with pytest.raises(DataError, match="there are no boxes"):
        statistics(objects_of([labels((8, 8))]), ["ant"], size=640, anchors=YOLOV3)


def test_no_images_have_no_objects() -> None:
    assert len(objects_of([]).boxes_xyxy_px) == 0


def test_statistics_are_plain_values_for_json() -> None:
    found = statistics(objects_of(THREE_IMAGES), ["ant", "bee", "cat"], size=640, anchors=YOLOV3)
    read = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert read["class_objects"] == [2, 0, 1]
    assert read["anchor_fit"]["recall"] == found.anchor_fit.recall
    assert read["sizes"]["edges"][0] == 1


def test_summary_names_the_most_common_classes() -> None:
    found = statistics(objects_of(THREE_IMAGES), ["ant", "bee", "cat"], size=640, anchors=YOLOV3)
    assert found.lines()[:2] == [
        "3 objects in 3 images: 1.0 an image, 2 at most, 1 images have none",
        "3 classes; 1 have none: ant 2, cat 1",
    ]


@pytest.mark.shared
def test_numbers_of_coco128_are_those_of_its_annotations(shared: Path) -> None:
    source = open_source(shared / "coco128" / "data.yaml", "train")
    objects = objects_of(source.labels(index) for index in range(len(source)))
    found = statistics(objects, source.names, size=640, anchors=YOLOV3)
    content = json.loads((shared / "coco128" / "instances.json").read_text())
    sides = {image["id"]: max(image["width"], image["height"]) for image in content["images"]}
    areas = [a["bbox"][2] * a["bbox"][3] * (640 / sides[a["image_id"]]) ** 2 for a in content["annotations"]]
    assert found.objects == len(areas)
    # Labels have six digits: no area lies so near to a bound that it could change sides.
    assert min(abs(area / bound - 1) for area in areas for bound in (32**2, 96**2)) > 1e-4
    assert (found.small, found.small + found.medium) == tuple(sum(a < b for a in areas) for b in (32**2, 96**2))

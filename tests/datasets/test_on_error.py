"""What sources do about entries that are wrong where they are told to go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.datasets.labeled_images import write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import DataError
from yolov7_jax.source import SourceMixin

WIDTH, HEIGHT = 40, 20
GOOD = "0 0.5 0.5 0.1 0.1"
WRONG_LINES = ["3 0.5 0.5 0.1 0.1", "0 1.5 0.5 0.1 0.1", "0 0.5 nan 0.1 0.1", "0 0.5 0.5 0.1", "cat 0.5 0.5 0.1 0.1"]


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", "a.png", "b.png")
    write_text(tmp_path / "labels" / "a.txt", "\n".join([GOOD, *WRONG_LINES, "2 0.5 0.5 0.2 0.2"]))
    write_text(tmp_path / "labels" / "b.txt", GOOD)
    return write_text(tmp_path / "data.yaml", "val: images\nnames: [cat, dog, bird]\n")


def sentence_of(source: SourceMixin, index: int) -> str:
    with pytest.raises(DataError) as error:
        source[index]
    return str(error.value)


def test_wrong_lines_are_left_out_and_named(yolo: Path, tmp_path: Path):
    source = open_source(yolo, on_error="skip")
    assert source[0].class_ids.tolist() == [0, 2]
    issues = source.labels(0).issues
    file = tmp_path / "labels" / "a.txt"
    assert [issue.message.split(":")[0] for issue in issues] == [f"{file}, line {number}" for number in range(2, 7)]
    assert issues[0].message == sentence_of(open_source(yolo), 0)  # the first is what stops
    assert source.labels(1).issues == source.issues == ()
    assert [row["category_id"] for row in source.ground_truth()["annotations"]] == [1, 3, 1]


def test_label_files_that_are_no_text_are_not_images_without_objects(yolo: Path, tmp_path: Path):
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert "a.txt: the labels cannot be read" in sentence_of(open_source(yolo, on_error="skip"), 0)


def test_listed_images_that_are_not_there_are_kept(yolo: Path, tmp_path: Path):
    write_text(tmp_path / "list.txt", "images/x.png\nimages/b.png\n")
    write_text(yolo, "val: list.txt\nnames: [cat, dog, bird]\n")
    source = open_source(yolo, on_error="skip")
    assert [source.path(index).name for index in range(len(source))] == ["x.png", "b.png"]
    assert "x.png: cannot be read" in sentence_of(source, 0)
    write_text(tmp_path / "list.txt", "images/x.png\nimages/y.png\n")
    with pytest.raises(DataError, match=r"list\.txt, line 1: the image images/x\.png is not there"):
        open_source(yolo, on_error="skip")


def test_issues_of_the_whole_are_raised_all_the_same(yolo: Path):
    with pytest.raises(DataError, match="no split 'train'"):
        open_source(yolo, "train", on_error="skip")
    write_text(yolo, "val: images\n")
    with pytest.raises(DataError, match="the key names is missing"):
        open_source(yolo, on_error="skip")


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0} | changes


WRONG_ANNOTATIONS = [
    (annotation(2, category_id=9), "category_id 9, which is not in categories", 1),
    (annotation(3, bbox=[1, float("nan"), 3, 4]), "finite", 1),
    (annotation(4, bbox=[1, 2, 3]), "expected four numbers", 1),
    (annotation(5, bbox=[40, 1, 5, 5]), "outside of its image of 40 x 20 pixels", 1),
    (annotation(6, bbox=[-5, 1, 5, 5]), "outside", 1),
    (annotation(7, bbox=[1, -1, 5, 0.5]), "outside", 1),
    (annotation(8, bbox=[1, 20, 5, 0.5]), "outside", 1),
    (annotation(9, image_id=99), "image_id 99, which is not in images", None),
    (annotation(10, image_id=[1]), "has no integer 'image_id'", None),
    (3, "annotation number 11 has no integer 'image_id'", None),
]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", "a.png", "b.png")
    content = {
        "images": [
            {"id": 2, "file_name": "b.png"},
            {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 1, "file_name": "again.png"},
            {"file_name": "c.png"},
            {"id": 4, "file_name": "d.png", "width": 0, "height": 3},
        ],
        "annotations": [
            annotation(1),
            *(row for row, _, image in WRONG_ANNOTATIONS if image is not None),
            *(row for row, _, image in WRONG_ANNOTATIONS if image is None),
            annotation(20, image_id=2, bbox=[-5, -5, 100, 100]),
            annotation(21, image_id=2, bbox=[1, 1, 0, 5]),
            annotation(22, image_id=2, bbox=[-5, -5, 100, 100]),
            annotation(23, image_id=2, iscrowd=1),
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return write_text(tmp_path / "data.json", json.dumps(content))


def test_wrong_entries_are_left_out_and_named(coco: Path):
    source = open_source(coco, on_error="skip")
    assert source.image_ids == (2, 1)
    assert source[1].boxes_xyxy_px.tolist() == [[1, 1, 6, 6]]
    issues = source.labels(1).issues
    expected = [message for _, message, image in WRONG_ANNOTATIONS if image is not None]
    for issue, message, number in zip(issues, expected, range(2, 9), strict=True):
        assert issue.message.startswith(f"{coco}: annotation {number} ")
        assert message in issue.message
    whole = ["two entries have the image id 1", "image number 4 has no integer id", "image 4 has width 0"]
    whole += [message for _, message, image in WRONG_ANNOTATIONS if image is None]
    for issue, message in zip(source.issues, whole, strict=True):
        assert issue.message.startswith(f"{coco}: ")
        assert message in issue.message
    truth = source.ground_truth()
    assert [row["id"] for row in truth["images"]] == [2, 1]
    assert [row["id"] for row in truth["annotations"]] == [1, 20, 21, 22, 23]
    with pytest.raises(DataError, match="two entries have the image id 1"):
        open_source(coco)


def test_objects_left_out_of_coco_are_counted(coco: Path):
    labels = open_source(coco, on_error="skip").labels(0)
    assert (labels.class_ids.tolist(), labels.duplicates, labels.empty, labels.issues) == ([0], 1, 1, ())


def test_missing_images_of_coco_are_kept(coco: Path, tmp_path: Path):
    (tmp_path / "images" / "b.png").unlink()
    source = open_source(coco, on_error="skip")
    assert (len(source), source[1].id) == (2, 1)
    assert "b.png: cannot be read" in sentence_of(source, 0)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"its image b\.png is not in .*; name the folder"):
        open_source(coco, on_error="skip")


def test_a_subset_is_these_images(coco: Path, yolo: Path):
    for file in (coco, yolo):
        source = open_source(file, on_error="skip")
        swapped = source.subset([1, 0, 1])
        assert swapped.image_ids == tuple(source.image_ids[index] for index in (1, 0, 1))
        for index, origin in enumerate((1, 0, 1)):
            assert swapped.path(index) == source.path(origin)
            assert swapped.size(index) == source.size(origin)
            assert swapped.labels(index).issues == source.labels(origin).issues
            (*one, polygons), (*other, other_polygons) = swapped[index], source[origin]
            for value, expected in zip([*one, *polygons], [*other, *other_polygons], strict=True):
                np.testing.assert_array_equal(value, expected)
        alone = source.subset([0])
        kept = [row for row in source.ground_truth()["annotations"] if row["image_id"] == source.image_ids[0]]
        assert alone.ground_truth()["annotations"] == kept
        assert [row["id"] for row in alone.ground_truth()["images"]] == [source.image_ids[0]]
        assert len(source.subset([])) == 0

"""Several data sets as one, against the data sets by themselves."""

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.datasets.labeled_images import write_text
from yolov7_jax.datasets import label_cache, open_source, with_names, with_one_class
from yolov7_jax.datasets.audit import audit, readable
from yolov7_jax.datasets.curate.conversion import split_names
from yolov7_jax.datasets.label_cache import cached_findings
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.source import SourceMixin

WIDTH, HEIGHT = 40, 20
YOLO_NAMES, COCO_NAMES, VOC_NAMES = ("cat", "dog"), ("dog", "bird"), ("ant", "cat")
TRIANGLE = "0 0.1 0.2 0.5 0.2 0.5 0.8"


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        color = tuple(np.random.default_rng(len(name) + ord(name[0])).integers(0, 256, 3).tolist())
        Image.new("RGB", (WIDTH, HEIGHT), color).save(folder / name)


def voc_object(name: str, box: str, difficult: int = 0) -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """YOLO with train and val, COCO, VOC with train and val; each has an issue or an ignored object."""
    write_images(tmp_path / "yolo" / "images" / "val", "7.png", "8.png")
    write_images(tmp_path / "yolo" / "images" / "train", "9.png")
    write_text(
        tmp_path / "yolo" / "labels" / "val" / "7.txt", f"{TRIANGLE}\n1 0.5 0.5 0.5 0.5\n{TRIANGLE}\n5 0.5 0.5 0.1 0.1"
    )
    write_text(tmp_path / "yolo" / "labels" / "train" / "9.txt", "1 0.5 0.5 0.5 0.5")
    write_text(tmp_path / "yolo" / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    write_images(tmp_path / "pictures", "a.png", "b.png")
    content = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "a.png"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 20, "bbox": [1, 2, 3, 4], "area": 5, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 10, "bbox": [2, 2, 3, 4], "area": 6, "iscrowd": 0},
            {"id": 3, "image_id": 3, "category_id": 10, "bbox": [3, 2, 3, 4], "area": 7, "iscrowd": 1},
            {"id": 4, "image_id": 99, "category_id": 10, "bbox": [3, 2, 3, 4], "area": 7, "iscrowd": 1},
        ],
        "categories": [{"id": 10, "name": "dog"}, {"id": 20, "name": "bird"}],
    }
    content["annotations"][1]["segmentation"] = [[2, 2, 5, 2, 5, 6]]
    write_text(tmp_path / "coco" / "boxes.json", json.dumps(content))
    write_images(tmp_path / "voc" / "JPEGImages", "x.png", "y.png")
    objects = {
        "x": [voc_object("ant", "1 1 9 9"), voc_object("cat", "2 2 9 9", 1)],
        "y": [voc_object("cat", "3 3 9 9")],
    }
    for name, items in objects.items():
        write_text(tmp_path / "voc" / "Annotations" / f"{name}.xml", f"<annotation>{''.join(items)}</annotation>")
    write_text(tmp_path / "voc" / "ImageSets" / "Main" / "val.txt", "x")
    write_text(tmp_path / "voc" / "ImageSets" / "Main" / "train.txt", "y")
    return tmp_path


ENTRIES = """
datasets:
  - yolo/data.yaml
  - {data: coco/boxes.json, images: pictures}
  - voc
"""


def opened(root: Path, text: str = ENTRIES, split: str = "val", **options: Any) -> SourceMixin:
    return open_source(write_text(root / "all.yaml", text), split, **{"on_error": "skip"} | options)


def parts(root: Path) -> list[SourceMixin]:
    return [
        open_source(root / "yolo" / "data.yaml", on_error="skip"),
        open_source(root / "coco" / "boxes.json", image_folder=root / "pictures", on_error="skip"),
        open_source(root / "voc", on_error="skip"),
    ]


def test_images_of_all_with_classes_by_name(root: Path):
    source = opened(root)
    assert source.names == ("cat", "dog", "bird", "ant")
    assert (len(source), source.image_ids, source.category_ids) == (5, (1, 2, 3, 4, 5), (1, 2, 3, 4))
    alone = [(part, index) for part in parts(root) for index in range(len(part))]
    for index, (part, inner) in enumerate(alone):
        sample, expected = source[index], part[inner]
        assert sample.id == index + 1
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.boxes_xyxy_px, expected.boxes_xyxy_px)
        for array, wanted in zip(sample.polygons, expected.polygons, strict=True):
            np.testing.assert_array_equal(array, wanted)
        assert [source.names[at] for at in sample.class_ids] == [part.names[at] for at in expected.class_ids]
        assert source.path(index).samefile(part.path(inner))
        assert source.size(index) == source.check_image(index) == part.size(inner)
        labels, wanted = source.labels(index), part.labels(inner)
        assert (labels.duplicates, labels.unlisted, labels.missing) == (wanted.duplicates, 0, wanted.missing)
        assert len(labels.issues) == len(wanted.issues)
        assert [source.names[at] for at in labels.ignored_class_ids] == [
            part.names[at] for at in wanted.ignored_class_ids
        ]
    assert [issue.kind for issue in source.issues] == ["label without image"]
    assert source.labels(0).polygons.owner.tolist() == [0]


@pytest.mark.parametrize(
    ("entries", "splits"),
    [
        ("[yolo/data.yaml]", ("train", "val")),
        ("[{train: yolo/data.yaml}, {test: voc}]", ("train",)),
        ("[{train: yolo/data.yaml}, {val: {data: voc, split: train}}]", ("train", "val")),
        ("[{val: voc}, {test: {data: voc, split: train}}]", ("val", "test")),
        ("[{train: {data: coco/boxes.json, images: pictures}}]", ("train",)),
        ("[coco/boxes.json]", ("train", "val")),
    ],
)
def test_splits_are_those_that_any_of_the_sets_has(root: Path, entries: str, splits: tuple[str, ...]):
    assert split_names(write_text(root / "all.yaml", f"datasets: {entries}\n")) == splits


def test_a_source_with_other_names_keeps_its_categories(root: Path):
    source = open_source(root / "coco" / "boxes.json", image_folder=root / "pictures", on_error="skip")
    assert with_names(source, source.names) is source
    other = with_names(source, ("ant", *reversed(source.names)))
    assert other.category_ids == (max(source.category_ids) + 1, *reversed(source.category_ids))
    assert as_rows(other.ground_truth()) == as_rows(source.ground_truth())
    for index in range(len(source)):
        assert [other.names[at] for at in other[index].class_ids] == [
            source.names[at] for at in source[index].class_ids
        ]


def as_rows(truth: dict[str, Any]) -> Counter[tuple[Any, ...]]:
    """Annotations by what they say, without ids."""
    category = {row["id"]: row["name"] for row in truth["categories"]}
    file = {row["id"]: row["file_name"] for row in truth["images"]}
    return Counter(
        (file[row["image_id"]], category[row["category_id"]], *row["bbox"], row["area"], row["iscrowd"])
        for row in truth["annotations"]
    )


def test_ground_truth_is_that_of_the_parts(root: Path):
    source = opened(root)
    truth = json.loads(json.dumps(source.ground_truth()))
    expected = [part.ground_truth() for part in parts(root)]
    assert as_rows(truth) == sum((as_rows(one) for one in expected), Counter())
    assert len(truth["images"]) == sum(len(one["images"]) for one in expected) == 5
    assert [row["id"] for row in truth["images"]] == [1, 2, 3, 4, 5]
    assert [row["id"] for row in truth["annotations"]] == list(range(1, 8))
    assert [row["name"] for row in truth["categories"]] == list(source.names)
    # COCO's own areas, not those of the boxes.
    assert {row["area"] for row in truth["annotations"] if row["image_id"] in (3, 4)} == {5, 6, 7}


def test_classes_that_are_not_asked_for_are_left_out_and_counted(root: Path):
    source = opened(root, "names: [bird, cat, unicorn]" + ENTRIES)
    assert source.names == ("bird", "cat", "unicorn")
    assert [source[index].class_ids.tolist() for index in range(5)] == [[1], [], [0], [], []]
    assert [source.labels(index).unlisted for index in range(5)] == [1, 0, 1, 0, 1]
    assert [source.labels(index).ignored_class_ids.tolist() for index in range(5)] == [[], [], [], [], [1]]
    assert source.labels(0).polygons.owner.tolist() == [0]
    assert len(source.labels(2).polygons.owner) == 0  # the outlined one was a dog
    found = audit(source)
    assert (found.objects, found.unlisted, found.with_polygons) == ((1, 1, 0), 3, 1)
    assert ", 3 of classes that are not asked for" in str(found)
    truth = source.ground_truth()
    assert [row["name"] for row in truth["categories"]] == ["bird", "cat", "unicorn"]
    kept = [(row["image_id"], row["category_id"], row["iscrowd"]) for row in truth["annotations"]]
    assert kept == [(1, 2, 0), (3, 1, 0), (5, 2, 1)]
    assert len(truth["images"]) == 5


def test_data_sets_of_some_splits(root: Path):
    text = """
    datasets:
      - {train: yolo/data.yaml, val: {data: yolo/data.yaml, split: train}}
      - train: {data: coco/boxes.json, images: pictures}
      - {data: voc}
    """
    train, val = opened(root, text, "train"), opened(root, text)
    assert [train.path(index).name for index in range(len(train))] == ["9.png", "b.png", "a.png", "y.png"]
    assert [val.path(index).name for index in range(len(val))] == ["9.png", "x.png"]
    assert train.names == ("cat", "dog", "bird", "ant")
    with pytest.raises(DataError, match="no split 'test'"):
        opened(root, text, "test")
    with pytest.raises(DataError, match=r"all\.yaml: none of its datasets has the split 'test'"):
        opened(root, "datasets: [{train: voc}]", "test")


def test_ids_that_differ_stay(root: Path):
    for file in (root / "yolo" / "images" / "val" / "7.png", root / "yolo" / "labels" / "val" / "7.txt"):
        file.rename(file.with_stem("70"))
    text = "datasets: [yolo/data.yaml, {data: coco/boxes.json, images: pictures}]"
    assert opened(root, text).image_ids == (70, 8, 7, 3)


def test_a_subset_is_these_images(root: Path):
    source = opened(root)
    part = source.subset([4, 0, 4])
    assert part.image_ids == (5, 1, 5)
    for index, origin in enumerate((4, 0, 4)):
        assert part.path(index) == source.path(origin)
        assert part[index].class_ids.tolist() == source[origin].class_ids.tolist()
    truth = source.subset([4, 2]).ground_truth()
    assert [row["id"] for row in truth["images"]] == [5, 3]
    assert [(row["id"], row["image_id"]) for row in truth["annotations"]] == [(1, 5), (2, 5), (3, 3), (4, 3)]
    empty = source.subset([])
    assert (len(empty), empty.ground_truth()["annotations"]) == (0, [])


def test_joined_sets_within_joined_sets(root: Path):
    write_text(root / "inner" / "two.yaml", "datasets: [../voc, {data: ../coco/boxes.json, images: ../pictures}]")
    source = opened(root, "datasets: [inner/two.yaml, yolo/data.yaml]")
    assert source.names == ("ant", "cat", "dog", "bird")
    assert [source.path(index).name for index in range(5)] == ["x.png", "b.png", "a.png", "7.png", "8.png"]
    assert as_rows(source.ground_truth()) == as_rows(opened(root).ground_truth())
    write_text(root / "inner" / "two.yaml", "datasets: [../voc, ../all.yaml]")
    with pytest.raises(DataError, match=r"all\.yaml: names itself among its datasets, by way of .*two\.yaml"):
        opened(root, "datasets: [inner/two.yaml, yolo/data.yaml]")


def test_issues_of_parts_stop_or_are_told(root: Path):
    with pytest.raises(DataError, match=r"boxes\.json: annotation 4 has image_id 99"):
        opened(root, on_error="stop")
    stopping = opened(root, "datasets: [voc, yolo/data.yaml]", on_error="stop")
    with pytest.raises(DataError, match=r"7\.txt, line 4: class 5"):
        stopping[1]
    found = audit(opened(root))
    assert [issue.kind for issue in found.issues] == ["label without image", "class out of range"]
    write_text(root / "pictures" / "a.png", "")
    broken = audit(opened(root))
    assert list(broken.unusable) == [3]
    kept = readable(opened(root), broken)
    assert [kept.path(index).name for index in range(len(kept))] == ["7.png", "8.png", "b.png", "x.png"]
    assert len(kept.ground_truth()["images"]) == 4


def test_sources_travel_to_worker_processes(root: Path):
    source = opened(root)
    travelled = pickle.loads(pickle.dumps(source))
    for index in range(len(source)):
        assert travelled[index].class_ids.tolist() == source[index].class_ids.tolist()
    assert travelled.ground_truth() == source.ground_truth()


def test_what_is_kept_of_labels_follows_the_classes_of_parts(root: Path, tmp_path: Path):
    """The files of labels and the names of the whole stay; what a label's number means does not."""
    text = "names: [cat, dog]\ndatasets: [yolo/data.yaml]"
    yaml = root / "yolo" / "data.yaml"
    for names in ("[cat, dog]", "[dog, cat]"):
        write_text(yaml, f"train: images/train\nval: images/val\nnames: {names}\n")
        source = opened(root, text)
        table = cached_findings(source, mode="hashes", folder=tmp_path / "kept").table
        assert table.labels(0).class_ids.tolist() == source.labels(0).class_ids.tolist()
        assert source.labels(0).class_ids.tolist() == ([0, 1] if names == "[cat, dog]" else [1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: voc", r"datasets is 'voc'; expected a list"),
        ("datasets: []", r"datasets is \[\]; expected a list"),
        ("datasets: [5]", r"datasets, entry 1 is 5; expected the name"),
        ("datasets: [voc, {images: pictures}]", "datasets, entry 2 is .*; expected the name"),
        ("datasets: [{data: voc, place: here}]", "datasets, entry 1 is .*; expected the name"),
        ("datasets: [{data: voc, val: voc}]", "datasets, entry 1 is .*; expected the name"),
        ("datasets: [{data: [voc]}]", "datasets, entry 1 is .*; expected the name"),
        ("datasets: [{}]", "datasets, entry 1 is .*; expected the name"),
        ("datasets: [{val: {train: voc}}]", "datasets, entry 1 is .*; expected the name"),
        ("datasets: [{val: }]", "datasets, entry 1 is None; expected the name"),
        ("datasets: [voc]\nval: images", "it has val beside datasets; put it into a data YAML of its own"),
        ("datasets: [voc]\npath: images", "it has path beside datasets"),
        ("datasets: [voc]\nnames: [cat, no]", "name 1 is read as False"),
        ("datasets: [voc]\nnames: []", "the key names is missing"),
        ("datasets: [voc]\nnames: [cow]", r"names lists none of the classes of .*voc \(ant, cat\)"),
    ],
)
def test_wrong_entries_are_named(root: Path, text: str, message: str):
    with pytest.raises(DataError, match=rf"all\.yaml: {message}"):
        opened(root, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [nowhere]", "nowhere: not a data set known here"),
        ("datasets: [nowhere.yaml]", r"nowhere\.yaml: cannot be read"),
        ("datasets: [list.txt]", r"list\.txt: a list of images does not say the names"),
        ("datasets: [{data: voc, images: pictures}]", "voc: an image folder is for COCO JSON"),
        ("datasets: [{data: voc, split: test}]", "voc: no split 'test'"),
        ("datasets: ['tfds:./nowhere']", "nowhere: no prepared data set"),
    ],
)
def test_data_sets_that_cannot_be_opened_are_named(root: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        opened(root, text)


def test_a_joined_set_says_itself_where_images_are(root: Path):
    with pytest.raises(DataError, match="an image folder is for COCO JSON"):
        opened(root, image_folder=root)


def test_all_classes_as_one(root: Path):
    many = opened(root)
    one = pickle.loads(pickle.dumps(with_one_class(many)))
    assert (one.names, one.category_ids, one.image_ids) == (("object",), (1,), many.image_ids)
    assert one.issues == many.issues
    for index in range(len(many)):
        ours, theirs = one.labels(index), many.labels(index)
        assert (ours.unlisted, ours.duplicates, ours.size) == (0, theirs.duplicates, theirs.size)
        for name in ("class_ids", "ignored_class_ids"):
            assert getattr(ours, name).dtype == np.int32
            assert getattr(ours, name).tolist() == [0] * len(getattr(theirs, name))
        for name in ("boxes_xyxy_px", "ignored_boxes_xyxy_px"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        sample, whole = one[index], many[index]
        assert not sample.class_ids.any()
        for a, b in zip(
            (sample.image, sample.boxes_xyxy_px, *sample.polygons),
            (whole.image, whole.boxes_xyxy_px, *whole.polygons),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    ours, theirs = one.ground_truth(), many.ground_truth()
    assert ours["categories"] == [{"id": 1, "name": "object"}]
    assert ours["images"] == theirs["images"]
    assert ours["annotations"] == [row | {"category_id": 1} for row in theirs["annotations"]]
    found, whole = audit(one), audit(many)
    assert found.objects == (sum(whole.objects),)
    assert found.with_polygons == whole.with_polygons
    part = readable(one, found).subset([2, 0])
    assert [part.path(at) for at in (0, 1)] == [many.path(2), many.path(0)]
    assert part.ground_truth()["categories"] == ours["categories"]


def test_findings_of_one_class_are_not_those_of_a_class_of_that_name(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Data with a class "object" among others: asked for that class alone, or for all as one."""
    write_text(root / "yolo" / "data.yaml", "val: images/val\nnames: [cat, object]\n")
    source = open_source(root / "yolo" / "data.yaml", on_error="skip")
    views = with_names(source, ("object",)), with_one_class(source)
    monkeypatch.setattr(label_cache, "_SETTLED_NS", 0)
    for _ in range(2):
        counts = [cached_findings(view, mode="hashes", folder=tmp_path / "kept").table.labels(0) for view in views]
        assert [len(labels.class_ids) for labels in counts] == [1, 2]

import errno
import json
import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.datasets.labeled_images import labels_of, write_png
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.content import Content, Item
from yolov7_jax.datasets.writers import Format, write_data
from yolov7_jax.errors import DataError
from yolov7_jax.types import Labels

NAMES = ("cat", "dog", "bird")
TRIANGLE = ((4, 2), (12, 2), (4, 12))
SQUARE = ((20, 4), (30, 4), (30, 14), (20, 14))


def content(*items: Item, names: tuple[str, ...] = NAMES, category_ids: tuple[int, ...] = (1, 2, 3)) -> Content:
    return Content(names, category_ids, {"train": items})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_png(tmp_path / "in" / "a.png")


def one(image: Path, labels: Labels) -> Content:
    return content(Item(image, 1, labels))


def test_yolo_by_hand(image: Path, tmp_path: Path):
    labels = labels_of((1, (10, 5, 30, 15)), (0, (4, 2, 12, 12), [TRIANGLE]))
    written = write_data(tmp_path / "out", one(image, labels), to="yolo")
    assert written.data == tmp_path / "out" / "data.yaml"
    assert written.sentences == []
    lines = (tmp_path / "out" / "labels" / "train" / "a.txt").read_text()
    assert lines == "1 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.3 0.1 0.1 0.6\n"
    assert (tmp_path / "out" / "images" / "train" / "a.png").read_bytes() == image.read_bytes()
    assert open_source(written.data, "train").names == NAMES


def test_coco_by_hand(image: Path, tmp_path: Path):
    labels = labels_of((1, (10, 5, 30, 15)), (0, (4, 2, 13, 12), [TRIANGLE, SQUARE]), ignored=[(2, (1, 1, 3, 2))])
    file = write_data(tmp_path / "out", content(Item(image, 7, labels), category_ids=(3, 8, 90)), to="coco").data
    assert file == tmp_path / "out" / "annotations" / "instances_train.json"
    written = json.loads(file.read_text())
    assert written["images"] == [{"id": 7, "file_name": "a.png", "width": 40, "height": 20}]
    assert [(row["id"], row["name"]) for row in written["categories"]] == [(3, "cat"), (8, "dog"), (90, "bird")]
    box, outlined, crowd = written["annotations"]
    assert box == {"id": 1, "image_id": 7, "category_id": 8, "bbox": [10, 5, 20, 10], "area": 200, "iscrowd": 0} | {
        "segmentation": []
    }
    assert (outlined["bbox"], outlined["area"]) == ([4, 2, 9, 10], 40 + 100)
    assert outlined["segmentation"] == [[4, 2, 12, 2, 4, 12], [20, 4, 30, 4, 30, 14, 20, 14]]
    assert (crowd["id"], crowd["iscrowd"], crowd["category_id"], crowd["bbox"]) == (3, 1, 90, [1, 1, 2, 1])


def test_outlines_have_the_digits_of_float32(image: Path, tmp_path: Path):
    corners = ((12.34, 2), (20.1, 2), (12.34, 12))
    file = write_data(tmp_path / "out", one(image, labels_of((0, (12.34, 2, 20.1, 12), [corners]))), to="coco").data
    assert "[12.34, 2.0, 20.1, 2.0, 12.34, 12.0]" in file.read_text()


def test_areas_of_outlines_are_those_of_masks(image: Path, tmp_path: Path):
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    blob = np.stack([250 + 180 * np.cos(angles), 240 + 120 * np.sin(angles) + 40 * np.cos(3 * angles)], axis=1)
    labels = labels_of((0, (*blob.min(0), *blob.max(0)), [blob]), size=(480, 640))
    file = write_data(tmp_path / "out", one(image, labels), to="coco").data
    written = json.loads(file.read_text())["annotations"][0]
    runs = coco_mask.frPyObjects(written["segmentation"], 480, 640)
    assert written["area"] == pytest.approx(coco_mask.area(runs)[0], rel=5e-3)  # pixels along the outline


def test_voc_by_hand(image: Path, tmp_path: Path):
    labels = labels_of((1, (10, 5, 30.25, 15)), ignored=[(2, (0, 0, 40, 20))])
    written = write_data(tmp_path / "out", one(image, labels), to="voc")
    assert (written.data, written.sentences) == (tmp_path / "out", [])
    root = ElementTree.parse(tmp_path / "out" / "Annotations" / "a.xml").getroot()
    assert [root.findtext(f"size/{key}") for key in ("width", "height", "depth")] == ["40", "20", "3"]
    keys = ("name", "difficult", "bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
    found = [[item.findtext(key) for key in keys] for item in root.iterfind("object")]
    # The first pixel is number 1, and the last one belongs to the box.
    assert found == [["dog", "0", "11", "6", "30.25", "15"], ["bird", "1", "1", "1", "40", "20"]]
    assert (tmp_path / "out" / "ImageSets" / "Main" / "train.txt").read_text() == "a\n"
    assert (tmp_path / "out" / "classes.txt").read_text() == "cat\ndog\nbird\n"


@pytest.mark.parametrize(
    ("to", "labels", "sentence"),
    [
        ("yolo", labels_of(ignored=[(0, (1, 1, 2, 2))]), "objects to be ignored left out, as YOLO labels have none: 1"),
        (
            "yolo",
            labels_of((0, (4, 2, 30, 14), [TRIANGLE, SQUARE])),
            "several polygons of an object left out, as a line of YOLO labels has one polygon or a box: 1",
        ),
        (
            "yolo",
            labels_of((0, (4, 2, 13, 12), [TRIANGLE])),
            "boxes replaced by those around their polygons, as a line of YOLO labels has only one of the two: 1",
        ),
        ("yolo", labels_of((0, (-1, 2, 5, 5)), (0, (1, 1, 2, 2))), "boxes clipped to their image: 1"),
        (
            "yolo",
            labels_of((0, (-4, 2, 4, 12), [((-4, 2), (4, 2), (4, 12))])),
            "polygons clipped to their image: 1",
        ),
        ("yolo", labels_of((0, (40, 2, 45, 5))), "objects left out, as nothing of them is in their image: 1"),
        (
            "yolo",
            labels_of((0, (30, 2, 45, 5)), (0, (30, 2, 50, 5))),
            "objects left out, as without what the format cannot hold they equal another of their image: 1",
        ),
        ("voc", labels_of((0, (4, 2, 12, 12), [TRIANGLE])), "polygons left out, as Pascal VOC has boxes only: 1"),
        ("voc", labels_of((0, (30, 2, 45, 5))), "boxes clipped to their image: 1"),
        (
            "voc",
            labels_of((0, (4, 2, 12, 12), [TRIANGLE]), (0, (4, 2, 12, 12))),
            "objects left out, as without what the format cannot hold they equal another of their image: 1",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_said(image: Path, tmp_path: Path, to: Format, labels: Labels, sentence: str):
    written = write_data(tmp_path / "out", one(image, labels), to=to)
    assert sentence in written.sentences
    left = sum(count for what, count in written.losses.items() if what.startswith("objects") and "ignored" not in what)
    assert len(open_source(written.data, "train").labels(0).class_ids) == len(labels.class_ids) - left


def test_ids_that_a_format_cannot_hold_are_said(image: Path, tmp_path: Path):
    other = write_png(tmp_path / "in" / "b.png")
    given = content(Item(other, 1, labels_of()), Item(image, 2, labels_of()), category_ids=(1, 2, 90))
    for to, renumbered in (("yolo", 2), ("voc", 0)):  # folders are read in the order of names, lists in their own
        sentences = write_data(tmp_path / to, given, to=to).sentences
        assert "category ids, as only COCO's files have them: 1" in sentences
        assert (f"image ids counted anew, as the format has none: {renumbered}" in sentences) == (renumbered > 0)
    assert write_data(tmp_path / "coco", given, to="coco").sentences == []


def test_two_images_of_one_id_get_two(image: Path, tmp_path: Path):
    given = content(*(Item(image, number, labels_of()) for number in (5, 5, 6, 2)))
    written = write_data(tmp_path / "out", given, to="coco")
    assert "image ids counted on, as two images of a split have the same: 2" in written.sentences
    assert open_source(written.data).image_ids == (5, 6, 7, 2)


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_equal_names_of_different_folders(tmp_path: Path, to: Format):
    places = ("x/a.png", "y/a.png", "x/a.jpg", "y/A.png", "x/b.png.jpg", "x/ c.png", "x/.d.png", "x/e.gif")
    items = [
        Item(write_png(tmp_path / place, value=number), number, labels_of((0, (number, 1, number + 3, 9))))
        for number, place in enumerate(places)
    ]
    written = write_data(tmp_path / "out", content(*items), to=to)
    source = open_source(written.data, "train")
    files = {int(source[index].boxes_xyxy_px[0, 0]): source.path(index) for index in range(len(source))}
    expected = ["a.png", "a_2.png", "a_3.jpg", "A_4.png", "b_png.jpg", "c.png", "d.png", "e.png"]
    assert [files[number].name for number in range(len(places))] == expected
    assert [round(float(Image.open(files[n]).getpixel((0, 0))[0])) for n in (0, 1, 3)] == [0, 1, 3]
    assert "images renamed, as another has their name or readers would not find it: 6" in written.sentences
    assert "images saved anew as PNG, as their names have no ending that readers know: 1" in written.sentences


def test_images_are_linked_or_copied(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = one(image, labels_of())
    copied = Path("images/train/a.png")
    write_data(tmp_path / "linked", given, to="yolo")
    write_data(tmp_path / "copied", given, to="yolo", link=False)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "Invalid cross-device link")))
    write_data(tmp_path / "elsewhere", given, to="yolo")
    same = [(tmp_path / name / copied).samefile(image) for name in ("linked", "copied", "elsewhere")]
    assert same == [True, False, False]


def test_images_that_are_made_are_written(image: Path, tmp_path: Path):
    drawn = np.full((20, 40, 3), 77, np.uint8)
    before = image.read_bytes()
    write_data(tmp_path / "out", content(Item(image, 1, labels_of(), lambda: drawn)), to="yolo")
    assert np.asarray(Image.open(tmp_path / "out/images/train/a.png")).tolist() == drawn.tolist()
    assert image.read_bytes() == before


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_a_full_disk_leaves_nothing_and_gives_one_sentence(
    image: Path, tmp_path: Path, to: Format, monkeypatch: pytest.MonkeyPatch
):
    written = []

    def full(_: object, to: Path) -> None:
        written.append(to)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DataError, match=r"out: cannot be written \(No space left on device\); make room or choose"):
        write_data(tmp_path / "out", content(*[Item(image, 1, labels_of())] * 3), to=to, link=False)
    assert len(written) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_an_image_that_is_not_there_leaves_nothing(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.png: the image is not there"):
        write_data(tmp_path / "out", content(Item(tmp_path / "gone.png", 1, labels_of())), to="voc")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_something_are_refused(image: Path, tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for target in (image.parent, image):
        with pytest.raises(DataError, match="is there already; name a new folder"):
            write_data(target, one(image, labels_of()), to="yolo")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "empty").mkdir()
    assert write_data(tmp_path / "empty", one(image, labels_of()), to="yolo").data.is_file()
    with pytest.raises(DataError, match="cannot be written"):
        write_data(image / "below", one(image, labels_of()), to="yolo")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "dog", "cat"), "two classes are named 'cat'"),
        (("cat", "dog ", "bird"), "class 1 is named 'dog '"),
        (("cat", "", "bird"), "class 1 is named ''"),
        (("cat", "dog", "a\nb"), "class 2 is named"),
    ],
)
def test_names_that_voc_cannot_hold_are_refused(image: Path, tmp_path: Path, names: tuple[str, ...], message: str):
    given = content(Item(image, 1, labels_of()), names=names)
    with pytest.raises(DataError, match=message):
        write_data(tmp_path / "out", given, to="voc")
    for to in ("yolo", "coco"):
        assert open_source(write_data(tmp_path / to, given, to=to).data, "train").names == names


@pytest.mark.parametrize("split", ["", "../x", "a/b", ".x", "names", "images", "path"])
def test_names_of_splits(image: Path, tmp_path: Path, split: str):
    given = Content(NAMES, (1, 2, 3), {split: [Item(image, 1, labels_of())]})
    with pytest.raises(DataError, match="a split cannot be named"):
        write_data(tmp_path / "out", given, to="yolo")


def test_formats_that_are_not_known_are_refused(image: Path, tmp_path: Path):
    with pytest.raises(DataError, match="not written as 'kitti'; choose one of yolo, coco, voc"):
        write_data(tmp_path / "out", one(image, labels_of()), to="kitti")  # type: ignore[arg-type]

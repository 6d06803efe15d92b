import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.datasets.labeled_images import write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.audit import Audit, Findings, audit, readable
from yolov7_jax.datasets.table import LabelTable
from yolov7_jax.errors import DataError
from yolov7_jax.types import Issue

WIDTH, HEIGHT = 40, 20
NAMES = ("cat", "dog", "unseen")
FINE = ("fine1", "fine2")
BROKEN = ("empty", "short", "text")  # files that are there but are no images
LINES = {
    "fine1": ["0 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5", "0 0.5 0.5 0 0.5"],
    "fine2": ["7 0.5 0.5 0.5 0.5", "1 0.25 0.5 0.5 0.5", "", "0 0.5 nan 0.1 0.1"],
    "blank": [],
    **{name: ["0 0.5 0.5 0.5 0.5"] for name in BROKEN},
}


def write_images(folder: Path) -> list[str]:
    """JPEGs, of which three are broken; their names in order."""
    folder.mkdir(parents=True)
    names = sorted([*FINE, "blank", "unlabeled", *BROKEN])
    for name in names:
        Image.effect_noise((WIDTH, HEIGHT), 64).save(folder / f"{name}.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "short.jpg").write_bytes((folder / "short.jpg").read_bytes()[:-20])
    write_text(folder / "text.jpg", "<html>not found</html>")
    return names


def as_yolo(root: Path) -> Path:
    write_images(root / "images")
    for name, lines in LINES.items():
        write_text(root / "labels" / f"{name}.txt", "\n".join(lines))
    return write_text(root / "data.yaml", f"val: images\nnames: [{', '.join(NAMES)}]\n")


def as_coco(root: Path) -> Path:
    names = write_images(root / "images")
    rows = []
    for name, lines in LINES.items():
        for words in (line.split() for line in lines if line):
            x, y, w, h = (float(word) * side for word, side in zip(words[1:], [WIDTH, HEIGHT] * 2, strict=True))
            box = [x - w / 2, y - h / 2, w, h]
            rows.append({"id": len(rows), "image_id": names.index(name), "category_id": int(words[0]), "bbox": box})
    content = {
        "images": [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate(names)],
        "annotations": [*rows, {"id": 100, "image_id": 55}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES)],
    }
    return write_text(root / "data.json", json.dumps(content))


def as_voc(root: Path) -> Path:
    names = write_images(root / "JPEGImages")
    for name, lines in LINES.items():
        objects = []
        for words in (line.split() for line in lines if line):
            x, y, w, h = (float(word) * side for word, side in zip(words[1:], [WIDTH, HEIGHT] * 2, strict=True))
            corners = {"xmin": x - w / 2 + 1, "ymin": y - h / 2 + 1, "xmax": x + w / 2, "ymax": y + h / 2}
            box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners.items())
            label = NAMES[int(words[0])] if words[0] in "012" else "walrus"
            objects.append(f"<object><name>{label}</name><bndbox>{box}</bndbox></object>")
        write_text(root / "Annotations" / f"{name}.xml", "\n".join(["<annotation>", *objects, "</annotation>"]))
    write_text(root / "ImageSets" / "Main" / "val.txt", "\n".join(names))
    write_text(root / "classes.txt", "\n".join(NAMES))
    return root


FORMATS = [
    (as_yolo, ("labels/fine2.txt, line 1: class 7", "labels/fine2.txt, line 4: a number is not finite"), 1),
    (as_coco, ("data.json: annotation 100 ", "data.json: annotation 4 ", "data.json: annotation 6 "), 0),
    (as_voc, ("Annotations/fine2.xml, line 2 (object 1): class walrus", "fine2.xml, line 4 (object 3): bndbox"), 1),
]


@pytest.mark.parametrize(("make", "issues", "without_file"), FORMATS)
def test_everything_is_counted_and_named(
    tmp_path: Path, make: Callable[[Path], Path], issues: tuple[str, ...], without_file: int
):
    found = audit(open_source(make(tmp_path), on_error="skip"))
    assert (found.images, found.names, found.objects) == (7, NAMES, (1, 2, 0))
    assert (found.without_file, found.without_objects) == (without_file, 2 - without_file)
    assert (found.duplicates, found.empty) == (1, 1)
    for issue, start in zip(found.issues, issues, strict=True):
        assert start in issue.message
    expected = {
        1: "empty.jpg: is empty",
        4: "short.jpg: the end of the image",
        5: "text.jpg: the image cannot be read",
    }
    assert found.unusable.keys() == expected.keys()
    for index, part in expected.items():
        assert part in found.unusable[index].message


@pytest.mark.parametrize("make", [as_yolo, as_coco, as_voc])
def test_readable_images_are_those_that_can_be_decoded(tmp_path: Path, make: Callable[[Path], Path]):
    source = open_source(make(tmp_path), on_error="skip")
    kept = readable(source, audit(source))
    assert [kept.path(index).stem for index in range(len(kept))] == ["blank", "fine1", "fine2", "unlabeled"]
    assert [len(kept[index].class_ids) for index in range(len(kept))] == [0, 2, 1, 0]
    assert len(kept.ground_truth()["images"]) == 4
    again = audit(kept)
    assert (again.unusable, again.objects) == ({}, (1, 2, 0))
    twice = readable(kept, again)
    assert [twice.path(index) for index in range(4)] == [kept.path(index) for index in range(4)]
    assert [len(twice[index].class_ids) for index in range(4)] == [0, 2, 1, 0]


def test_a_source_that_stops_has_its_images_counted_as_unusable(tmp_path: Path):
    found = audit(open_source(as_yolo(tmp_path)))
    assert sorted(found.unusable) == [1, 3, 4, 5]
    assert "fine2.txt, line 1: class 7" in found.unusable[3].message


def test_missing_images_and_annotations_that_cannot_be_read(tmp_path: Path):
    data = as_voc(tmp_path)
    (data / "JPEGImages" / "fine1.jpg").unlink()
    write_text(data / "Annotations" / "fine2.xml", "<annotation>")
    found = audit(open_source(data, on_error="skip"))
    assert "fine1.jpg: cannot be read (No such file" in found.unusable[2].message
    assert "fine2.xml, line 1: not XML" in found.unusable[3].message


def test_an_image_of_another_size_than_its_annotation_says(tmp_path: Path):
    data = as_coco(tmp_path)
    content: dict[str, Any] = json.loads(data.read_text())
    content["images"][0] |= {"width": WIDTH, "height": HEIGHT + 1}
    content["images"][2] |= {"width": WIDTH, "height": HEIGHT}
    found = audit(open_source(write_text(data, json.dumps(content)), on_error="skip"))
    assert "blank.jpg: the image is 40 x 20 pixels, but" in found.unusable[0].message
    assert 2 not in found.unusable


def test_issues_stop_where_they_should(tmp_path: Path):
    data = as_yolo(tmp_path)
    found = audit(open_source(data, on_error="skip"))
    sentence = r"3 of 7 images cannot be used and 2 objects are wrong; .*The first: .*empty\.jpg.* \| and 3 more$"
    with pytest.raises(DataError, match=sentence):
        found.stop_on_error(most=2)
    source = open_source(data, on_error="skip").subset([0, 2])
    audit(source).stop_on_error()  # repeated boxes and those without area are no issues
    write_text(tmp_path / "labels" / "fine1.txt", "3 0 0 0 0")
    with pytest.raises(DataError, match=r"0 of 2 images .* 1 objects .*fine1\.txt, line 1: class 3"):
        audit(source).stop_on_error()


def test_nothing_readable_is_said(tmp_path: Path):
    data = as_yolo(tmp_path)
    broken = open_source(data, on_error="skip").subset([1, 5])
    with pytest.raises(DataError, match=r"none of the 2 images can be used; the first: .*empty\.jpg"):
        readable(broken, audit(broken))
    nothing = broken.subset([])
    with pytest.raises(DataError, match="none of the 0 images can be used"):
        readable(nothing, audit(nothing))


def test_the_summary_tells_people(tmp_path: Path):
    found = Audit(
        images=9,
        names=("cat", "dog", "unseen"),
        objects=(3, 40, 0),
        without_file=1,
        without_objects=2,
        duplicates=4,
        empty=5,
        unlisted=0,
        issues=(Issue("error", "wrong", "x.txt, line 1: wrong"), Issue("error", "wrong", "x.txt, line 2: wrong")),
        with_polygons=0,
        findings=Findings(LabelTable.of([]), {3: Issue("error", "empty image", "y.jpg: is empty")}),
    )
    head = [
        "9 images: 1 without a label file, 2 without objects, 1 cannot be used",
        "43 objects: dog 40, cat 3",
        "1 classes without objects: unseen",
        "objects left out: 4 that repeat, 5 without area, 2 wrong",
    ]
    assert found.lines(most=None) == [*head, "  y.jpg: is empty", "  x.txt, line 1: wrong", "  x.txt, line 2: wrong"]
    assert found.lines(most=1) == [*head, "  y.jpg: is empty", "  and 2 more"]
    assert str(found) == "\n".join(found.lines())
    assert replace(found, unlisted=7).lines()[3] == f"{head[3]}, 7 of classes that are not asked for"


def test_progress_is_shown_of_every_image(tmp_path: Path):
    seen = []

    def progress(items: Any, total: int) -> Any:
        for item in items:
            seen.append(total)
            yield item

    audit(open_source(as_yolo(tmp_path), on_error="skip"), progress=progress)
    assert seen == [7] * 7


@pytest.mark.shared
def test_coco128_in_both_formats(shared: Path):
    by_labels, by_json = (audit(open_source(shared / "coco128" / name)) for name in ("data.yaml", "instances.json"))
    assert by_labels.objects == by_json.objects
    assert sum(by_labels.objects) == 929
    assert (by_labels.without_file, by_labels.without_objects) == (2, 0)
    assert (by_json.without_file, by_json.without_objects) == (0, 2)
    assert by_labels.sentences == by_json.sentences == ()
    assert by_labels.with_polygons == by_json.with_polygons == 0


def test_what_a_look_found_is_not_looked_for_again(tmp_path: Path):
    data = as_yolo(tmp_path)
    source = open_source(data, on_error="skip")
    found = audit(source)
    for folder in ("images", "labels"):
        shutil.rmtree(tmp_path / folder)
    again = audit(source, found.findings)
    assert (again.objects, again.sentences) == (found.objects, found.sentences)
    assert again.unusable == found.unusable


def test_outlined_objects_are_counted(tmp_path: Path):
    data = as_yolo(tmp_path)
    triangle = "0 0.1 0.1 0.9 0.1 0.5 0.9"
    write_text(tmp_path / "labels" / "fine1.txt", f"{triangle}\n0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.9 0.1 0.5 0.9 0.2 0.3")
    write_text(tmp_path / "labels" / "blank.txt", triangle)
    write_text(tmp_path / "labels" / "empty.txt", triangle)  # of an image that cannot be used
    assert audit(open_source(data, on_error="skip")).with_polygons == 3

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.datasets.labeled_images import write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.voc import read_annotation
from yolov7_jax.errors import DataError

WIDTH, HEIGHT = 40, 20
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"


def item(name: str, *corners: object, extra: str = "") -> str:
    box = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


def annotation(*parts: str, size: str = SIZE) -> str:
    return "\n".join(["<annotation>", size, *parts, "</annotation>"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images to train on, with objects; of the three to evaluate on one has no objects and one no annotation."""
    (tmp_path / "JPEGImages").mkdir()
    for name in ("a.png", "b.png", "c.jpg", "d.png", "e.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "JPEGImages" / name)
    difficult = "<difficult>1</difficult><part><name>head</name><bndbox/></part>"
    for name, text in {
        "a": annotation(item("dog", 1, 1, 40, 20), item("cat", 11, 6, 20, 10, extra="<difficult>0</difficult>")),
        "b": annotation(item("dog", 5, 5, 9, 9, extra=difficult), item("bird", "2.5", "3.5", "4.5", "6.5")),
        "c": annotation(item("ant", 1, 1, 1, 1)),
        "d": annotation(),
    }.items():
        write_text(tmp_path / "Annotations" / f"{name}.xml", text)
    write_text(tmp_path / "ImageSets" / "Main" / "train.txt", "b\na\n")
    write_text(tmp_path / "ImageSets" / "Main" / "val.txt", "c.jpg\n\nd\ne\n")
    return tmp_path


def test_samples_in_edges(root: Path):
    source = open_source(root, "train")
    assert (len(source), source.names, source.image_ids) == (2, ("ant", "bird", "cat", "dog"), (1, 2))
    image, boxes, class_ids, image_id, polygons = source[1]
    assert (image.shape, boxes.dtype, class_ids.dtype, image_id) == ((HEIGHT, WIDTH, 3), np.float32, np.int32, 2)
    assert (boxes.tolist(), class_ids.tolist()) == ([[0, 0, 40, 20], [10, 5, 20, 10]], [3, 2])
    assert len(polygons.owner) == 0
    assert source.path(0) == root / "JPEGImages" / "b.png"
    assert source.size(0) == (HEIGHT, WIDTH)
    assert pickle.loads(pickle.dumps(source))[1].class_ids.tolist() == [3, 2]


def test_difficult_objects_are_not_trained_on_and_ignored_in_evaluation(root: Path):
    source = open_source(root, "train")
    assert (source[0].class_ids.tolist(), source[0].boxes_xyxy_px.tolist()) == ([1], [[1.5, 2.5, 4.5, 6.5]])
    labels = source.labels(0)
    assert (labels.ignored_class_ids.tolist(), labels.ignored_boxes_xyxy_px.tolist()) == ([3], [[4, 4, 9, 9]])
    rows = source.ground_truth()["annotations"]
    assert [(row["id"], row["image_id"], row["category_id"], row["bbox"], row["iscrowd"]) for row in rows] == [
        (1, 1, 2, [1.5, 2.5, 3, 4], 0),
        (2, 1, 4, [4, 4, 5, 5], 1),
        (3, 2, 4, [0, 0, 40, 20], 0),
        (4, 2, 3, [10, 5, 10, 5], 0),
    ]


def test_splits_share_their_classes(root: Path):
    source = open_source(root)
    assert source.names == ("ant", "bird", "cat", "dog")
    assert source.category_ids == (1, 2, 3, 4)
    assert source[0].boxes_xyxy_px.tolist() == [[0, 0, 1, 1]]
    assert [source.labels(index).missing for index in range(3)] == [False, False, True]
    assert [len(source[index].class_ids) for index in range(3)] == [1, 0, 0]
    truth = source.ground_truth()
    assert [row["file_name"] for row in truth["images"]] == ["c.jpg", "d.png", "e.png"]
    assert [row["name"] for row in truth["categories"]] == list(source.names)


@pytest.mark.parametrize("name", ["classes.txt", "labels.txt"])
def test_a_file_of_classes_says_their_order(root: Path, name: str):
    write_text(root / name, "dog\nbird\n\ncat\nunseen\n")
    source = open_source(root, "train")
    assert source.names == ("dog", "bird", "cat", "unseen")
    assert source[1].class_ids.tolist() == [0, 2]
    with pytest.raises(DataError, match=r"c\.xml, line 3 \(object 1\): class ant is not one of dog, bird, cat"):
        open_source(root)[0]


def test_boxes_are_clipped_to_the_image(root: Path):
    write_text(root / "Annotations" / "c.xml", annotation(item("dog", 0, 0, 45, 22), item("dog", -5, 20, 1, 20)))
    source = open_source(root)
    assert source[0].boxes_xyxy_px.tolist() == [[0, 0, 40, 20], [0, 19, 1, 20]]
    assert [row["bbox"] for row in source.ground_truth()["annotations"]] == [[0, 0, 40, 20], [0, 19, 1, 1]]


def test_objects_that_repeat_or_have_no_area_are_counted(root: Path):
    twice = item("dog", 1, 1, 9, 9)
    write_text(
        root / "Annotations" / "c.xml", annotation(twice, twice, item("cat", 5, 5, 4, 9), item("dog", 2, 2, 9, 9))
    )
    labels = open_source(root).labels(0)
    assert (labels.class_ids.tolist(), labels.duplicates, labels.empty, labels.issues) == ([2, 2], 1, 1, ())


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size/>"])
def test_without_a_size_the_image_says_it(root: Path, size: str):
    write_text(root / "Annotations" / "c.xml", annotation(item("dog", 1, 1, 40, 20), size=size))
    assert open_source(root)[0].boxes_xyxy_px.tolist() == [[0, 0, 40, 20]]
    write_text(root / "Annotations" / "c.xml", annotation(item("dog", 41, 1, 50, 20), size=size))
    with pytest.raises(DataError, match="outside of the image of 40 x 20 pixels"):
        open_source(root)[0]


def test_an_image_of_another_size_is_refused(root: Path):
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "JPEGImages" / "c.jpg")
    source = open_source(root)
    for use in (lambda: source[0], lambda: source.labels(0, source.check_image(0))):
        with pytest.raises(DataError, match=r"c\.jpg: the image is 20 x 40 pixels, but .*c\.xml says 40 x 20"):
            use()


@pytest.mark.parametrize(
    ("part", "message", "kind"),
    [
        (item("", 1, 1, 9, 9), "the object has no name", "object without a name"),
        (item("dog", 1, 1, 9, "x"), "bndbox has xmin 1, ymin 1, xmax 9, ymax x; expected four numbers", "not a number"),
        ("<object><name>dog</name></object>", "bndbox has xmin missing, .*expected four numbers", "not a number"),
        (item("dog", 1, 1, 9, "nan"), "expected finite numbers", "not finite"),
        (item("dog", 9, 1, 1, 9), "xmax and ymax not below", "negative size"),
        (item("dog", 41, 1, 50, 9), "xmin 41, .*outside of the image of 40 x 20 pixels", "outside of the image"),
        (item("dog", 1, -9, 50, 0), "outside", "outside of the image"),
        (item("dog", 1, 21, 50, 25), "outside", "outside of the image"),
        (item("dog", -3, 1, 0, 9), "outside", "outside of the image"),
    ],
)
def test_issues_of_an_object_are_named_with_file_and_line(root: Path, part: str, message: str, kind: str):
    file = write_text(root / "Annotations" / "c.xml", annotation(item("cat", 1, 1, 9, 9), "", "", part, ""))
    sentence = rf"c\.xml, line 6 \(object 2\): .*{message}"
    for use in (lambda: open_source(root)[0], lambda: open_source(root).ground_truth()):
        with pytest.raises(DataError, match=sentence):
            use()
    skipping = open_source(root, on_error="skip")
    assert skipping[0].boxes_xyxy_px.tolist() == [[0, 0, 9, 9]]
    (issue,) = skipping.labels(0).issues
    with pytest.raises(DataError) as error:
        read_annotation(file, root / "JPEGImages" / "c.jpg", None, names=skipping.names)
    assert issue == ("error", kind, str(error.value), None, None)
    assert error.value.kind == kind
    assert len(skipping.ground_truth()["annotations"]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotation>\n<object>", r"c\.xml, line 2: not XML"),
        (b"", r"c\.xml, line 1: not XML"),
        (b"<html/>", r"c\.xml: the outermost element is html"),
        (b"<annotation>\n\xff</annotation>", "line 2: not XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "not XML"),
        (
            b'<!DOCTYPE a [<!ENTITY x "yyyy">]>\n<annotation>&x;</annotation>',
            r"^[^(]*line 1: a DOCTYPE is refused",
        ),
        ('<?xml version="1.0"?>\n<!DOCTYPE a>\n<annotation/>'.encode("utf-16"), r"^[^(]*line 2: a DOCTYPE is refused"),
    ],
)
def test_annotations_that_cannot_be_read(root: Path, content: bytes, message: str):
    (root / "Annotations" / "c.xml").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(root, "train")  # its classes are not known
    with pytest.raises(DataError, match=message):
        open_source(root, on_error="skip").labels(0)  # the image is not one without objects
    assert open_source(root, "train", on_error="skip").names == ("bird", "cat", "dog")


def test_issues_of_the_folder_are_named(root: Path):
    with pytest.raises(DataError, match=r"no split 'test'; it has train, val: add .*test\.txt"):
        open_source(root, "test")
    with pytest.raises(DataError, match="an image folder is for COCO JSON"):
        open_source(root, image_folder=root)
    write_text(root / "ImageSets" / "Main" / "test.txt", "a\n\nx\n")
    with pytest.raises(DataError, match=r"test\.txt, line 3: no image x in .*JPEGImages"):
        open_source(root, "test")
    write_text(root / "ImageSets" / "Main" / "test.txt", " \n")
    with pytest.raises(DataError, match=r"test\.txt: lists no images"):
        open_source(root, "test")
    write_text(root / "ImageSets" / "Main" / "test.txt", "e\n")
    with pytest.raises(DataError, match=r"no annotation file at all; expected .*e\.xml"):
        open_source(root, "test")
    for file in (root / "Annotations").iterdir():
        write_text(file, "<annotation/>")
    with pytest.raises(DataError, match=r"no object has a name; name the classes in .*classes\.txt"):
        open_source(root)


xs, ys = st.integers(1, WIDTH), st.integers(1, HEIGHT)


@given(x=st.tuples(xs, xs).map(sorted), y=st.tuples(ys, ys).map(sorted))
def test_a_box_covers_the_pixels_it_names(tmp_path_factory: pytest.TempPathFactory, x: list, y: list):
    file = write_text(tmp_path_factory.getbasetemp() / "box.xml", annotation(item("dog", x[0], y[0], x[1], y[1])))
    ((left, top, right, bottom),) = read_annotation(file, file, None, names=("dog",)).boxes_xyxy_px
    # pixel n of 1, 2, 3 … reaches from edge n - 1 to edge n
    assert [n for n in range(1, WIDTH + 1) if left < n - 0.5 < right] == list(range(x[0], x[1] + 1))
    assert [n for n in range(1, HEIGHT + 1) if top < n - 0.5 < bottom] == list(range(y[0], y[1] + 1))


@pytest.mark.shared
def test_blood_cells(shared: Path):
    train, val = (open_source(shared / "bccd", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (205, 87)
    assert train.names == val.names == ("Platelets", "RBC", "WBC")
    truths = [source.ground_truth() for source in (train, val)]
    counts = np.sum([np.bincount([row["category_id"] for row in truth["annotations"]]) for truth in truths], axis=0)
    assert counts.tolist() == [0, 292, 3350, 301]  # as grep counts the names in the files
    assert not {row["file_name"] for row in truths[0]["images"]} & {row["file_name"] for row in truths[1]["images"]}
    # BloodImage_00000.xml opens with a WBC, 260, 177 to 491, 376
    assert (val.path(0).name, val[0].class_ids[0]) == ("BloodImage_00000.jpg", 2)
    assert val[0].boxes_xyxy_px[0].tolist() == [259, 176, 491, 376]

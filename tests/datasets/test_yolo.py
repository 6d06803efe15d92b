import json
import pickle
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.datasets.labeled_images import write_png, write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.image_files import image_size
from yolov7_jax.datasets.yolo import label_file, read_labels
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.image import read_image

WIDTH, HEIGHT = 40, 20
NAMES = "[cat, dog, bird]"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of three images: one with two objects, one with an empty label file, one without a label file."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "set"
    for name in ("a.png", "b.png", "c.png"):
        write_png(root / "images" / "val" / name)
    write_text(root / "labels" / "val" / "a.txt", "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.1 0.2\n")
    write_text(root / "labels" / "val" / "b.txt", "")
    write_text(root / "data.yaml", f"path: .\nval: images/val\nnames: {NAMES}\n")
    return root


def test_samples_in_pixels(root: Path):
    write_png(root / "images" / "val" / "a.png", value=200)
    source = open_source(root / "data.yaml")
    assert (len(source), source.names) == (3, ("cat", "dog", "bird"))
    image, boxes, class_ids, image_id, _ = source[0]
    assert (image.shape, image.dtype, image[0, 0].tolist()) == ((HEIGHT, WIDTH, 3), np.uint8, [200, 0, 255])
    assert (boxes.dtype, class_ids.dtype, class_ids.tolist()) == (np.float32, np.int32, [1, 0])
    np.testing.assert_allclose(boxes, [[15, 5, 25, 15], [2, 2, 6, 6]], rtol=1e-6)  # float32
    assert image_id == source.image_ids[0] == 1
    for index in (1, 2):
        assert (source[index].boxes_xyxy_px.shape, source[index].class_ids.shape) == ((0, 4), (0,))
    assert source.path(2) == root / "images" / "val" / "c.png"
    assert source.size(2) == (HEIGHT, WIDTH)


def test_ground_truth_is_a_coco_dict(root: Path):
    source = open_source(root / "data.yaml")
    truth = json.loads(json.dumps(source.ground_truth()))
    assert truth["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bird"}]
    assert source.category_ids == (1, 2, 3)
    names = ("a.png", "b.png", "c.png")
    assert truth["images"] == [
        {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names, start=1)
    ]
    first, second = truth["annotations"]
    assert first == {"id": 1, "image_id": 1, "category_id": 2, "bbox": [15, 5, 10, 10], "area": 100, "iscrowd": 0}
    assert (second["id"], second["category_id"]) == (2, 1)
    # Fractions in decimal are not exact in binary: float64 rounding.
    assert second["bbox"] == pytest.approx([2, 2, 4, 4], rel=1e-14)


def test_sources_travel_to_worker_processes(root: Path):
    source = open_source(root / "data.yaml")
    assert pickle.loads(pickle.dumps(source))[0].class_ids.tolist() == [1, 0]


def test_numeric_names_are_the_image_ids(root: Path):
    for number in ("000000000139", "7"):
        write_png(root / "images" / "numbers" / f"{number}.jpg")
    write_text(root / "labels" / "numbers" / "7.txt", "0 0.5 0.5 0.1 0.1")
    write_text(root / "data.yaml", f"train: images/numbers\nval: [images/val, images/numbers]\nnames: {NAMES}\n")
    assert open_source(root / "data.yaml", "train").image_ids == (139, 7)
    assert open_source(root / "data.yaml").image_ids == (1, 2, 3, 4, 5)
    write_png(root / "images" / "numbers" / "007.png")  # the same number twice
    assert open_source(root / "data.yaml", "train").image_ids == (1, 2, 3)


@pytest.mark.parametrize(
    "yaml",
    [
        "val: images/val\n",  # beside the file
        "val: set/images/val\n",  # from the working directory
        "path: set\nval: images/val\n",
        "path: ../set/\nval: [images/val]\n",
        "path: {root}\nval: images\n",  # folders below count
        "path: elsewhere\nval: {root}/images/val\n",
        "val: ../images/val\n",  # one ../ too many, as some exporters write
        "val: list.txt\n",
        "path: .\nval: {root}/list.txt\n",
        "path: .\nval: images/list.txt\n",
    ],
)
def test_places_that_users_write(root: Path, yaml: str):
    write_text(root / "list.txt", "./images/val/a.png\n\n./images/val/b.png\n./images/val/c.png\n")
    write_text(root / "images" / "list.txt", "val/a.png\nval/b.png\nval/c.png")
    write_text(root / "data.yaml", yaml.format(root=root) + f"nc: 3\nnames: {NAMES}\n")
    source = open_source(root / "data.yaml")
    assert [source.path(index).resolve() for index in range(len(source))] == sorted((root / "images/val").iterdir())
    assert source[0].class_ids.tolist() == [1, 0]


def test_names_by_number_and_names_that_are_numbers(root: Path):
    write_text(root / "data.yaml", "val: images/val\nnames: {1: dog, 0: cat, 2: 3}\n")
    assert open_source(root / "data.yaml").names == ("cat", "dog", "3")


def test_hidden_files_are_no_images(root: Path):
    write_text(root / "images" / "val" / "._a.png", "not an image")
    write_png(root / "images" / ".cache" / "x.png")
    write_text(root / "data.yaml", f"val: images\nnames: {NAMES}\n")
    assert len(open_source(root / "data.yaml")) == 3


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("[a, b]", "data.yaml: expected the keys"),
        ("val: images/val", "key names is missing"),
        ("val: images/val\nnames: cat", "key names is missing"),
        ("val: images/val\nnames: [cat, no]", "name 1 is read as False; put it in quotes"),
        ("val: images/val\nnames: {1: cat, 2: dog}", "must be 0 to 1"),
        (f"val: images/val\nnc: 4\nnames: {NAMES}", "nc says 4 classes but names lists 3"),
        (f"train: images/val\nnames: {NAMES}", "no split 'val'; it has train"),
        (f"val:\nnames: {NAMES}", "no split 'val'; it has none"),
        (f"val: 5\nnames: {NAMES}", "val names 5; expected a folder"),
        (f"path: [a]\nval: images\nnames: {NAMES}", "path is \\['a'\\]"),
        (f"val: nowhere\nnames: {NAMES}", "val names nowhere, which is not there \\(neither .*set/nowhere nor"),
        (f"val: labels/val\nnames: {NAMES}", "labels/val: no images in this folder; expected files ending in .bmp"),
        (f"val: empty.txt\nnames: {NAMES}", "empty.txt: lists no images"),
        (f"val: first.txt\nnames: {NAMES}", "first.txt, line 2: the image images/val/x.png is not there"),
        (f"val: third.txt\nnames: {NAMES}", "third.txt, line 3: the image images/val/x.png is not there"),
        (f"val: images/val/a.png\nnames: {NAMES}", "a.png: cannot be read .* expected a folder or a text file"),
        (f"val: [images/val\nnames: {NAMES}", "line 2"),
    ],
)
def test_issues_of_the_yaml_are_named(root: Path, yaml: str, message: str):
    write_text(root / "empty.txt", "\n\n")
    write_text(root / "first.txt", "\nimages/val/x.png\n")
    write_text(root / "third.txt", "images/val/a.png\n\nimages/val/x.png\n")
    write_text(root / "data.yaml", yaml)
    with pytest.raises(InputError, match=message):
        open_source(root / "data.yaml")


def test_images_without_any_label_file_are_a_issue(root: Path):
    (root / "labels").rename(root / "labeled")
    with pytest.raises(DataError, match=r"3 images but no label file at all; expected for example .*labels/val/a.txt"):
        open_source(root / "data.yaml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data.xml", "not a data set known here"),
        ("images", "not a data set known here"),
        ("missing.yaml", "cannot be read"),
        ("missing.json", "cannot be read"),
    ],
)
def test_what_is_no_data_set_is_refused(root: Path, name: str, message: str):
    with pytest.raises(InputError, match=f"{name}: {message}"):
        open_source(root / name)


def test_an_image_folder_is_for_json_files(root: Path):
    with pytest.raises(DataError, match="COCO JSON"):
        open_source(root / "data.yaml", image_folder=root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", "class 3 is not one of the 3 classes 0 to 2"),
        ("0 0.5 0.5 -0.1 0.1", "-0.1 is a negative width or height"),
        ("-1 0.5 0.5 0.1 0.1", "class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5"),
        ("0 0.5 0.5 0.1", "4 numbers; expected 5"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers; expected 5"),
        ("0 0.5 0.5 0.1 0.1 0.9 0.1 0.1", "8 numbers; expected 5"),
        ("cat 0.5 0.5 0.1 0.1", "'cat'; expected numbers"),
        ("0,0.5,0.5,0.1,0.1", "expected numbers"),
        ("0 1.5 0.5 0.1 0.1", "1.5 is outside 0 to 1; .*divide x by its width"),
        ("0 0.5 -0.001 0.1 0.1", "-0.001 is outside"),
        ("0 0.1 0.1 0.1 1.2 0.4 0.4", "1.2 is outside"),
        ("0 0.5 nan 0.1 0.1", "not finite"),
        ("0 0.5 0.5 inf 0.1", "not finite"),
    ],
)
def test_issues_of_a_label_are_named_with_file_and_line(root: Path, line: str, message: str):
    write_text(root / "labels" / "val" / "b.txt", f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    source = open_source(root / "data.yaml")  # labels are read when asked for
    assert len(source[0].class_ids) == 2
    for use in (lambda: source[1], source.ground_truth):
        with pytest.raises(DataError, match=rf"b\.txt, line 3: .*{message}"):
            use()


def test_a_label_file_that_is_not_text_is_named(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.txt: the labels cannot be read"):
        read_labels(tmp_path / "a.txt", (HEIGHT, WIDTH), num_classes=1)


def test_rows_that_repeat_and_boxes_without_area_are_left_out_and_counted(tmp_path: Path):
    text = "2 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n2.0 0.50 0.5 0.2 0.4\n1 0.5 0.5 0 0.4\n1 0.2 0.2 0.2 0.7 0.2 0.9\n"
    labels = read_labels(write_text(tmp_path / "a.txt", text), (HEIGHT, WIDTH), num_classes=3)
    assert (labels.class_ids.tolist(), labels.duplicates, labels.empty) == ([2, 0], 1, 2)


def test_a_byte_order_mark_and_edges_of_the_image_are_fine(tmp_path: Path):
    file = write_text(tmp_path / "a.txt", "\ufeff0 0.5 0.5 1 1\r\n0 0 0 1 0.5")
    labels = read_labels(file, (HEIGHT, WIDTH), num_classes=1)
    assert labels.boxes_xyxy_px.tolist() == [[0, 0, WIDTH, HEIGHT], [-WIDTH / 2, -HEIGHT / 4, WIDTH / 2, HEIGHT / 4]]


def test_boxes_and_polygons_in_one_file(root: Path):
    lines = [
        "0 0.1 0.2 0.5 0.2 0.5 0.8",
        "1 0.5 0.5 0.5 0.5",
        "0 0.1 0.2 0.5 0.2 0.5 0.8",  # again
        "2 0.5 0.5 0.5 0.7 0.5 0.9",  # without area
        "2 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75",
        "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75",  # the box of the second line, but outlined
    ]
    write_text(root / "labels" / "val" / "a.txt", "\n".join(lines))
    source = open_source(root / "data.yaml")
    labels = source.labels(0)
    assert (labels.class_ids.tolist(), labels.duplicates, labels.empty) == ([0, 1, 2, 1], 1, 1)
    np.testing.assert_allclose(labels.boxes_xyxy_px, [[4, 4, 20, 16], *[[10, 5, 30, 15]] * 3], rtol=1e-15)  # float64
    for found in (labels.polygons, source[0].polygons, pickle.loads(pickle.dumps(source))[0].polygons):
        assert (found.corners.tolist(), found.owner.tolist()) == ([3, 4, 4], [0, 2, 3])
        square = [[10, 5], [30, 5], [30, 15], [10, 15]]
        assert found.points_xy_px.tolist() == [[4, 4], [20, 4], [20, 16], *square, *square]
    assert len(source.ground_truth()["annotations"]) == 4


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("3 0.5 0.5 0.1 0.1", "class out of range"),
        ("0.5 0.5 0.5 0.1 0.1", "class not an integer"),
        ("0 0.5 0.5 0.1", "wrong number of columns"),
        ("cat 0.5 0.5 0.1 0.1", "not a number"),
        ("0 320 240 64 48", "not normalized"),
        ("0 1.01 0.5 0.1 0.1", "outside of the image"),
        ("0 0.5 0.5 0.1 -0.1", "negative size"),
        ("0 0.5 0.5 nan 0.1", "not finite"),
    ],
)
def test_kinds_of_issues(root: Path, line: str, kind: str):
    write_text(root / "labels" / "val" / "b.txt", line)
    (issue,) = open_source(root / "data.yaml", on_error="skip").labels(1).issues
    assert issue.kind == kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "missing image"),
        (b"", "empty image"),
        (b"text", "unreadable image"),
        (b"\xff\xd8\xff", "truncated image"),
    ],
)
def test_kinds_of_images_that_cannot_be_used(root: Path, content: bytes | None, kind: str):
    source, file = open_source(root / "data.yaml"), root / "images" / "val" / "b.png"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(DataError) as error:
        source.check_image(1)
    assert error.value.kind == kind


def test_a_list_of_images_does_not_name_classes(root: Path):
    with pytest.raises(DataError, match=r"list\.txt: .*write a data YAML with train: list\.txt and names"):
        open_source(write_text(root / "list.txt", "images/val/a.png"), "train")


fractions = st.floats(0, 1, width=16)


@given(points=st.lists(st.tuples(fractions, fractions), min_size=3, max_size=9))
def test_the_box_of_a_polygon_holds_all_its_points(tmp_path_factory: pytest.TempPathFactory, points: list):
    text = "0 " + " ".join(f"{x} {y}" for x, y in points)
    file = write_text(tmp_path_factory.getbasetemp() / "polygon.txt", text)
    labels = read_labels(file, (HEIGHT, WIDTH), num_classes=1)
    points_px = np.array(points) * [WIDTH, HEIGHT]
    low, high = points_px.min(axis=0), points_px.max(axis=0)
    if (low == high).any():
        assert labels.empty == 1
        return
    assert labels.boxes_xyxy_px.tolist() == [[*low, *high]]
    # Products of 16 bit fractions and these sides are exact in float32.
    assert labels.polygons.points_xy_px.tolist() == points_px.tolist()


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("set/images/val/a.jpg", "set/labels/val/a.txt"),
        ("images/x/images/a.b.png", "images/x/labels/a.b.txt"),
        ("my_images/a.png", "my_images/a.txt"),
        ("photos/images.png", "photos/images.txt"),
    ],
)
def test_where_labels_are(image: str, label: str):
    assert label_file(Path(image)) == Path(label)


def write_turned(file: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (WIDTH, HEIGHT)).save(file, exif=exif)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_says_the_size_that_decoding_gives(tmp_path: Path, suffix: str, orientation: int):
    file = tmp_path / f"x{suffix}"
    write_turned(file, orientation)
    assert image_size(file) == read_image(file).shape[:2]
    assert image_size(file) == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "save",
    [
        lambda file: cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH), np.uint8)),
        lambda file: cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH, 4), np.uint8)),
        lambda file: write_png(file),
    ],
)
@pytest.mark.parametrize("suffix", [".bmp", ".png", ".tif", ".webp"])
def test_gray_and_transparent_images_have_sizes_too(tmp_path: Path, suffix: str, save: Callable[[Path], Any]):
    save(tmp_path / f"x{suffix}")
    assert image_size(tmp_path / f"x{suffix}") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\x00"])
def test_a_broken_image_is_named(root: Path, content: bytes):
    (root / "images" / "val" / "b.png").write_bytes(content)
    source = open_source(root / "data.yaml")
    for use in (lambda: source[1], lambda: source.size(1), source.ground_truth):
        with pytest.raises(DataError, match=r"b\.png"):
            use()


def test_an_image_that_went_away_is_named(root: Path):
    source = open_source(root / "data.yaml")
    (root / "images" / "val" / "b.png").unlink()
    for use in (lambda: source[1], lambda: source.size(1)):
        with pytest.raises(DataError, match=r"b\.png"):
            use()


@pytest.mark.shared
def test_ground_truth_of_coco128_is_the_one_made_from_its_labels(shared: Path):
    source = open_source(shared / "coco128" / "data.yaml")
    truth = source.ground_truth()
    expected = json.loads((shared / "coco128" / "instances.json").read_text())
    pick = itemgetter("id", "name")  # COCO's own ids, with gaps
    assert list(map(pick, truth["categories"])) == list(map(pick, expected["categories"]))
    assert truth["images"] == sorted(expected["images"], key=lambda row: row["id"])
    ids = itemgetter("image_id", "category_id")
    pairs = list(zip(sorted(truth["annotations"], key=ids), sorted(expected["annotations"], key=ids), strict=True))
    for row, other in pairs:
        assert ids(row) == ids(other)
        np.testing.assert_allclose(row["bbox"], other["bbox"], rtol=0, atol=0.00501)  # the file has two decimals
        assert row["area"] == pytest.approx(other["area"], rel=1e-12)
    assert len(pairs) == 929


@pytest.mark.shared
def test_samples_of_coco128_agree_with_its_ground_truth(shared: Path):
    source = open_source(shared / "coco128" / "data.yaml")
    rows: dict[int, list] = {}
    for row in source.ground_truth()["annotations"]:
        rows.setdefault(row["image_id"], []).append(row)
    for index in range(0, len(source), 16):
        image, boxes, class_ids, image_id, _ = source[index]
        assert image.shape[:2] == source.size(index)
        found = rows.get(image_id, [])
        assert [row["category_id"] for row in found] == [source.category_ids[k] for k in class_ids]
        xywh = np.array([row["bbox"] for row in found]).reshape(-1, 4)
        np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], xywh[:, 2:], rtol=0, atol=1e-4)  # float32, to 640
        np.testing.assert_allclose(boxes[:, :2], xywh[:, :2], rtol=0, atol=1e-4)

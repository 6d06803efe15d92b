import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from yolov7_jax.datasets import open_source
from yolov7_jax.errors import DataError

WIDTH, HEIGHT = 40, 20
CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 42, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        {"id": 9, "file_name": "c.png", "width": WIDTH, "height": HEIGHT},
    ],
    "annotations": [
        {"id": 5, "image_id": 9, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 9, "iscrowd": 0},
        {"id": 6, "image_id": 42, "category_id": 3, "bbox": [0, 0, 40, 20], "area": 700, "iscrowd": 0},
        {"id": 7, "image_id": 42, "category_id": 3, "bbox": [5, 5, 9, 9], "area": 70, "iscrowd": 1},
        {"id": 8, "image_id": 42, "category_id": 3, "bbox": [5, 5, 9, 0], "area": 0, "iscrowd": 0},
        {"id": 9, "image_id": 9, "category_id": 1, "bbox": [10, 10, 10, 10]},
        {"id": 10, "image_id": 42, "category_id": 90, "bbox": [2, 2, 2, 2], "area": 3, "iscrowd": 0},
    ],
    "categories": [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
}


def write(file: Path, content: Any = CONTENT) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_images(tmp_path / "val2017")
    return write(tmp_path / "annotations" / "instances_val2017.json")


def test_classes_follow_category_ids_and_images_the_file(file: Path):
    source = open_source(file)
    assert (source.names, source.category_ids) == (("person", "car", "brush"), (1, 3, 90))
    assert (len(source), source.image_ids) == (3, (42, 7, 9))
    assert source.path(1).samefile(file.parent.parent / "val2017" / "a.png")
    assert source.size(1) == (HEIGHT, WIDTH)


def test_samples_leave_out_crowds_and_boxes_without_area(file: Path):
    source = open_source(file)
    image, boxes, class_ids, image_id, _ = source[0]
    assert (image.shape, image.dtype, image_id) == ((HEIGHT, WIDTH, 3), np.uint8, 42)
    assert (boxes.dtype, class_ids.dtype) == (np.float32, np.int32)
    assert (boxes.tolist(), class_ids.tolist()) == ([[0, 0, 40, 20], [2, 2, 4, 4]], [1, 2])
    assert (source[1].boxes_xyxy_px.shape, source[1].class_ids.shape) == ((0, 4), (0,))
    assert source[2].boxes_xyxy_px.tolist() == [[1, 2, 4.5, 6], [10, 10, 20, 20]]
    assert source[2].class_ids.tolist() == [2, 0]
    assert source[-1].class_ids.tolist() == [2, 0]


def test_ground_truth_is_the_file_itself_without_outlines(file: Path):
    content = changed("annotations", 0, "segmentation", to=[[1, 2, 3, 4, 5, 6]])
    assert open_source(write(file, content)).ground_truth() == CONTENT


OUTLINES = [[[1, 2, 4.5, 2, 4.5, 4, 1, 4]], [[10, 10, 20, 10, 15, 20], [12, 12, 13, 12, 13, 13, 12, 13]]]


def outlined() -> dict[str, Any]:
    """Objects of image 9 with one and with two polygons, one of image 42 with none, its crowd with a mask."""
    content = copy.deepcopy(CONTENT)
    rows = {row["id"]: row for row in content["annotations"]}
    rows[5]["segmentation"], rows[9]["segmentation"] = copy.deepcopy(OUTLINES)
    rows[6]["segmentation"] = []
    rows[7]["segmentation"] = {"counts": [0, 800], "size": [20, 40]}
    return content


def test_objects_have_their_polygons(file: Path):
    source = open_source(write(file, outlined()))
    for found in (source.labels(2).polygons, source[2].polygons, pickle.loads(pickle.dumps(source))[2].polygons):
        assert (found.corners.tolist(), found.owner.tolist()) == ([4, 3, 4], [0, 1, 1])
        assert found.points_xy_px.ravel().tolist() == [number for part in OUTLINES for it in part for number in it]
    # The box is the one that the file gives, though its outline is smaller.
    assert source[2].boxes_xyxy_px.tolist() == [[1, 2, 4.5, 6], [10, 10, 20, 20]]
    assert len(source[0].polygons.owner) == len(source[1].polygons.owner) == 0
    assert source.ground_truth() == CONTENT


def test_polygons_stay_with_their_objects_when_others_are_left_out(file: Path):
    content = outlined()
    content["annotations"].insert(0, {"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 1, 0, 5]})
    content["annotations"][0]["segmentation"] = [[1, 1, 1, 3, 1, 6]]
    content["annotations"].append(content["annotations"][1] | {"id": 99})
    labels = open_source(write(file, content)).labels(2)
    assert (labels.class_ids.tolist(), labels.empty, labels.duplicates) == ([2, 0], 1, 1)
    assert (labels.polygons.corners.tolist(), labels.polygons.owner.tolist()) == ([4, 3, 4], [0, 1, 1])


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_crowds_and_objects_to_be_ignored(file: Path, key: str):
    source = open_source(write(file, changed("annotations", 1, key, to=1)))
    assert source[0].class_ids.tolist() == [2]
    labels = source.labels(0)
    assert labels.ignored_class_ids.tolist() == [1, 1]
    assert labels.ignored_boxes_xyxy_px.tolist() == [[0, 0, 40, 20], [5, 5, 14, 14]]
    crowds = [row["id"] for row in source.ground_truth()["annotations"] if row.get("iscrowd")]
    assert crowds == [6, 7]


@pytest.mark.parametrize("nothing", [[], [[]], [[], []]])
def test_an_outline_of_nothing_is_none(file: Path, nothing: list[Any]):
    content = outlined()
    content["annotations"][4]["segmentation"] = nothing
    labels = open_source(write(file, content)).labels(2)
    assert (labels.class_ids.tolist(), labels.polygons.owner.tolist(), labels.issues) == ([2, 0], [0], ())


@pytest.mark.parametrize(
    ("outline", "message", "kind"),
    [
        ([[1, 2, 3, 4]], "polygon 1 has 2 points; expected three or more", "polygon under 3 points"),
        ([[0, 0, 1, 0, 1, 1], []], "polygon 2 has 0 points", "polygon under 3 points"),
        ([[0, 0, 1, 0, 1, float("nan")]], "polygon 1 has a number that is not finite", "not finite"),
        ([[0, 0, 1, 0, 1, 1e300]], "polygon 1 has a number that is not finite", "not finite"),
        ([[0, 0, 1, 0, 1, 10**400]], "no list of lists", "no polygon"),
        ([[0, 0, 1, 0, 1]], "no list of lists x1, y1", "no polygon"),
        ([0, 0, 1, 0, 1, 1], "no list of lists", "no polygon"),
        ([["a", 0, 1, 0, 1, 1]], "no list of lists", "no polygon"),
        ("outline", "no list of lists", "no polygon"),
    ],
)
def test_objects_with_a_wrong_outline_are_kept_without_it(file: Path, outline: Any, message: str, kind: str):
    content = outlined()
    content["annotations"][4]["segmentation"] = outline
    write(file, content)
    with pytest.raises(DataError, match=rf"^[^:]*: annotation 9 has a segmentation .*{message}") as error:
        open_source(file)
    assert error.value.kind == kind
    source = open_source(file, on_error="skip")
    labels = source.labels(2)
    assert labels.class_ids.tolist() == [2, 0]
    assert labels.polygons.owner.tolist() == [0]
    assert labels.issues == (("error", kind, str(error.value), None, None),)
    assert source.ground_truth() == CONTENT


def test_a_file_without_objects_is_fine(file: Path):
    source = open_source(write(file, {**CONTENT, "annotations": []}))
    assert [source[index].boxes_xyxy_px.shape for index in range(3)] == [(0, 4)] * 3


def test_changing_a_sample_does_not_change_the_source(file: Path):
    source = open_source(write(file, changed("annotations", 1, "segmentation", to=[[0, 0, 40, 0, 20, 20]])))
    sample = source[0]
    for array in (sample.boxes_xyxy_px, sample.class_ids, *sample.polygons):
        array[:] = 0
    again = source[0]
    assert (again.boxes_xyxy_px.max(), again.class_ids.tolist()) == (40, [1, 2])
    assert again.polygons.points_xy_px.max() == 40
    assert again.polygons.corners.tolist() == [3]


def test_sources_travel_to_worker_processes(file: Path):
    assert pickle.loads(pickle.dumps(open_source(file)))[2].class_ids.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("instances_val2017.json", "."),
        ("_annotations.coco.json", "."),
        ("x.json", "images"),
        ("annotations/x.json", "images"),
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
        ("annotations/val.json", "val"),
    ],
)
def test_images_are_found_in_usual_places(tmp_path: Path, annotations: str, images: str):
    write_images(tmp_path / images)
    source = open_source(write(tmp_path / annotations))
    assert source.path(0).samefile(tmp_path / images / "b.png")


def test_a_folder_laid_out_as_coco_s_is_opened_by_split(file: Path):
    folder = file.parent.parent
    assert open_source(folder, "val2017").file == open_source(folder, "val").file == file
    write_images(folder / "images" / "val")
    write(folder / "annotations" / "instances_val.json")
    write(folder / "annotations" / "instances_valminusminival.json")
    assert open_source(folder, "val").file == folder / "annotations" / "instances_val.json"
    write_images(folder / "elsewhere")
    other = open_source(folder, "val", image_folder=folder / "elsewhere")
    assert other.path(0).samefile(folder / "elsewhere" / "b.png")
    for split in ("train", "valm2", "va"):
        with pytest.raises(
            DataError, match=rf"no split '{split}'; it has val, val2017, valminusminival: add .*{split}.json"
        ):
            open_source(folder, split)


def test_images_are_found_where_told(tmp_path: Path):
    write_images(tmp_path / "elsewhere")
    file = write(tmp_path / "x.json")
    assert open_source(file, image_folder=tmp_path / "elsewhere")[0].image.shape == (HEIGHT, WIDTH, 3)
    write_images(tmp_path)
    with pytest.raises(DataError, match=r"x\.json: its image b\.png is not in .*nowhere; name the folder"):
        open_source(file, image_folder=tmp_path / "nowhere")


def test_missing_images_are_counted_and_the_first_named(file: Path):
    for name in ("a.png", "c.png"):
        (file.parent.parent / "val2017" / name).unlink()
    with pytest.raises(DataError, match=r"2 of its 3 images are not in .*the first is a\.png \(image 7\)"):
        open_source(file)


def test_an_image_of_another_size_is_refused(file: Path):
    Image.new("RGB", (HEIGHT, WIDTH)).save(file.parent.parent / "val2017" / "b.png")
    source = open_source(file)
    with pytest.raises(DataError, match=r"b\.png: the image is 20 x 40 pixels, but .*json \(image 42\) says 40 x 20"):
        source[0]


def test_sizes_that_the_file_says_need_no_image(file: Path):
    source = open_source(file)
    (file.parent.parent / "val2017" / "b.png").unlink()
    assert source.size(0) == (HEIGHT, WIDTH)


def test_sizes_that_the_file_does_not_say_come_from_the_image(file: Path):
    content = copy.deepcopy(CONTENT)
    for row in content["images"]:
        del row["width"], row["height"]
    source = open_source(write(file, content))
    assert source.size(0) == (HEIGHT, WIDTH)
    assert source[0].image.shape == (HEIGHT, WIDTH, 3)


def changed(*path: Any, to: Any = None) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    *way, last = path
    place: Any = content
    for key in way:
        place = place[key]
    if to is None:
        del place[last]
    else:
        place[last] = to
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no list 'images'"),
        (changed("annotations"), "no list 'annotations'"),
        (changed("categories", to={}), "no list 'categories'"),
        (changed("images", to=[]), "0 images and 3 categories"),
        (changed("categories", to=[]), "3 images and 0 categories"),
        (changed("images", 1, "id"), "image number 2 has no integer id"),
        (changed("images", 1, to="a.png"), "image number 2 has no integer id"),
        (changed("images", 1, "id", to="7"), "image number 2 has no integer id"),
        (changed("images", 1, "id", to=True), "image number 2 has no integer id"),
        (changed("images", 1, "id", to=42), "two entries have the image id 42"),
        (changed("images", 1, "file_name"), "image 7 has no text 'file_name'"),
        (changed("images", 1, "width"), "image 7 has width None, height 20"),
        (changed("images", 1, "height", to=0), "image 7 has width 40, height 0"),
        (changed("categories", 2, "id", to=90), "two entries have the category id 90"),
        (changed("categories", 0, "name"), "category 90 has no text 'name'"),
        (changed("annotations", 1, to=3), "annotation number 2 has no integer 'image_id'"),
        (changed("annotations", 1, "image_id"), "annotation 6 has no integer 'image_id'"),
        (changed("annotations", 1, "image_id", to=8), "annotation 6 has image_id 8, which is not in images"),
        (changed("annotations", 1, "category_id", to="car"), "annotation 6 has no integer 'category_id'"),
        (changed("annotations", 1, "category_id", to=2), "annotation 6 has category_id 2, which is not in categories"),
        (changed("annotations", 1, "bbox"), "annotation 6 has bbox None; expected four numbers"),
        (changed("annotations", 1, "bbox", to=[1, 2, 3]), "annotation 6 has bbox"),
        (changed("annotations", 1, "bbox", to=[1, 2, 3, "4"]), "annotation 6 has bbox"),
        (changed("annotations", 1, "bbox", to=[1, 2, -3, 4]), "annotation 6 has bbox .*no negative width"),
        (changed("annotations", 1, "bbox", to=[1, float("nan"), 3, 4]), "annotation 6 has bbox .*finite"),
        (changed("annotations", 1, "bbox", to=[1, 2, 10**400, 4]), "annotation 6 has bbox .*finite"),
    ],
)
def test_issues_are_named_with_file_and_id(file: Path, content: Any, message: str):
    write(file, content)
    with pytest.raises(DataError, match=rf"instances_val2017\.json: .*{message}"):
        open_source(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [\n{"id": 1', "line 2: not JSON .*cut off"),
        (b"", "line 1: not JSON"),
        (b"\xff\xfe\xfa", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_json_is_named(file: Path, content: bytes, message: str):
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"instances_val2017\.json.*{message}"):
        open_source(file)


@pytest.mark.shared
def test_coco128_as_json_is_coco128_as_labels(shared: Path):
    as_json, as_labels = (open_source(shared / "coco128" / name) for name in ("instances.json", "data.yaml"))
    assert as_json.names == as_labels.names
    assert as_json.category_ids[11] == 13  # COCO's ids have gaps
    assert as_labels.category_ids == as_json.category_ids  # known by the names of the classes
    where = {image_id: index for index, image_id in enumerate(as_labels.image_ids)}
    for index in range(0, len(as_json), 16):
        one, other = as_json[index], as_labels[where[as_json.image_ids[index]]]
        np.testing.assert_array_equal(one.image, other.image)
        assert one.class_ids.tolist() == other.class_ids.tolist()
        # Corner and size are rounded to two decimals in the file.
        np.testing.assert_allclose(one.boxes_xyxy_px, other.boxes_xyxy_px, rtol=0, atol=0.0101)

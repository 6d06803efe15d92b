import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tests.datasets.labeled_images import labels_of, write_png, write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.content import Content, Item
from yolov7_jax.datasets.curate.conversion import convert_data, format_of, open_splits, split_names
from yolov7_jax.datasets.writers import write_data
from yolov7_jax.errors import DataError
from yolov7_jax.ops.polygons import of_object
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Labels

NAMES = ("cat", "dog", "bird")
MARGIN = 6.0  # how far boxes may reach beyond their image
# Sums and products of a handful of float64 numbers under 100: a few units in the last place each, 14 digits before it.
ROUNDING = 1e-12


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int]) -> tuple[float, ...]:
    """A box at least a tenth of a pixel of which is in the image."""
    height, width = size
    x1, y1 = draw(st.floats(-MARGIN, width - 0.1)), draw(st.floats(-MARGIN, height - 0.1))
    x2 = draw(st.floats(max(x1, 0) + 0.1, width + MARGIN))
    return x1, y1, x2, draw(st.floats(max(y1, 0) + 0.1, height + MARGIN))


@st.composite
def polygons(draw: st.DrawFn, size: tuple[int, int]) -> np.ndarray:
    """A polygon in the image whose box has an area; its corners are float32, as those of labels are."""
    height, width = size
    corner = st.tuples(st.floats(0, width, width=32), st.floats(0, height, width=32))
    points = draw(st.lists(corner, min_size=3, max_size=6))
    points += [(np.float32(width / 4), np.float32(height / 4)), (np.float32(width / 2), np.float32(height / 2))]
    return np.array(points, np.float32)


@st.composite
def labels(draw: st.DrawFn) -> Labels:
    size = draw(st.tuples(st.integers(2, 30), st.integers(2, 30)))
    class_ids = st.integers(0, len(NAMES) - 1)
    objects: list[Any] = draw(st.lists(st.tuples(class_ids, boxes(size)), max_size=3))
    for class_id, outlines in draw(
        st.lists(st.tuples(class_ids, st.lists(polygons(size), min_size=1, max_size=2)), max_size=3)
    ):
        corners = np.concatenate(outlines).astype(np.float64)
        objects.append((class_id, (*corners.min(axis=0), *corners.max(axis=0)), outlines))
    unlike = {(class_id, *np.round(np.clip(box, 0, [*size[::-1]] * 2), 3)): None for class_id, box, *_ in objects}
    if len(unlike) < len(objects):  # equal objects are left out: a test of its own
        objects = []
    return labels_of(*objects, ignored=draw(st.lists(st.tuples(class_ids, boxes(size)), max_size=2)), size=size)


def written(folder: Path, splits: dict[str, list[Labels]], *, to: str = "coco") -> Path:
    content = {
        split: [
            Item(write_png(folder / "in" / f"{split}{number:03}.png", *found.size[::-1]), number + 1, found)
            for number, found in enumerate(images)
        ]
        for split, images in splits.items()
    }
    write_data(folder / to, Content(NAMES, (1, 2, 3), content), to=to)  # type: ignore[arg-type]
    return folder / to / "data.yaml" if to == "yolo" else folder / to


def all_labels(data: Path) -> dict[str, list[Labels]]:
    return {split: _labels(source) for split, source in open_splits(data).items()}


def _labels(source: SourceMixin) -> list[Labels]:
    assert source.names == NAMES
    return [source.labels(index, source.check_image(index)) for index in range(len(source))]


def outlines(found: Labels) -> list[list[list[list[float]]]]:
    return [[p.tolist() for p in of_object(found.polygons, n)] for n in range(len(found.class_ids))]


def clipped(found: Labels, boxes_px: np.ndarray) -> np.ndarray:
    return np.clip(boxes_px, 0, [*found.size[::-1]] * 2)


def distinct(rows: list[tuple[int, ...]]) -> int:
    return len(dict.fromkeys(rows))


@settings(max_examples=25)
@given(st.lists(labels(), min_size=1, max_size=3), st.lists(labels(), min_size=1, max_size=2))
def test_round_trip_keeps_all_that_the_formats_can_hold(train: list[Labels], val: list[Labels]):
    with TemporaryDirectory() as place:
        folder = Path(place)
        coco = all_labels(written(folder, {"train": train, "val": val}))
        for given_labels, found in zip([*train, *val], [*coco["train"], *coco["val"]], strict=True):
            assert found.size == given_labels.size
            assert found.class_ids.tolist() == given_labels.class_ids.tolist()
            assert_allclose(found.boxes_xyxy_px, given_labels.boxes_xyxy_px, rtol=0, atol=ROUNDING)
            assert outlines(found) == outlines(given_labels)
            assert found.ignored_class_ids.tolist() == given_labels.ignored_class_ids.tolist()
            assert_allclose(found.ignored_boxes_xyxy_px, given_labels.ignored_boxes_xyxy_px, rtol=0, atol=ROUNDING)

        to_yolo = convert_data(folder / "coco", folder / "yolo", to="yolo")
        yolo = all_labels(to_yolo.data)
        losses = dict.fromkeys(("ignored", "several", "one"), 0)
        for given_labels, found in zip([*train, *val], [*yolo["train"], *yolo["val"]], strict=True):
            assert found.size == given_labels.size
            assert found.class_ids.tolist() == given_labels.class_ids.tolist()
            expected = clipped(given_labels, given_labels.boxes_xyxy_px)
            assert_allclose(found.boxes_xyxy_px, expected, rtol=0, atol=ROUNDING)
            assert outlines(found) == [p if len(p) == 1 else [] for p in outlines(given_labels)]
            losses["ignored"] += len(given_labels.ignored_class_ids)
            losses["several"] += sum(len(p) > 1 for p in outlines(given_labels))
            losses["one"] += sum(len(p) == 1 for p in outlines(given_labels))
        assert said(to_yolo.losses, "to be ignored") == losses["ignored"]
        assert said(to_yolo.losses, "several polygons") == losses["several"]

        to_voc = convert_data(to_yolo.data, folder / "voc", to="voc")
        assert said(to_voc.losses, "Pascal VOC has boxes only") == losses["one"]
        back = convert_data(folder / "voc", folder / "back", to="yolo")
        assert not back.losses  # what was lost is lost
        for split, images in all_labels(back.data).items():
            for before, found in zip(yolo[split], images, strict=True):
                assert found.class_ids.tolist() == before.class_ids.tolist()
                assert_allclose(found.boxes_xyxy_px, before.boxes_xyxy_px, rtol=0, atol=ROUNDING)

        direct = convert_data(folder / "coco", folder / "direct", to="voc")
        for split, images in all_labels(direct.data).items():
            for before, found in zip(coco[split], images, strict=True):
                assert_allclose(found.boxes_xyxy_px, clipped(before, before.boxes_xyxy_px), rtol=0, atol=ROUNDING)
                kept = list(
                    dict.fromkeys(
                        zip(
                            before.ignored_class_ids.tolist(),
                            map(tuple, clipped(before, before.ignored_boxes_xyxy_px)),
                            strict=True,
                        )
                    )
                )
                assert found.ignored_class_ids.tolist() == [class_id for class_id, _ in kept]
                kept_boxes = np.array([box for _, box in kept]).reshape(-1, 4)
                assert_allclose(found.ignored_boxes_xyxy_px, kept_boxes, rtol=0, atol=ROUNDING)


def said(losses: Any, words: str) -> int:
    return sum(count for what, count in losses.items() if words in what)


def test_splits_that_are_named(tmp_path: Path):
    one = {"val": [labels_of((0, (1, 1, 9, 9)))], "extra": [labels_of()], "train": [labels_of()]}
    assert split_names(written(tmp_path, one)) == ("train", "val")
    assert split_names(written(tmp_path, one, to="voc")) == ("train", "val")
    assert split_names(written(tmp_path, one, to="yolo")) == ("train", "val")
    assert split_names("instances_val2017.json") == ("val",)
    assert split_names("mine.json") == ("train",)
    assert split_names(written(tmp_path / "x", {"extra": one["val"]}, to="voc")) == ("extra",)
    assert open_splits(tmp_path / "coco", ["extra"])["extra"].image_ids == (1,)
    assert [format_of(tmp_path / name) for name in ("yolo/data.yaml", "coco", "voc")] == ["yolo", "coco", "voc"]
    with pytest.raises(DataError, match="names no split"):
        split_names(write_text(tmp_path / "data.yaml", "names: [cat]\ntrain:\n"))


def test_a_coco_file_keeps_ids(tmp_path: Path):
    content = {
        "images": [{"id": 30, "file_name": "b.png"}, {"id": -2, "file_name": "a.png"}],
        "annotations": [{"id": 5, "image_id": 30, "category_id": 44, "bbox": [1, 2, 3.25, 4]}],
        "categories": [{"id": 44, "name": "dog"}, {"id": 7, "name": "cat"}],
    }
    for name in ("a", "b"):
        write_png(tmp_path / "pictures" / f"{name}.png")
    file = write_text(tmp_path / "in" / "mine.json", json.dumps(content))
    out = convert_data(file, tmp_path / "out", to="coco", splits=["val"], image_folder=tmp_path / "pictures")
    source = open_source(out.data)
    assert (source.names, source.category_ids, source.image_ids) == (("cat", "dog"), (7, 44), (30, -2))
    assert [source.path(index).name for index in (0, 1)] == ["b.png", "a.png"]
    assert source[0].boxes_xyxy_px.tolist() == [[1, 2, 4.25, 6]]
    assert out.data == tmp_path / "out" / "annotations" / "instances_val.json"


def test_objects_that_readers_leave_out_are_said(tmp_path: Path):
    write_png(tmp_path / "images" / "a.png")
    write_text(tmp_path / "labels" / "a.txt", "0 .5 .5 .1 .1\n0 .5 .5 .1 .1\n0 .5 .5 0 .1\n")
    data = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    assert convert_data(data, tmp_path / "out", to="coco").sentences == [
        "objects left out, as they repeat another of their image: 1",
        "objects left out, as their box has no area: 1",
    ]


def test_wrong_data_is_refused_and_nothing_is_left(tmp_path: Path):
    write_png(tmp_path / "images" / "a.png")
    write_text(tmp_path / "labels" / "a.txt", "9 .5 .5 .1 .1\n")
    data = write_text(tmp_path / "data.yaml", "train: images\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"a\.txt, line 1: class 9 is not one of"):
        convert_data(data, tmp_path / "out", to="coco")
    assert not (tmp_path / "out").exists()


def test_progress_is_handed_on(tmp_path: Path):
    data = written(tmp_path, {"train": [labels_of()] * 3, "val": [labels_of()]})
    totals = []
    convert_data(data, tmp_path / "out", to="voc", progress=lambda items, total: totals.append(total) or items)
    assert totals == [3, 1]


@pytest.mark.shared
def test_coco128_there_and_back(shared: Path, tmp_path: Path):
    first = open_source(shared / "coco128" / "instances.json")
    yolo = convert_data(shared / "coco128" / "instances.json", tmp_path / "yolo", to="yolo").data
    voc = convert_data(yolo, tmp_path / "voc", to="voc").data
    last = open_source(convert_data(voc, tmp_path / "coco", to="coco").data)
    by_id = {image_id: index for index, image_id in enumerate(last.image_ids)}
    assert sorted(by_id) == sorted(first.image_ids)
    for index, image_id in enumerate(first.image_ids):
        before, after = first.labels(index), last.labels(by_id[image_id])
        assert [first.names[n] for n in before.class_ids] == [last.names[n] for n in after.class_ids]
        assert_allclose(after.boxes_xyxy_px, clipped(before, before.boxes_xyxy_px), rtol=0, atol=ROUNDING)

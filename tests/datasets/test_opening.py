"""Formats by name, and sources of a user that satisfy the protocol alone."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.labeled_images import labels_of, write_png, write_text
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.audit import audit, readable
from yolov7_jax.datasets.curate.check import check_data
from yolov7_jax.datasets.curate.conversion import convert_data, format_of, split_names
from yolov7_jax.datasets.label_cache import cached_findings
from yolov7_jax.datasets.opening import locate
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.registry import SOURCES, register_source
from yolov7_jax.source import Source, SourceMixin, complete
from yolov7_jax.types import Labels, Sample


class Small:
    """What `Source` asks for and nothing else: images 20 high and 40 wide with one cat, at x = 5 + number."""

    names = ("dog", "cat")

    def __init__(self, count: int = 3) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        labels = self.labels(index)
        image = np.full((20, 40, 3), 40 * index, np.uint8)
        return Sample(image, labels.boxes_xyxy_px.astype(np.float32), labels.class_ids)

    def labels(self, index: int) -> Labels:
        return labels_of((1, [5 + index, 5, 15 + index, 10]))


@pytest.fixture
def registered() -> Iterator[list[tuple[str, str, str]]]:
    """The calls of a registered format `small`."""
    calls: list[tuple[str, str, str]] = []

    @register_source("small")
    def open_small(place: str, split: str, *, on_error: str) -> Source:
        calls.append((place, split, on_error))
        return Small()

    yield calls
    del SOURCES["small"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_png(tmp_path / "images/a.png")
    write_text(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.5\n")
    return write_text(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")


def test_a_source_of_four_things_is_completed():
    small = Small()
    assert isinstance(small, Source)
    source = complete(small)
    assert complete(source) is source
    assert (source.names, len(source), source.image_ids, source.category_ids) == (("dog", "cat"), 3, (1, 2, 3), (1, 2))
    assert (source.size(1), source.check_image(1), source.issues, source.files()) == ((20, 40), (20, 40), (), [])
    assert source.path(2) == Path("Small/3")
    assert source.read(1).max() == 40
    truth = source.ground_truth()
    assert [row["bbox"] for row in truth["annotations"]] == [[5, 5, 10, 5], [6, 5, 10, 5], [7, 5, 10, 5]]
    with pytest.raises(DataError, match=r"Small/1: the image is 1 x 2 pixels, but its source says 40 x 20"):
        source.labels_for(0, (2, 1))


def test_a_subset_is_these_images():
    source = complete(Small()).subset([2, -3])
    assert (len(source), source.image_ids, source.names) == (2, (3, 1), ("dog", "cat"))
    assert [source[at].boxes_xyxy_px[0, 0] for at in range(2)] == [7, 5]
    assert source.subset([1]).ground_truth()["images"][0]["id"] == 1


def test_a_completed_source_is_audited_and_never_cached(tmp_path: Path):
    source = complete(Small())
    found = audit(source, cached_findings(source, mode="times", folder=tmp_path / "kept"))
    assert (found.objects, found.sentences) == ((0, 3), ())
    assert not (tmp_path / "kept").exists()
    assert readable(source, found)[1].boxes_xyxy_px.tolist() == [[6, 5, 16, 10]]


def test_a_registered_format_is_opened_by_name(registered: list[tuple[str, str, str]]):
    source = open_source("small:some/place:1", "train", on_error="skip")
    assert isinstance(source, SourceMixin)
    assert registered == [("some/place:1", "train", "skip")]
    assert (split_names("small:place"), format_of("small:place")) == (("train",), "coco")
    with pytest.raises(DataError, match="an image folder is for COCO JSON files"):
        open_source("small:place", image_folder=Path())


def test_tools_take_a_registered_format(registered: list[tuple[str, str, str]], tmp_path: Path):
    assert check_data("small:place").errors == ()
    written = convert_data("small:place", tmp_path / "out", to="yolo")
    assert open_source(written.data, "train")[2].boxes_xyxy_px == pytest.approx(np.array([[7, 5, 17, 10]]))


def test_a_registered_format_is_joined_with_others(registered: list[tuple[str, str, str]], data: Path):
    joined = write_text(data.parent / "all.yaml", "datasets: [data.yaml, 'small:data.yaml', 'small:elsewhere']\n")
    assert len(open_source(joined, "train")) == 7
    assert [place for place, *_ in registered] == [str(data), "elsewhere"]


def test_built_in_formats_have_names_too(data: Path):
    assert {"yolo", "coco", "voc", "joined", "tfds"} <= set(SOURCES)
    assert open_source(f"yolo:{data}").ground_truth() == open_source(data).ground_truth()


def test_an_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"'yollo' is not known \(did you mean 'yolo'\?\); expected one of yolo, coco"):
        open_source("yollo:data.yaml")


def test_paths_with_colons_are_paths(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data.rename("yolo:mine.yaml")
    assert locate("yolo:mine.yaml") == ("yolo", "yolo:mine.yaml")
    assert locate(r"C:\data\mine.json") == ("coco", r"C:\data\mine.json")
    assert locate("some/yolo:mine.json") == ("coco", "some/yolo:mine.json")
    assert len(open_source("yolo:mine.yaml")) == 1


def test_the_example_of_a_csv_file(tmp_path: Path):
    file = Path(__file__).parents[2] / "examples/csv_source.py"
    try:
        example = runpy.run_path(str(file), run_name="example")
        source = open_source(f"csv:{example['write_csv'](tmp_path, 'val')}", "val")
        scenes = open_source(tmp_path / "val/data.yaml", "val")
        assert len(source) == len(scenes) == 8
        for found, scene in zip(map(source.__getitem__, range(8)), map(scenes.__getitem__, range(8)), strict=True):
            assert (found.image == scene.image).all()
            assert found.boxes_xyxy_px.tolist() == scene.boxes_xyxy_px.tolist()
            assert [source.names[n] for n in found.class_ids] == [scenes.names[n] for n in scene.class_ids]
        assert source.size(0) == (96, 96)
    finally:
        SOURCES.pop("csv", None)

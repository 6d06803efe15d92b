"""What people do with detections in hand."""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_networks import noise, small_weights
from yolov7_jax.errors import DataError, InputError, InstallationError
from yolov7_jax.image import read_image, write_image
from yolov7_jax.inference import pillow
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.results import ImageDetections
from yolov7_jax.types import Detections
from yolov7_jax.viz.draw import draw_detections

IMAGE = noise(50, 100)
BOXES = np.array([[10, 20, 30, 40], [-0.5, 5.5, 99.2, 49.9], [98.5, 49.5, 100, 50]], np.float32)


@pytest.fixture
def found() -> ImageDetections:
    scores, class_ids = np.array([0.9, 0.5, 0.25], np.float32), np.array([2, 0, 2], np.int32)
    names = ("ant", "bee", "cat")
    return ImageDetections(BOXES, scores, class_ids, names, size=(50, 100), read=lambda: IMAGE, path=Path("a/b.jpg"))


def test_boxes_in_every_format(found: ImageDetections) -> None:
    assert found.boxes_cxcywh_px[0].tolist() == [20, 30, 20, 20]
    assert found.boxes_xyxy_normalized[0].tolist() == pytest.approx([0.1, 0.4, 0.3, 0.8])
    assert found.boxes_cxcywh_normalized[0].tolist() == pytest.approx([0.2, 0.6, 0.2, 0.4])
    assert found[:0].boxes_cxcywh_normalized.shape == (0, 4)


def test_what_is_chosen_keeps_its_image(found: ImageDetections) -> None:
    sure = found[found.scores > 0.4]
    assert repr(sure) == "<ImageDetections: b.jpg, 100 × 50: 1 cat, 1 ant>"
    assert np.array_equal(sure.plot(), draw_detections(IMAGE, sure))
    assert not np.array_equal(sure.plot(), found.plot())


def test_it_is_drawn_and_written(found: ImageDetections, tmp_path: Path) -> None:
    file = found.save(tmp_path / "new" / "found.png", thickness=1)
    assert np.array_equal(read_image(file), draw_detections(IMAGE, found, thickness=1))
    with pytest.raises(DataError, match=r"images cannot be written as '\.xyz'; use \.jpg or \.png"):
        found.save(tmp_path / "found.xyz")


def test_crops_are_the_pixels_of_boxes(found: ImageDetections) -> None:
    first, wide, corner = found.crop()
    assert np.array_equal(first, IMAGE[20:40, 10:30])
    assert np.array_equal(wide, IMAGE[5:50, 0:100])
    assert np.array_equal(corner, IMAGE[49:50, 98:100])
    assert np.array_equal(found.crop(margin=0.5)[0], IMAGE[10:50, 0:40])
    assert found[:0].crop() == []


def test_rows_and_label_lines(found: ImageDetections) -> None:
    row = {"class": "cat", "class_id": 2, "score": 0.9, "box_xyxy_px": [10.0, 20.0, 30.0, 40.0]}
    whole = json.loads(found.to_json(indent=1))
    assert whole["detections"][0] == row
    assert {**whole, "detections": 3} == {
        "image": "a/b.jpg",
        "height": 50,
        "width": 100,
        "detections": 3,
        "overflow": 0,
    }
    assert found.to_yolo().splitlines()[0] == "2 0.200000 0.600000 0.200000 0.400000"
    assert found.to_yolo(confidence=True).splitlines()[1].endswith(" 0.500000")
    assert found.to_coco(7)[0] == {"image_id": 7, "category_id": 2, "bbox": [10.0, 20.0, 20.0, 20.0], "score": 0.9}
    assert found.to_coco(7, category_ids=(1, 5, 9))[1]["category_id"] == 1


def test_tables_of_pandas(found: ImageDetections) -> None:
    table = found.to_dataframe()
    assert [*table.columns] == ["class", "class_id", "score", "x1", "y1", "x2", "y2"]
    assert table.loc[0, "class"] == "cat"
    assert np.array_equal(table[["x1", "y1", "x2", "y2"]].to_numpy(), BOXES)
    assert [*found[:0].to_dataframe().columns] == [*table.columns]


def test_detections_of_supervision(found: ImageDetections) -> None:
    theirs = found.to_supervision()
    assert np.array_equal(theirs.xyxy, BOXES)
    assert theirs.confidence.tolist() == found.scores.tolist()
    assert theirs.data["class_name"].tolist() == ["cat", "ant", "cat"]
    assert len(found[:0].to_supervision()) == 0


@pytest.mark.parametrize(("library", "extra"), [("pandas", "to_dataframe"), ("supervision", "to_supervision")])
def test_a_missing_library_says_what_to_install(
    found: ImageDetections, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InstallationError, match=rf"{extra} needs {library}: pip install 'yolov7-jax\[{library}\]'"):
        getattr(found, extra)()


def test_a_notebook_shows_text_and_image(found: ImageDetections) -> None:
    page = found._repr_html_()
    assert "b.jpg, 100 × 50: 2 cat, 1 ant" in page
    data = b64decode(page.partition("base64,")[2].partition('"')[0])
    assert Image.open(BytesIO(data)).size == (100, 50)
    gone = ImageDetections(BOXES, found.scores, found.class_ids, ("<b>", "bee", "cat"), size=(50, 100))
    assert "&lt;b&gt;" in gone._repr_html_()
    assert "these detections have no image" in gone._repr_html_()


def test_show_asks_for_a_viewer(found: ImageDetections, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(pillow.ImageShow, "show", lambda image, **_: shown.append(np.asarray(image)) or True)
    found.show()
    assert np.array_equal(shown[0], found.plot())
    monkeypatch.setattr(pillow.ImageShow, "show", lambda image, **_: False)
    with pytest.raises(InputError, match="no program that shows images was found; write the image with save"):
        found.show()


def test_files_are_read_again_only_when_asked(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", IMAGE)
    (found,) = Detector(small_weights())(tmp_path / "a.png")
    assert isinstance(found, Detections)
    assert np.array_equal(found.image, IMAGE)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        found.plot()

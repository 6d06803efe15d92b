import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests import quickly
from tests.small_networks import noise, small_weights
from yolov7_jax.config import EVALUATION, Options
from yolov7_jax.convert.load import load
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.experiment.inference import detect
from yolov7_jax.experiment.validation import validate
from yolov7_jax.files import new_folder
from yolov7_jax.image import read_image, write_image
from yolov7_jax.inference.detector import Detector


@pytest.fixture(scope="module")
def yolov5n(shared: Path) -> Detector:
    """Compiled as users have it: it looks at many images."""
    detector, options = Detector(load(shared / "weights/yolov5n.pt")), quickly.optimized(3)
    detector.compiled = jax.jit(detector._program(), static_argnames=detector.settled, compiler_options=options)
    return detector


@pytest.mark.shared
@pytest.mark.parametrize(
    ("data", "changes", "recorded"),
    [
        ("data.yaml", {}, "square_area"),
        ("instances.json", {"resize": "linear"}, "square_linear"),
    ],
)
def test_average_precision_equals_the_reference(
    shared: Path, tmp_path: Path, yolov5n: Detector, data: str, changes: dict[str, Any], recorded: str
) -> None:
    golden = json.loads((shared / "goldens/detect/coco128_ap.json").read_text())
    source = open_source(shared / "coco128" / data)
    options = replace(EVALUATION, iou=golden["iou"], **changes)
    run = validate(yolov5n, source, options=options, folder=tmp_path / "val")
    numbers = list(run.result.numbers().values())[:12]
    expected = golden["results"][recorded]["stats"]
    # Scores differ in float32 by 1e-6, which swaps neighbors: seen 2e-5 on AP and 1.1e-3 on one of the others.
    assert abs(numbers[0] - expected[0]) < 2e-4
    assert max(abs(a - b) for a, b in zip(numbers, expected, strict=True)) < 2e-3
    assert run.overflow == 0

    rows = json.loads((tmp_path / "val/detections.json").read_text())
    assert abs(len(rows) - golden["results"][recorded]["detections"]) < 30  # of 31,000; scores near the threshold
    truth = COCO()
    truth.dataset = source.ground_truth()
    truth.createIndex()
    oracle = COCOeval(truth, truth.loadRes(rows), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    assert np.allclose(numbers, oracle.stats, atol=1e-12)

    metrics = json.loads((tmp_path / "val/metrics.json").read_text())
    assert metrics["AP"] == numbers[0]
    assert metrics["settings"]["rect"] == options.rect
    assert len(metrics["per_class"]) == 80
    assert set(metrics["speed_ms"]) == {"read", "device", "total", "evaluate"}
    for figure in ("precision_recall.png", "confidence.png", "confusion.png"):
        assert min(read_image(tmp_path / "val" / figure).shape[:2]) > 300


@pytest.mark.shared
def test_detect_writes_images_labels_and_json(shared: Path, tmp_path: Path, yolov5n: Detector) -> None:
    (tmp_path / "broken.jpg").write_bytes((shared / "images/bus.jpg").read_bytes()[:5000])
    images = [shared / "images/bus.jpg", tmp_path / "broken.jpg", shared / "images/zidane.jpg"]
    run = detect(yolov5n, images, tmp_path / "out")
    assert run.counts == {images[0]: 5, images[2]: 4}
    assert list(run.failures) == [images[1]]
    content = json.loads((run.folder / "detections.json").read_text())
    assert [row["image"] for row in content["images"]] == [str(images[0]), str(images[2])]
    assert content["unread"][0]["image"] == str(images[1])
    first = content["images"][0]["detections"][0]
    assert first["class"] == "person"
    assert (content["images"][0]["height"], content["images"][0]["width"]) == (1080, 810)
    label = (run.folder / "labels/bus.txt").read_text().splitlines()
    x1, y1, x2, y2 = first["box_xyxy_px"]
    expected = [0, (x1 + x2) / 2 / 810, (y1 + y2) / 2 / 1080, (x2 - x1) / 810, (y2 - y1) / 1080]
    # Pixels have two decimals in JSON, of at least 810.
    assert np.allclose([float(word) for word in label[0].split()], expected, atol=2e-5)
    drawn, original = read_image(run.folder / "images/bus.jpg"), read_image(images[0])
    assert drawn.shape == original.shape
    assert not np.array_equal(drawn, original)


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    images = [tmp_path / "a/x.png", tmp_path / "b/x.png", tmp_path / "b/x.jpg"]
    for seed, image in enumerate(images):
        write_image(image, noise(40, 64, seed))
    run = detect(Detector(small_weights()), images, tmp_path / "out", options=Options())
    assert {p.name for p in (run.folder / "images").iterdir()} == {"x.png", "x-2.png", "x-3.jpg"}
    assert len(list((run.folder / "labels").iterdir())) == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    assert new_folder(tmp_path / "run") == tmp_path / "run"
    assert new_folder(tmp_path / "run") == tmp_path / "run-2"
    assert new_folder(tmp_path / "run") == tmp_path / "run-3"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        new_folder(tmp_path / "file" / "run")


def test_an_interrupted_run_keeps_what_it_found(tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(4)]
    for seed, image in enumerate(images):
        write_image(image, noise(40, 64, seed))

    def interrupted(items, _total):  # type: ignore[no-untyped-def]
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        detect(Detector(small_weights()), images, tmp_path / "out", progress=interrupted)
    content = json.loads((tmp_path / "out/detections.json").read_text())
    assert [Path(row["image"]).name for row in content["images"]] == ["0.png", "1.png"]


def test_data_of_other_classes_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", noise(40, 64))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("val: images\nnames: [one, two]\n")
    with pytest.raises(InputError, match="the network has 3 classes and the data 2"):
        validate(Detector(small_weights()), open_source(tmp_path / "data.yaml"))


@pytest.mark.parametrize("names", [("dog", "ant", "bee"), ("dog",)])
def test_classes_of_the_data_are_known_by_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    """A network that finds dogs is as good on data that count their classes otherwise, and keeps their categories."""
    weights = replace(small_weights(), names=("ant", "bee", "dog"))
    found = Options(confidence=0.001, iou=0.65, multi_label=True, rect=False, batch_size=1)
    write_image(tmp_path / "a.png", noise(40, 64))
    (at,) = Detector(weights)([tmp_path / "a.png"], **vars(found))
    x, y, right, bottom = at.boxes_xyxy_px[at.class_ids == 2][0].tolist()
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 64}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 3, "bbox": [x, y, right - x, bottom - y], "area": 9}],
        "categories": [{"id": 3 + place, "name": name} for place, name in enumerate(names)],
    }
    (tmp_path / "data.json").write_text(json.dumps(content))
    run = validate(Detector(weights), open_source(tmp_path / "data.json"), options=found, folder=tmp_path / "val")
    assert run.result.numbers()["AP"] > 0
    rows = json.loads((tmp_path / "val/detections.json").read_text())
    by_category = {
        row["category_id"] for row in rows if row["bbox"] == pytest.approx([x, y, right - x, bottom - y], abs=2e-3)
    }
    assert 3 in by_category


def test_all_classes_count_as_one(tmp_path: Path) -> None:
    """Those of the data and those of a network of several, against pycocotools on detections made by hand."""
    weights = small_weights()
    for number in range(3):
        write_image(tmp_path / f"images/{number}.png", noise(40, 64, number))
    options = Options(confidence=0.001, iou=0.65, multi_label=True, rect=False, batch_size=1)
    files = sorted((tmp_path / "images").iterdir())
    found = Detector(weights)(files, **vars(replace(options, agnostic=True)))
    by_class = Detector(weights)(files, **vars(options))
    assert len({class_id for one in by_class for class_id in one.class_ids.tolist()}) > 1
    assert sum(map(len, by_class)) > sum(map(len, found))
    (tmp_path / "labels").mkdir()
    for file, one in zip(files, found, strict=True):
        boxes = one.boxes_xyxy_px[::3] / np.tile([64, 40], 2)  # one class each in turn, whatever was found there
        center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rows = np.concatenate([np.arange(len(boxes))[:, None] % 2, center, size], axis=1)
        lines = [" ".join(map(repr, [int(row[0]), *row[1:].tolist()])) for row in rows]
        (tmp_path / "labels" / f"{file.stem}.txt").write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("val: images\nnames: [here, there]\n")
    source = open_source(tmp_path / "data.yaml")
    with pytest.raises(InputError, match="the network has 3 classes and the data 2"):
        validate(Detector(weights), source, options=options)
    run = validate(Detector(weights), source, options=options, folder=tmp_path / "val", single_class=True)
    truth = COCO()
    truth.dataset = source.ground_truth()
    for row in truth.dataset["annotations"]:
        row["category_id"] = 1
    truth.dataset["categories"] = [{"id": 1, "name": "anything"}]
    truth.createIndex()
    rows = json.loads((tmp_path / "val/detections.json").read_text())
    assert {row["category_id"] for row in rows} == {1}
    for image_id, one in zip(source.image_ids, found, strict=True):
        mine = [row["score"] for row in rows if row["image_id"] == image_id]
        np.testing.assert_allclose(mine, one.scores, atol=1e-5)
    oracle = COCOeval(truth, truth.loadRes(rows), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    assert run.result.AP > 0.01
    np.testing.assert_allclose(run.result.AP, oracle.stats[0], atol=1e-9)
    assert [row.name for row in run.result.per_class] == ["object"]


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", noise(40, 64))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").touch()
    (tmp_path / "data.yaml").write_text("val: images\nnames: [ant, bee, cat]\n")
    begun: list[int] = []

    def tracked(items, total):  # type: ignore[no-untyped-def]
        begun.append(total)
        return items

    source = open_source(tmp_path / "data.yaml")
    with pytest.raises(DataError, match="cannot be made"):
        validate(Detector(small_weights()), source, folder=tmp_path / "data.yaml/val", progress=tracked)
    assert begun == []


def test_data_without_objects_gives_numbers_that_are_none(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", noise(40, 64))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").touch()
    (tmp_path / "data.yaml").write_text("val: images\nnames: [ant, bee, cat]\n")
    run = validate(Detector(small_weights()), open_source(tmp_path / "data.yaml"), folder=tmp_path / "val")
    assert math.isnan(run.result.AP)
    assert json.loads((tmp_path / "val/metrics.json").read_text())["AP"] is None

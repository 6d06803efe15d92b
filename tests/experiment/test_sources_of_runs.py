"""Data of other formats through whole runs: what a source says must reach the weights and the evaluation."""

import json
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

import yolov7_jax as yolo
from tests.datasets.test_tfds import NAMES, CrowdedScenes
from tests.experiment.small_run import small_config, write_data
from yolov7_jax.config import AugmentConfig
from yolov7_jax.datasets import image_files
from yolov7_jax.experiment.preparation import Data, open_data, training_pipeline
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.image import read_image, write_image
from yolov7_jax.inference.detector import Result
from yolov7_jax.prefetch import no_progress
from yolov7_jax.training.callbacks import Callback

SIDE = 96


class Lines(Callback):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_a_prepared_set_of_tfds_is_trained_on_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    CrowdedScenes(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    config = small_config(write_data(tmp_path / "unused"))
    data = replace(config.data, path="tfds:crowded_scenes")
    config = replace(config, data=data, train=replace(config.train, epochs=1, val_every_epochs=1))
    run = yolo.train(config, tmp_path / "run")
    assert run.finished
    weights = yolo.load(run.folder)
    assert weights.names == NAMES
    assert weights.meta["category_ids"] == [1, 2, 3]
    found = yolo.validate(yolo.Detector(weights), yolo.open_source("tfds:crowded_scenes", "val"))
    fitness = 0.9 * found.result.AP + 0.1 * found.result.AP50
    assert fitness == pytest.approx(run.best_score, abs=1e-12)  # the same evaluation


def diamond_data(folder: Path) -> Path:
    """A COCO file of white diamonds on black, outlined; their boxes are said to be larger than they are."""
    rng, images, annotations = np.random.default_rng(0), [], []
    for number in range(8):
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        (x, y), radius = rng.uniform(36, 60, 2), rng.uniform(14, 22)
        corners = np.array([(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)])
        fine = np.rint((corners - 0.5) * 16).astype(np.int32)  # OpenCV's integers are the middles of pixels
        cv2.fillPoly(picture, [fine], (255, 255, 255), shift=4)
        write_image(folder / f"{number}.png", picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        low, high = corners.min(axis=0) - 2, corners.max(axis=0) + 2
        box = [*low.tolist(), *(high - low).tolist()]
        outline = [corners.ravel().tolist()]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box, "segmentation": outline})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "diamond"}]}
    (folder / "diamonds.json").write_text(json.dumps(content))
    return folder / "diamonds.json"


def test_outlines_of_coco_make_the_boxes_of_training(tmp_path: Path):
    augment = AugmentConfig(mosaic=0, degrees=45, scale=0.2, translate=0.1, shear=10, hsv_h=0, hsv_s=0, hsv_v=0)
    config = small_config(diamond_data(tmp_path))
    config = replace(config, augment=augment, train=replace(config.train, size=SIDE, batch_size=8, val_every_epochs=0))
    pipeline = training_pipeline(
        config, zoo("yolov7-tiny", num_classes=1), open_data(config, Callback(), no_progress).train
    )
    checked = 0
    for epoch in range(4):
        for position in range(8):
            sample = pipeline.row(epoch, position).sample
            (x, y, width, height) = sample.boxes_cxcywh_px[0]
            white = np.argwhere((sample.image > 127).all(axis=-1))
            if not sample.valid[0] or not len(white):
                continue
            (top, left), (bottom, right) = white.min(axis=0), white.max(axis=0) + 1
            box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            # A corner of a diamond covers less than half of the last pixels: a pixel at sharp ones, sheared, and half
            # a pixel that tiles may be adjusted by. Boxes around warped boxes would be 8 pixels larger and more.
            np.testing.assert_allclose(box, [left, top, right, bottom], atol=2.0)
            checked += 1
    assert checked > 24


def batches_of(config: yolo.Config, data: Data) -> list[yolo.Batch]:
    """Those of an epoch."""
    pipeline = training_pipeline(config, zoo("yolov7-tiny", num_classes=len(data.train.names)), data.train)
    with closing(yolo.Loader(pipeline, workers=1, processes=config.data.processes).batches()) as batches:
        return list(islice(batches, pipeline.steps))


def assert_equal(ours: list[yolo.Batch], theirs: list[yolo.Batch]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_all_classes_as_one_are_labels_of_one_class(tmp_path: Path):
    """What a run on two classes as one sees are the same images, in whose label files there is one."""
    data = write_data(tmp_path / "two")
    config = small_config(data, train={"epochs": 1, "val_every_epochs": 1}, data={"single_class": True})
    write_data(tmp_path / "one")
    for file in (tmp_path / "one" / "labels").iterdir():
        file.write_text("\n".join("0 " + line.partition(" ")[2] for line in file.read_text().splitlines()))
    (tmp_path / "one" / "data.yaml").write_text("train: images\nval: images\nnames: [object]\n")
    same = replace(config, data=replace(config.data, path=str(tmp_path / "one" / "data.yaml"), single_class=False))
    given = yolo.open_source(data, "train"), yolo.open_source(data, "val")
    told = Lines()
    ours, brought = (open_data(config, told, no_progress, given=one) for one in (None, given))
    theirs = open_data(same, told, no_progress)
    for one in (ours, brought):
        assert one.val is not None
        assert theirs.val is not None
        assert_equal(batches_of(config, one), batches_of(same, theirs))
        assert one.val.ground_truth() == theirs.val.ground_truth()
    assert "train: 20 objects: object 20" in told.lines
    run = yolo.train(replace(config, train=replace(config.train, val_every_epochs=0)), tmp_path / "run")
    weights = yolo.load(run.folder)
    assert (weights.names, weights.graph.num_classes, weights.meta["category_ids"]) == (("object",), 1, [1])
    with pytest.raises(yolo.InputError, match=r"data\.single_class is False, but the run began with True"):
        yolo.resume(run.folder, ["data.single_class=false"])


class Reads:
    """In place of a detector: reads images, and finds nothing."""

    names = "bright", "dark"

    def stream(self, images, options):
        for position, read in enumerate(images):
            read()
            yield Result(position)


def test_images_that_are_kept_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In memory, some of them, and on disk in worker processes; images of training and evaluation."""
    monkeypatch.setenv("YOLOV7_JAX_IMAGE_CACHE", str(tmp_path / "kept"))
    path = write_data(tmp_path / "data")
    decoded: Counter[str] = Counter()

    def counted(path: Path):
        decoded[path.name] += 1
        return read_image(path)

    monkeypatch.setattr(image_files, "read_image", counted)
    one, gib, kept = 3 * 64 * 64, 2**30, tmp_path / "kept"
    plain = small_config(path)
    expected = batches_of(plain, open_data(plain, Lines(), no_progress))
    for settings, train, val, place in (
        ({"cache_images": "memory"}, 10, 10, "in memory"),
        ({"cache_images": "memory", "cache_gb": 13 * one / gib}, 10, 3, "in memory"),
        ({"cache_images": "disk", "cache_gb": 4 * one / gib, "processes": True}, 4, 0, f"on disk, in {kept}"),
    ):
        told = Lines()
        config = small_config(path, data=settings)
        data = open_data(config, told, no_progress)
        assert [line for line in told.lines if "caching" in line] == [
            f"train: caching {train} of 10 images {place} (0.00 GiB)",
            f"val: caching {val} of 10 images {place} (0.00 GiB)",
        ]
        assert_equal(batches_of(config, data), expected)
        decoded.clear()
        for _ in range(3):
            yolo.validate(Reads(), data.val)  # type: ignore[arg-type]
        assert sorted(decoded.values()) == [1] * val + [3] * (10 - val)
    assert len(list(kept.rglob("*.npy"))) == 4


def test_processes_do_not_share_memory(tmp_path: Path):
    config = small_config(write_data(tmp_path), data={"cache_images": "memory", "processes": True})
    with pytest.raises(yolo.InputError, match=r"worker processes do not share; use data\.cache_images=disk"):
        yolo.train(config, tmp_path / "run")

"""Whole runs with a small network on a small data set, through the functions that commands call."""

import json
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

import yolov7_jax as yolo
from tests.experiment.small_run import small_config, write_data
from yolov7_jax.cli.main import main
from yolov7_jax.config_file import config_dict, read_config
from yolov7_jax.convert.weights_file import read_safetensors
from yolov7_jax.errors import DataError, InputError, WeightsError
from yolov7_jax.experiment import resume, train
from yolov7_jax.image import read_image
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.log import read_log


class Listener(Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.stop_at = stop_at

    def log(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, step, _steps, _metrics) -> None:
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return train(small_config(data), tmp_path_factory.mktemp("runs") / "run").folder


def stored_arrays(run: Path, step: int) -> dict[str, Any]:
    with ocp.PyTreeCheckpointer() as reader, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no placement on devices is asked for
        return reader.restore((run / "checkpoints" / str(step) / "arrays").absolute())


def tensors(file: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in read_safetensors(file)[0].items()}


def test_a_run_leaves_what_the_guide_says(run, data):
    assert {path.name for path in run.iterdir()} == {
        "best.safetensors",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "network.json",
        "pictures",
        "weights.safetensors",
    }
    assert read_config(run / "config.yaml") == small_config(data)
    kinds = [(row["kind"], row["step"]) for row in read_log(run / "metrics.jsonl")]
    assert kinds == [("train", 3), ("train", 6), ("val", 6), ("train", 9), ("train", 12), ("val", 12)]
    assert sorted(path.name for path in (run / "pictures").iterdir()) == [
        "batch-1.png",
        "batch-2.png",
        "batch-3.png",
        "curves.png",
        "predictions.png",
    ]
    for picture in (run / "pictures").iterdir():
        assert read_image(picture).std() > 5  # something is to be seen


def test_its_weights_are_described_and_detect(run):
    weights = yolo.load(run)
    assert weights.names == ("bright", "dark")
    assert weights.input_size == 64
    assert weights.meta["step"] == 12
    assert weights.meta["category_ids"] == [1, 2]
    assert weights.meta["config"]["train"]["epochs"] == 4
    assert weights.graph == yolo.Graph.from_json(json.loads((run / "network.json").read_text())["graph"])
    found = yolo.Detector.load(run)([np.zeros((64, 64, 3), np.uint8)], confidence=0.0001)
    assert found[0].names == ("bright", "dark")


def test_the_weights_are_the_average_of_the_last_checkpoint(run):
    state = stored_arrays(run, 12)
    kernel = yolo.load(run).variables["params"]["0"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, state["ema"]["params"]["0"]["conv"]["kernel"])
    assert not np.array_equal(kernel, state["params"]["0"]["conv"]["kernel"])


def test_what_val_measures_is_what_the_run_logged(run, data):
    # Folded in the same way, so the same numbers; val's own threshold is that of the run.
    options = yolo.Options(confidence=0.001, iou=0.65, multi_label=True, rect=False, batch_size=2)
    result = yolo.validate(yolo.Detector.load(run), yolo.open_source(data), options=options).result
    logged = read_log(run / "metrics.jsonl")[-1]
    assert logged["AP"] == pytest.approx(result.AP, abs=1e-12)
    assert logged["AR_100"] == pytest.approx(result.AR_100, abs=1e-12)


def test_a_run_repeated_from_its_own_settings_is_the_same_to_the_byte(run, tmp_path):
    again = train(read_config(run / "config.yaml"), tmp_path / "again").folder
    for name in ("weights.safetensors", "best.safetensors"):
        assert tensors(run / name) == tensors(again / name)


def test_stopped_by_a_signal_and_gone_on_with_it_is_the_same_run(run, data, tmp_path):
    stopped = train(small_config(data), tmp_path / "run", callbacks=[Listener(stop_at=4)])
    assert not stopped.finished
    assert stopped.signal == signal.SIGTERM
    assert stopped.step < 12
    done = resume(stopped.folder)
    assert done.finished
    assert tensors(done.folder / "weights.safetensors") == tensors(run / "weights.safetensors")


def test_starting_from_a_run_keeps_the_classes_in_common(run, tmp_path):
    other = write_data(tmp_path)
    other.write_text(other.read_text().replace("[bright, dark]", "[dark, gray]"))
    heard = Listener()
    config = small_config(other, model={"weights": str(run)}, train={"epochs": 1, "val_every_epochs": 0})
    config = replace(config, optim=replace(config.optim, lr0=0.0, warmup_bias_lr=0.0))
    done = train(config, tmp_path / "run", callbacks=[heard])
    assert any("1 classes keep their weights (dark), 1 are randomly initialized (gray)" in note for note in heard.notes)
    before, after = yolo.load(run).variables["params"], yolo.load(done.folder).variables["params"]
    same = {"rtol": 1e-6, "atol": 0}  # no learning rate: only the average of equal numbers rounds
    np.testing.assert_allclose(after["0"]["conv"]["kernel"], before["0"]["conv"]["kernel"], **same)
    np.testing.assert_allclose(after["4"]["m"]["0"]["bias"][5], before["4"]["m"]["0"]["bias"][6], **same)


def test_faults_in_labels_are_told_of_and_the_run_goes_on_or_stops(tmp_path):
    data = write_data(tmp_path, images=4)
    (tmp_path / "labels" / "0.txt").write_text("7 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels" / "1.txt").unlink()
    (tmp_path / "images" / "2.png").write_bytes((tmp_path / "images" / "2.png").read_bytes()[:200])
    heard = Listener()
    config = small_config(data, train={"epochs": 1, "val_every_epochs": 0})
    assert train(config, tmp_path / "run", callbacks=[heard]).finished
    told = "\n".join(heard.notes)
    assert "0.txt, line 1: class 7 is not one of the 2 classes" in told
    assert "2.png" in told
    assert "1 without a label file" in told
    with pytest.raises(DataError, match=r"1 of 4 images cannot be used and 1 objects are wrong.*2\.png"):
        train(small_config(data, data={"on_error": "stop"}), tmp_path / "stop")
    assert not (tmp_path / "stop").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"path": ""}}, "data.path is not set"),
        ({"data": {"path": "nothere.yaml"}}, r"nothere.yaml"),
        ({"train": {"size": 60}}, "multiple of 16, got 60; the nearest is 64"),
        ({"model": {"name": "yolov9"}}, "no network is named 'yolov9'"),
        ({"model": {"weights": "nothere.pt"}}, "nothere.pt"),
        ({"optim": {"freeze": "("}}, "optim.freeze"),
        ({"optim": {"freeze": "99/.*"}}, "optim.freeze"),
        ({"train": {"tensorboard": True}}, "tensorboardX"),
        ({"model": {"anchors": [[1, 2]]}}, "model.anchors is .* needs 2 levels of 4 numbers"),
        ({"data": {"sampling": "balanced", "class_weights": [1]}}, "data.class_weights has 1 numbers; expected one"),
    ],
)
def test_what_cannot_be_used_is_said_before_a_folder_is_made(data, tmp_path, monkeypatch, sections, message):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(InputError, match=message):
        train(small_config(data, **sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_images_of_other_classes_are_refused(data, tmp_path):
    other = write_data(tmp_path, images=2)
    other.write_text(other.read_text().replace("[bright, dark]", "[a, b]"))
    with pytest.raises(InputError, match="its classes a, b are not among those of the training images"):
        train(small_config(data, data={"val_path": str(other)}), tmp_path / "run")


def test_going_on_with_other_data_is_refused(data, tmp_path):
    home = write_data(tmp_path)
    stopped = train(small_config(home), tmp_path / "run", callbacks=[Listener(stop_at=4)])
    (tmp_path / "images" / "9.png").unlink()
    with pytest.raises(InputError, match=r"began with 10 training images .* now there are 9"):
        resume(stopped.folder)


def test_a_run_can_be_gone_on_with_from_anywhere(tmp_path, monkeypatch):
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    stopped = train(small_config(Path("data.yaml")), Path("run"), callbacks=[Listener(stop_at=4)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(tmp_path / stopped.folder).finished


def test_going_on_with_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a training run"):
        resume(tmp_path)
    with pytest.raises(WeightsError, match=r"has no weights\.safetensors"):
        yolo.load(tmp_path)


def test_the_command(data, tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text(yolo.yaml_text(config_dict(small_config(data))))
    status = main(
        ["train", str(config), "train.epochs=1", "train.val_every_epochs=0", "--output", str(tmp_path / "run")]
    )
    assert status == 0
    assert "3 iterations done" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert main(["train", str(config), "--resume", str(tmp_path / "run")]) == 2
    assert "not both" in capsys.readouterr().err
    assert main(["train", str(config), "train.epoch=1"]) == 2
    assert "did you mean 'epochs'?" in capsys.readouterr().err
    assert main(["train", "--settings"]) == 0
    assert "train.epochs=300" in capsys.readouterr().out

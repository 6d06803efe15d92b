"""Whole runs with a small network on a small data set, through the functions that commands call."""

import json
import os
import re
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

import yolov7_jax as yolo
from tests.experiment.small_run import small_config, write_data
from yolov7_jax.cli.main import main
from yolov7_jax.cli.train import outcome
from yolov7_jax.config_file import config_dict, read_config
from yolov7_jax.convert.weights_file import read_safetensors
from yolov7_jax.errors import DataError, InputError, WeightsError
from yolov7_jax.experiment import artifacts, resume, train
from yolov7_jax.experiment import setup as run_setup
from yolov7_jax.experiment.beginning import Beginning
from yolov7_jax.experiment.training import with_whole_paths
from yolov7_jax.image import read_image
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.log import read_log
from yolov7_jax.training.results import results_csv


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
    return train(small_config(data, train={"figures": True}), tmp_path_factory.mktemp("runs") / "run").folder


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
        "figures",
        "index.html",
        "results.csv",
        "run.log",
        "weights.safetensors",
    }
    assert read_config(run / "config.yaml") == small_config(data, train={"figures": True})
    kinds = [(row["kind"], row["step"]) for row in read_log(run / "metrics.jsonl")]
    assert kinds == [("train", 3), ("train", 6), ("val", 6), ("train", 9), ("train", 12), ("val", 12)]
    assert sorted(path.name for path in (run / "figures").iterdir()) == [
        "batch-1.png",
        "batch-2.png",
        "batch-3.png",
        "confidence.png",
        "confusion.png",
        "curves.png",
        "labels.png",
        "precision_recall.png",
        "predictions.png",
    ]
    for figure in (run / "figures").iterdir():
        assert read_image(figure).std() > 5  # something is to be seen


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
    assert [logged[name] for name in ("precision", "recall", "f1", "confidence")] == pytest.approx(
        [result.precision, result.recall, result.f1, result.confidence], abs=1e-12
    )
    assert logged["AP_of_class"] == pytest.approx({row.name: row.AP for row in result.per_class}, abs=1e-12)


def test_a_run_repeated_from_its_own_settings_is_the_same_to_the_byte(run, tmp_path):
    again = train(read_config(run / "config.yaml"), tmp_path / "again").folder
    for name in ("weights.safetensors", "best.safetensors"):
        assert tensors(run / name) == tensors(again / name)


def test_stopped_by_a_signal_and_resumed_it_is_the_same_run(run, data, tmp_path):
    drawn = small_config(data, train={"figures": True})
    stopped = train(drawn, tmp_path / "run", callbacks=[Listener(stop_at=4)])
    assert not stopped.finished
    assert stopped.signal == signal.SIGTERM
    assert stopped.step < 12
    assert "stopped by SIGTERM (as of " in (stopped.folder / "index.html").read_text()
    labels_drawn = (stopped.folder / "figures" / "labels.png").stat().st_mtime_ns
    done = resume(stopped.folder)
    assert done.finished
    assert "finished (as of " in (done.folder / "index.html").read_text()
    told = (done.folder / "run.log").read_text()
    assert told.index("stopped by SIGTERM") < told.index(f"resumed after {stopped.step} iterations")
    assert (done.folder / "results.csv").read_text() == results_csv(read_log(done.folder / "metrics.jsonl"))
    assert (done.folder / "figures" / "labels.png").stat().st_mtime_ns == labels_drawn
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


def test_issues_in_labels_are_told_of_and_the_run_goes_on_or_stops(tmp_path):
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
        ({"train": {"loggers": ["tensorboard"]}}, "tensorboardX"),
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


def test_resuming_with_other_data_is_refused(data, tmp_path):
    home = write_data(tmp_path)
    stopped = train(small_config(home), tmp_path / "run", callbacks=[Listener(stop_at=4)])
    (tmp_path / "images" / "9.png").unlink()
    with pytest.raises(InputError, match=r"began with 10 training images .* now there are 9"):
        resume(stopped.folder)


def test_a_resumed_run_can_be_made_longer(data, tmp_path):
    train(small_config(data, train={"epochs": 2}), tmp_path / "run")
    heard = Listener()
    done = resume(tmp_path / "run", ["train.epochs=4", "data.workers=0"], callbacks=[heard])
    assert (done.step, done.finished) == (12, True)
    notes = "\n".join(heard.notes)
    assert "train.epochs is 4; the run began with 2\n" in notes
    assert "data.workers is 0; the run began with 1\n" in notes
    assert "schedule of the new length" in notes
    assert read_config(tmp_path / "run" / "config.yaml").train.epochs == 4
    rates = [row["lr/weight"] for row in read_log(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "train"]
    whole = train(small_config(data), tmp_path / "whole").folder
    assert rates[2:] == [row["lr/weight"] for row in read_log(whole / "metrics.jsonl") if row["kind"] == "train"][2:]
    with pytest.raises(InputError, match=r"train\.epochs is 3, but the run is in epoch 4 already"):
        resume(tmp_path / "run", ["train.epochs=3"])


def test_a_run_gives_up_and_one_can_be_asked_to_end(data, tmp_path):
    """With a learning rate of nothing no evaluation is better than the first."""
    still = {"lr0": 0.0, "warmup_bias_lr": 0.0, "ema_decay": 0.0}
    often = {"val_every_epochs": 1, "patience": 2, "save_period": 2, "epochs": 8}
    heard = Listener()
    done = train(small_config(data, optim=still, train=often), tmp_path / "run", callbacks=[heard])
    assert (done.step, done.best_step, done.finished, done.signal) == (9, 3, False, None)
    assert done.reason == "no evaluation was better than that after 3 iterations (2 epochs)"
    kept = sorted(file.name for file in done.folder.glob("*.safetensors"))
    assert kept == ["best.safetensors", "epoch-2.safetensors", "weights.safetensors"]
    assert f"ended: {done.reason}" in heard.notes
    assert outcome(done) == 0
    longer = resume(done.folder, ["train.patience=0", "train.epochs=4", "train.time_limit=1e-9"])
    assert (longer.step, longer.reason) == (11, "train.time_limit, 1e-09 hours, is over")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_size=2", "train.batch_size is 2, but the run began with 4"),
        ("augment.mosaic=0.5", "augment.mosaic"),
    ],
)
def test_other_settings_are_refused_by_name_when_a_run_is_resumed(data, tmp_path, override, words):
    stopped = train(small_config(data), tmp_path / "run", callbacks=[Listener(stop_at=4)])
    with pytest.raises(InputError, match=rf"{words}.*what may change is train\.epochs, "):
        resume(stopped.folder, [override])
    file = stopped.folder / "config.yaml"
    section, key = override.partition("=")[0].split(".")
    file.write_text(re.sub(rf"(\n  {key}: ).*", rf"\g<1>{override.partition('=')[2]}", file.read_text()))
    with pytest.raises(InputError, match=words):  # edited by hand
        resume(stopped.folder)
    assert section in file.read_text()


def test_a_run_that_another_version_began_is_said_unless_what_is_gone_does_not_matter(run):
    began = Beginning.read(run)
    config = read_config(run / "config.yaml")
    began.settings["train"]["tensorboard"] = True
    assert began.changes(config, run) == []
    began.settings["train"]["gone"] = 3
    with pytest.raises(InputError, match=r"another version began this run, with a setting train\.gone, .* weights"):
        began.changes(config, run)


def damage(file: Path) -> None:
    """Leaves the header and the end of a PNG file as they are; nothing can be decoded from the rest."""
    content = bytearray(file.read_bytes())
    middle = content.index(b"IDAT") + 10
    content[middle : middle + 40] = bytes(40)
    file.write_bytes(content)


def test_a_validation_image_that_cannot_be_decoded_counts_as_one_without_detections(tmp_path, capsys):
    write_data(tmp_path / "train")
    data = write_data(tmp_path / "val", images=4)
    damage(tmp_path / "val" / "images" / "3.png")
    heard = Listener()
    config = small_config(tmp_path / "train" / "data.yaml", data={"val_path": str(data)})
    done = train(config, tmp_path / "run", callbacks=[heard])
    assert done.finished
    assert done.best_score is not None
    assert [note for note in heard.notes if "3.png" in note and "without detections" in note]  # told once
    logged = read_log(done.folder / "metrics.jsonl")[-1]
    assert (
        main(["val", str(done.folder), "--data", str(data), "--output", str(tmp_path / "v"), "--batch-size", "2"]) == 1
    )
    assert "3.png" in capsys.readouterr().err
    assert json.loads((tmp_path / "v" / "metrics.json").read_text())["AP"] == pytest.approx(logged["AP"], abs=1e-12)


def test_labels_that_are_edited_while_it_runs_do_not_change_what_is_measured(data, run, tmp_path):
    home = write_data(tmp_path)

    class Vandal(Listener):
        def on_step(self, step, steps, metrics):
            super().on_step(step, steps, metrics)
            for file in (tmp_path / "labels").iterdir():
                file.write_text("")

    config = small_config(home, data={"val_path": str(home), "path": str(data)})
    done = train(config, tmp_path / "run", callbacks=[Vandal()])
    found, expected = (
        [row["AP"] for row in read_log(folder / "metrics.jsonl") if row["kind"] == "val"]
        for folder in (done.folder, run)
    )
    assert found == expected


def test_two_classes_of_one_name_are_refused(tmp_path):
    data = write_data(tmp_path)
    data.write_text(data.read_text().replace("[bright, dark]", "[bright, bright]"))
    with pytest.raises(InputError, match="two classes are named 'bright'"):
        train(small_config(data), tmp_path / "run")


def test_where_nothing_can_be_written_is_said_before_the_data_are_read(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/run"):
        with pytest.raises(InputError, match=f"{place}: .*name a folder that can be written to"):
            train(small_config(tmp_path / "nothere.yaml"), tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_on_another_thread(data, run, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(train, small_config(data), tmp_path / "run").result()
    assert tensors(done.folder / "weights.safetensors") == tensors(run / "weights.safetensors")


def test_a_folder_with_the_name_of_a_network_is_not_taken_for_it(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov7-tiny").mkdir()
    config = small_config(data, model={"name": "yolov7-tiny", "weights": ""})
    assert with_whole_paths(config).model.name == "yolov7-tiny"


def test_a_run_can_be_resumed_from_anywhere(tmp_path, monkeypatch):
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    stopped = train(small_config(Path("data.yaml")), Path("run"), callbacks=[Listener(stop_at=4)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(tmp_path / stopped.folder).finished


def test_resuming_what_is_no_run_is_refused(tmp_path):
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


def test_images_follow_ap_and_a_run_that_was_stopped_follows_the_same(tmp_path, monkeypatch):
    """The bright class is said to be found wholly from the first evaluation on, so that its images become rare."""
    data = write_data(tmp_path, images=16)
    for number in range(8):  # images of one class
        for half, class_id in ((0, 0), (8, 1)):
            labels = tmp_path / "labels" / f"{number + half}.txt"
            labels.write_text(next(line for line in labels.read_text().splitlines(True) if line[0] == str(class_id)))
    monkeypatch.setattr(artifacts, "_by_class", lambda _: {"bright": 1.0, "dark": 0.0})
    settings = {"train": {"val_every_epochs": 1, "epochs": 3}, "data": {"sampling": "by_ap"}}
    seen: list[np.ndarray] = []
    whole = run_setup.shard_batch
    monkeypatch.setattr(run_setup, "shard_batch", lambda batch, mesh: seen.append(batch.index) or whole(batch, mesh))
    run = train(small_config(data, **settings), tmp_path / "run").folder
    drawn, steps = np.stack(seen), 4
    is_dark = np.array([number >= 8 for number in sorted(range(16), key=str)])  # in the order of the files' names
    dark = is_dark[drawn].reshape(3, -1).mean(axis=1)
    assert dark[0] == 0.5  # balanced before the first evaluation
    assert min(dark[1:]) > 0.9
    seen.clear()
    stopped = train(small_config(data, **settings), tmp_path / "cut", callbacks=[Listener(stop_at=steps + 1)])
    again = len(seen)
    resume(stopped.folder)
    np.testing.assert_array_equal(np.concatenate([seen[: stopped.step], seen[again:]]), drawn)
    assert tensors(stopped.folder / "weights.safetensors") == tensors(run / "weights.safetensors")

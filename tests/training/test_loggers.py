"""Loggers: what each stored is read back and compared with metrics.jsonl, of a run that was broken off and resumed."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.datasets.tfrecord_files import masked
from tests.experiment.small_run import small_config, write_data
from tests.training.test_log import file_size_limit
from yolov7_jax.config import Config, TrainConfig
from yolov7_jax.config_file import by_name, config_dict, read_config
from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.experiment import resume, setup, train
from yolov7_jax.experiment.setup import check_names, make_loggers
from yolov7_jax.registry import LOGGERS, register_logger
from yolov7_jax.training.callbacks import Callback, Callbacks, RunInfo
from yolov7_jax.training.log import read_log, scalars

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mlflow's use of its own libraries

LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}

ROWS = [
    {"kind": "train", "step": 10, "epoch": 1, "box": 0.25, "lr/bias": 0.5, "obj": None},
    {"kind": "val", "step": 10, "epoch": 1, "AP": 0.125, "AP_large": float("nan"), "AP_of_class": {"cat (big)": 0.5}},
    {"kind": "nonfinite", "step": 11, "epoch": 2, "batch": "step-11.npz"},
    {"kind": "train", "step": 20, "epoch": 2, "box": 0.0625, "lr/bias": 1},
]


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is sent, and nothing written elsewhere."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        for kind in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{kind}_DIR", str(home))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        for name in ("MLFLOW_LOGGING_LEVEL", "MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"):  # which the logger sets
            patch.setenv(name, "")
            patch.delenv(name)
        yield


def needs(*names: str) -> None:
    for name in names:
        pytest.importorskip(LIBRARIES[name], reason=f"pip install 'yolov7-jax[{name}]'")


class Preemption(Callback):
    def on_step(self, step, steps, metrics):
        if step == 10:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was broken off after ten steps, when what it had saved was the seventh, and resumed."""
    needs(*LIBRARIES)
    home = tmp_path_factory.mktemp("loggers")
    config = small_config(
        write_data(home), train={"loggers": list(LIBRARIES), "val_every_epochs": 4, "checkpoint_every_steps": 7}
    )
    stopped = train(config, home / "runs" / "mine", callbacks=[Preemption()])
    assert 10 <= stopped.step < 12
    shutil.rmtree(stopped.folder / "checkpoints" / str(stopped.step))
    assert resume(stopped.folder).step == 12
    return stopped.folder


def logged(folder: Path) -> list[tuple[int, str, float]]:
    """The points that metrics.jsonl has: step, name, value."""
    return [point for row in read_log(folder / "metrics.jsonl") for point in points(row)]


def points(row: Mapping[str, Any]) -> list[tuple[int, str, float]]:
    """Numbers of a row: those at its top level, and AP by class."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        is_by_class = key == "AP_of_class"
        flat |= {f"{key}/{name}": of_class for name, of_class in value.items()} if is_by_class else {key: value}
    shown = {key: value for key, value in flat.items() if key not in ("kind", "step", "epoch") and value is not None}
    return [(row["step"], f"{row['kind']}/{key}", value) for key, value in shown.items() if not isinstance(value, str)]


def events(folder: Path) -> list[Any]:
    """The events of all files, in their order; TFRecords with a masked CRC-32C of the length and one of the content."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted((folder / "tensorboard").iterdir()):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack_from("<Q", content)
            record = content[12 : 12 + length]
            assert content[8:12] == masked(content[:8])
            assert content[12 + length : 16 + length] == masked(record)
            found.append(Event.FromString(record))
            content = content[16 + length :]
    return found


def shown_by_tensorboard(folder: Path) -> list[tuple[int, str, float]]:
    """A session that starts at a step hides the points from there on that are older."""
    shown: list[tuple[int, str, float]] = []
    for event in events(folder):
        if event.HasField("session_log"):
            shown = [point for point in shown if point[0] < event.step]
        shown += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return shown


def single(found: list[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
    return [(step, name, float(np.float32(value))) for step, name, value in found]


def test_tensorboard_shows_what_the_log_has(run: Path) -> None:
    assert shown_by_tensorboard(run) == single(logged(run))
    assert len([event for event in events(run) if event.file_version]) == 2


def wandb_records(folder: Path) -> list[list[Any]]:
    """The records of each file: a log of LevelDB (blocks of 32 KiB, chunks with checksum, length, type), protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record

    files = []
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        content, at, record, found = file.read_bytes(), 7, b"", []
        while at < len(content):
            if 32768 - at % 32768 < 7:  # no room for another head
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack_from("<IHB", content, at)
            record += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, or the last part
                found.append(Record.FromString(record))
                record = b""
        files.append(found)
    return files


def history_of_wandb(records: list[Any]) -> list[tuple[int, str, float]]:
    found = []
    for record in records:
        if record.HasField("history"):
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = row.pop("step")
            found += [(step, key, value) for key, value in row.items() if not key.startswith("_")]
    return found


def test_wandb_has_what_the_log_has(run: Path) -> None:
    first, second = wandb_records(run)
    kept = (run / "wandb.id").read_text().strip()
    for records in (first, second):
        (about,) = [record.run for record in records if record.HasField("run")]
        assert (about.run_id, about.project, about.display_name) == (kept, "runs", "mine")
    settings = {item.key: json.loads(item.value_json) for item in about.config.update}
    stored = {key: value for key, value in settings.items() if not key.startswith("_")}
    assert stored == config_dict(read_config(run / "config.yaml"))
    found = history_of_wandb([*first, *second])
    assert set(logged(run)) <= set(found)
    assert {point[:2] for point in found} == {point[:2] for point in logged(run)}
    assert len(found) > len(logged(run))  # some came again


def history(folder: Path, names: set[str]) -> list[tuple[int, str, float]]:
    from mlflow import MlflowClient

    run_id = (folder / "mlflow.id").read_text().strip()
    stored = [metric for name in names for metric in MlflowClient().get_metric_history(run_id, name)]
    return [(metric.step, metric.key, metric.value) for metric in stored]


def test_mlflow_has_what_the_log_has(run: Path) -> None:
    from mlflow import MlflowClient

    about = MlflowClient().get_run((run / "mlflow.id").read_text().strip())
    assert (about.info.run_name, about.info.status) == ("mine", "FINISHED")
    assert MlflowClient().get_experiment(about.info.experiment_id).name == "runs"
    settings = by_name(config_dict(read_config(run / "config.yaml")))
    assert about.data.params == {key: str(value) for key, value in settings.items()}
    names = {name for _, name, _ in logged(run)}
    assert {name for name in about.data.metrics if not name.startswith("best/")} == names
    found = history(run, names)
    assert set(logged(run)) <= set(found)
    assert {point[:2] for point in found} == {point[:2] for point in logged(run)}
    assert len(found) > len(logged(run))  # some came again


def test_the_best_evaluation_stands_out(run: Path) -> None:
    from mlflow import MlflowClient

    (evaluation,) = [row for row in read_log(run / "metrics.jsonl") if row["kind"] == "val"]
    expected = {name.replace("val/", "best/"): value for _, name, value in points(evaluation)}
    metrics = MlflowClient().get_run((run / "mlflow.id").read_text().strip()).data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith("best/")} == expected
    updates = [item for record in wandb_records(run)[1] for item in record.summary.update]
    names = ["/".join(item.nested_key) or item.key for item in updates]
    summary = dict(zip(names, (json.loads(item.value_json) for item in updates), strict=True))
    assert {**expected, "best/step": 12} == {name: summary[name] for name in [*expected, "best/step"]}


def test_numbers_of_a_row_by_name() -> None:
    found = [scalars(row) for row in ROWS]
    assert found == [
        {"train/box": 0.25, "train/lr/bias": 0.5},
        {"val/AP": 0.125, "val/AP_of_class/cat (big)": 0.5},
        {},
        {"train/box": 0.0625, "train/lr/bias": 1},
    ]


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package said."""
    return [record.getMessage() for record in caplog.records if record.name == "yolov7_jax"]


def play(folder: Path, loggers: list[Callback], rows: list[dict[str, Any]]) -> None:
    """A run that has these rows."""
    callbacks = Callbacks(loggers)
    callbacks.on_start(RunInfo(folder, Config(), 20, 0))
    for row in rows:
        callbacks.on_row(row)
        if row["kind"] == "val":
            callbacks.on_evaluation(row, best=True)
    callbacks.on_fault(InputError("broken off"))


def test_rows_of_every_kind_are_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nested numbers, numbers that are none, names with letters that a library does not take, more than it takes."""
    needs(*LIBRARIES)
    from mlflow import MlflowClient

    folder = tmp_path / "broken" / "run"
    folder.mkdir(parents=True)
    many = {"kind": "val", "step": 20, "epoch": 2, "AP_of_class": {f"class {number}": 0.5 for number in range(1203)}}
    play(folder, make_loggers(list(LIBRARIES)), [*ROWS, many])
    assert not reports(caplog)
    expected = [(row["step"], name, value) for row in [*ROWS, many] for name, value in scalars(row).items()]
    assert shown_by_tensorboard(folder) == single(expected)
    assert sorted(history_of_wandb(wandb_records(folder)[0])) == sorted(expected)
    names = {name.replace("(", "_").replace(")", "_"): name for _, name, _ in expected}
    about = MlflowClient().get_run((folder / "mlflow.id").read_text().strip())
    assert about.info.status == "FAILED"
    assert {name: value for name, value in about.data.metrics.items() if not name.startswith("best/")} == {
        plain: value for plain, name in names.items() for _, n, value in expected if n == name
    }


def test_a_full_disk_delays_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    needs("tensorboard")
    callbacks = Callbacks(make_loggers(["tensorboard"]))
    callbacks.on_start(RunInfo(tmp_path, Config(), 20, 0))
    with file_size_limit(sum(file.stat().st_size for file in (tmp_path / "tensorboard").iterdir()) + 10):
        callbacks.on_row(ROWS[0])
    (text,) = reports(caplog)
    assert "cannot be written (File too large)" in text
    assert "Traceback" not in text
    assert shown_by_tensorboard(tmp_path) == []  # nothing of the row that did not fit
    callbacks.on_row(ROWS[-1])
    shown = [(row["step"], name, value) for row in (ROWS[0], ROWS[-1]) for name, value in scalars(row).items()]
    assert shown_by_tensorboard(tmp_path) == single(shown)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_library_that_cannot_begin_is_reported_once_and_the_run_goes_on(
    name: str, tmp_path: Path, caplog: Any
) -> None:
    needs(name)
    (tmp_path / f"{name}.id").write_text("no/id")
    play(tmp_path, make_loggers([name]), ROWS)
    (text,) = reports(caplog)  # not one for each row
    assert "failed in on_start; the run goes on" in text


@pytest.mark.parametrize(("name", "method"), [("wandb", "log"), ("mlflow", "log_batch")])
def test_a_library_that_fails_is_reported_and_the_run_goes_on(
    name: str, method: str, tmp_path: Path, caplog: Any
) -> None:
    needs(name)
    (logger,) = make_loggers([name])
    begin = logger.begin

    def begin_what_fails(*args: Any) -> str:
        run_id = begin(*args)
        setattr(logger._run if name == "wandb" else logger._client, method, mock.Mock(side_effect=OSError("full")))
        return run_id

    logger.begin = begin_what_fails
    play(tmp_path, [logger], ROWS)
    assert len(reports(caplog)) >= 3
    assert all("failed in on_" in text and "OSError: full" in text for text in reports(caplog))


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_there_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[name], None)
    with pytest.raises(InstallationError, match=rf"train\.loggers: {name} .* pip install 'yolov7-jax\[{name}\]'"):
        make_loggers([name])


def test_names_are_known_or_registered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.loggers: 'wandbb' is not known \(did you mean 'wandb'\?"):
        check_names(Config(train=TrainConfig(loggers=("wandbb",))))
    heard: list[Any] = []

    @register_logger("mine")
    class Mine(Callback):
        def __init__(self, mark: str) -> None:
            self.mark = mark

        def on_row(self, row):
            heard.append((self.mark, row["step"]))

    try:
        play(tmp_path, make_loggers(["mine(mark='x')"]), ROWS)
    finally:
        del LOGGERS["mine"]
    assert heard == [("x", row["step"]) for row in ROWS]


def test_loggers_are_in_the_first_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "is_first", lambda: False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert make_loggers(["wandb"]) == []


def test_wandb_without_a_key_is_said_before_the_run(tmp_path: Path) -> None:
    """In a process of its own, for the library reads its environment once."""
    needs("wandb")
    program = "from yolov7_jax.training.loggers.wandb import WandB; WandB()"
    other = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment = {**other, "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (
        "InputError: train.loggers: wandb has no API key; run `wandb login`, or set WANDB_MODE=offline" in done.stderr
    )

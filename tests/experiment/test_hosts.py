"""Two processes train one network as one process does; as a script, this is one of the two."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import quickly
from tests.experiment.small_run import small_config, write_data
from tests.experiment.test_sharing import assert_same_evaluation
from tests.experiment.test_training import damage
from yolov7_jax.cli.main import main
from yolov7_jax.config import Config
from yolov7_jax.config_file import config_dict
from yolov7_jax.convert.weights_file import read_safetensors
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import GoneError, InputError
from yolov7_jax.experiment import ablate, detect, resume, run_demo, train, validate
from yolov7_jax.files import yaml_text
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.image_paths import find_images
from yolov7_jax.registry import register_transform
from yolov7_jax.training import cluster, hosts
from yolov7_jax.training.callbacks import Callback, attempt
from yolov7_jax.training.cluster import Address, connect
from yolov7_jax.training.log import read_log


class Waiter(Callback):
    """Holds the run at a step until the other process has its signal."""

    def __init__(self, home: Path) -> None:
        self.sent = home / "sent"

    def on_step(self, step, _steps, _metrics):
        if step == 5:
            print("waiting", flush=True)
            while not self.sent.exists():
                time.sleep(0.1)


@register_transform("darker")
def darker(rng, sample):
    """Each finished sample by a factor of its own."""
    factor = rng.uniform(0.5, 1.0)
    return sample._replace(image=(sample.image * factor).astype(np.uint8))


def featured(home: Path) -> Config:
    """A run with everything on that looks at its course, or depends on it."""
    train = {"val_loss": True, "patience": 50, "time_limit": 10.0, "save_period": 2, "clip_gradient": 10.0}
    data = {"sampling": "by_ap", "cache_images": "memory"}
    return small_config(
        home / "data.yaml",
        train={**train, "loggers": ["tensorboard"]},
        data=data,
        augment={"transforms": ["darker"]},
    )


def be_one_of_two(home: Path, port: str, number: str) -> None:
    """A run from the command line; what is refused; a run that is stopped."""
    config = home / "config.yaml"
    config.write_text(yaml_text(config_dict(featured(home))))
    address = ["--coordinator", f"localhost:{port}", "--processes", "2", "--process-id", number]
    print("status", main(["train", str(config), "--output", str(home / "run"), *address]), flush=True)
    shared = ["--output", str(home / "val")], ["--output", str(home / "detected")]
    print("status", main(["val", str(home / "run"), "--data", str(home / "data.yaml"), *shared[0]]), flush=True)
    print("status", main(["detect", str(home / "run"), str(home / "images"), *shared[1]]), flush=True)

    own = home / number
    shutil.copytree(home / "run", own / "run")
    os.chdir(own)
    other_seed = small_config(home / "data.yaml", train={"seed": int(number)})
    other_data = small_config(home / ("data.yaml" if number == "0" else "nowhere.yaml"))
    own_images = {"path": str(write_data(own / "data")), "on_error": "stop"}
    broken = small_config(home / "data.yaml", data=own_images, train={"val_every_epochs": 0})
    if number == "1":
        damage(own / "data" / "images" / "9.png")
    for work in (
        lambda: resume("run"),
        lambda: train(other_seed, "new"),
        lambda: train(other_data, "new"),
        lambda: train(broken, home / "broken"),
        lambda: ablate(6, home / "ablation"),
        lambda: run_demo(home / "demo"),
    ):
        try:
            work()
        except InputError as error:
            print("refused", error, flush=True)

    done = train(featured(home), home / "stopped", callbacks=[Waiter(home)])
    print("stopped", done.step, done.signal, done.finished, flush=True)


class Two:
    """What two processes printed and left."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": quickly.FLAGS, "PYTHONPATH": str(Path(__file__).parents[2])}
        settings["YOLOV7_JAX_COMPILATION_CACHE"] = str(home / "cache")
        processes = []
        for number in ("0", "1"):
            (home / number).mkdir()
            command = ["timeout", "-s", "KILL", "500", sys.executable, __file__, str(home), port, number]
            with (home / number / "errors").open("w") as errors:
                processes.append(
                    subprocess.Popen(
                        command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=errors, text=True
                    )
                )
        first, second = processes
        assert first.stdout is not None
        lines = []
        for line in first.stdout:
            lines.append(line)
            if line == "waiting\n":
                os.kill(int((home / "1" / "pid").read_text()), signal.SIGTERM)
                (home / "sent").touch()
        self.printed = "".join(lines), second.communicate()[0]
        self.errors = [(home / number / "errors").read_text() for number in ("0", "1")]
        self.statuses = [process.wait() for process in processes]
        first.stdout.close()

    def lines(self, number: int, kind: str) -> list[str]:
        return [line.removeprefix(kind + " ") for line in self.printed[number].splitlines() if line.startswith(kind)]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Two:
    home = tmp_path_factory.mktemp("two")
    write_data(home)
    return Two(home)


@pytest.fixture(scope="module")
def one(two, tmp_path_factory) -> Path:
    return train(featured(two.home), tmp_path_factory.mktemp("one") / "run").folder


def test_one_process_joins_nobody(monkeypatch, capsys):
    connect()  # there is no cluster
    assert not jax.distributed.is_initialized()
    assert main(["train", "debug", "--processes", "2"]) == 2
    assert "--coordinator, --processes and --process-id belong together" in capsys.readouterr().err
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: (_ for _ in ()).throw(ValueError("no cluster")))
    with pytest.raises(InputError, match=r"cannot be joined \(no cluster\); name them: --coordinator HOST:PORT"):
        connect(search="on")


def test_a_first_process_that_is_not_there_is_named(monkeypatch):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *address, **_: joined.append(address))
    monkeypatch.setattr(cluster, "_PATIENCE_S", 0)
    with socket.socket() as first:
        first.bind(("localhost", 0))
        there = Address(f"localhost:{first.getsockname()[1]}", 2, 1)
        with pytest.raises(InputError, match=r"nobody answers at localhost:\d+ after 0 seconds; start process 0 there"):
            connect(there)
        connect(there._replace(process_id=0))  # it is the one that listens
        first.listen()
        connect(there)
    assert [address[2] for address in joined] == [0, 1]


def test_a_process_that_has_left_is_said_in_a_sentence(monkeypatch):
    said = "UNKNOWN: Gloo all-reduce failed: Read error [127.0.0.1]:1: Connection reset by peer\nmore"
    for processes, error, kind in ((2, said, GoneError), (1, said, ValueError), (2, "a bug", ValueError)):
        monkeypatch.setattr(jax, "process_count", lambda processes=processes: processes)
        with pytest.raises(kind) as raised, hosts.or_gone():
            raise ValueError(error)
        assert (str(raised.value) == error) == (kind is ValueError)
    with pytest.raises(GoneError, match="Connection reset"):
        attempt("the evaluation", Callback(), _raise, GoneError(said))


def _raise(error: Exception) -> None:
    raise error


def assert_same_weights(*runs: Path) -> None:
    expected, found = (read_safetensors(run / "weights.safetensors")[0] for run in runs)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_two_processes_have_losses_and_weights_of_one(two, one):
    assert [two.lines(number, "status") for number in (0, 1)] == [["0"] * 3] * 2, two.errors
    expected, found = (read_log(run / "metrics.jsonl") for run in (one, two.home / "run"))
    assert [(row["kind"], row["step"]) for row in found] == [(row["kind"], row["step"]) for row in expected]
    for before, now in zip(expected, found, strict=True):
        for key in {"loss", "box", "obj", "cls", "AP", "AP50", "f1", "val_total"} & before.keys():
            assert now[key] == pytest.approx(before[key], rel=1e-6, abs=1e-6), (now["step"], key)
    assert [row["val_total"] > 0 for row in found if row["kind"] == "val"] == [True, True]
    assert_same_weights(one, two.home / "run")


def test_they_leave_one_run_folder_and_one_of_them_reports(two, one):
    names = {path.name for path in (two.home / "run").iterdir()}
    assert names == {path.name for path in one.iterdir()}
    assert {"epoch-2.safetensors", "epoch-4.safetensors", "tensorboard", "index.html", "results.csv"} <= names
    assert len(list((two.home / "run" / "tensorboard").iterdir())) == 1
    assert "12 iterations done" in two.printed[0]
    assert "iterations done" not in two.printed[1]
    assert "epoch 4: AP" in two.errors[0]
    assert "epoch" not in two.errors[1]
    assert not (two.home / "run-2").exists()


def test_they_share_evaluation_and_detection_and_find_what_one_finds(two, tmp_path):
    detector = Detector.load(two.home / "run")
    validate(detector, open_source(two.home / "data.yaml"), folder=tmp_path / "val")
    assert_same_evaluation(two.home / "val", tmp_path / "val")
    detect(detector, find_images([str(two.home / "images")]), tmp_path / "detected")
    for path in (path for path in (tmp_path / "detected").rglob("*") if path.is_file()):
        there = two.home / "detected" / path.relative_to(tmp_path / "detected")
        assert there.read_bytes() == path.read_bytes(), path
    for number in (0, 1):
        assert ("AR_100" in two.printed[number], "objects in 10 images" in two.printed[number]) == (number == 0,) * 2


def test_what_they_do_not_share_is_refused_by_both(two):
    for number in (0, 1):
        not_shared, other_seed, no_data, _, ablation, demo = two.lines(number, "refused")
        assert "run: " in not_shared
        assert "does not see what the first process writes there" in not_shared
        assert "train.seed is 1, but 0 in the first process" in other_seed
        assert "nowhere.yaml" in no_data
        assert no_data.startswith("process 1: ") == (number == 0)
        assert "an ablation is for one process, and 2 are joined" in ablation
        assert "the demonstration is for one process" in demo
    assert not (two.home / "0" / "new").exists()


def test_where_one_has_no_batch_both_end(two):
    for number in (0, 1):
        reason = two.lines(number, "refused")[3]
        assert "9.png" in reason
        assert reason.startswith("process 1: ") == (number == 0)


def test_a_signal_to_one_saves_the_same_step_in_both(two):
    assert two.statuses == [0, 0], two.errors
    (first,), (second,) = (two.lines(number, "stopped") for number in (0, 1))
    step, received, finished = first.split()
    assert (first, received, finished) == (second, "15", "False")
    assert step == "6"  # it breaks off the evaluation of both
    assert {path.name for path in (two.home / "stopped" / "checkpoints").iterdir()} == {"3", "6"}
    assert [row["step"] for row in read_log(two.home / "stopped" / "metrics.jsonl") if row["kind"] == "val"] == []


def test_one_process_resumes_the_run_of_two_to_the_same_end(two):
    done = resume(two.home / "stopped")
    assert (done.step, done.finished) == (12, True)
    assert_same_weights(two.home / "run", two.home / "stopped")


if __name__ == "__main__":
    (Path(sys.argv[1]) / sys.argv[3] / "pid").write_text(str(os.getpid()))
    be_one_of_two(Path(sys.argv[1]), *sys.argv[2:])

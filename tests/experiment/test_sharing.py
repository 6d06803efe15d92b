"""Processes that share evaluation and detection: threads here, which tell each other what processes would."""

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.experiment.small_run import small_config, write_data
from tests.small_networks import small_weights
from yolov7_jax.config import EVALUATION, Options
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import GoneError, InputError
from yolov7_jax.experiment.artifacts import evaluator
from yolov7_jax.experiment.inference import Output, detect
from yolov7_jax.experiment.validation import validate
from yolov7_jax.inference.detector import Detector
from yolov7_jax.prefetch import no_progress
from yolov7_jax.training import hosts
from yolov7_jax.training.callbacks import Callback, attempt
from yolov7_jax.training.stop import Stopped, StopSignals

IMAGES = 11


class Threads:
    """Does a work as several processes: `jax.process_index` and `hosts.gather` are those of a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._here = threading.local()
        monkeypatch.setattr(jax, "process_index", lambda: getattr(self._here, "number", 0))
        monkeypatch.setattr(jax, "process_count", lambda: getattr(self._here, "count", 1))
        monkeypatch.setattr(hosts, "gather", self._gather)

    def _gather(self, content: bytes) -> list[bytes]:
        if hosts.place()[1] == 1:
            return [content]
        here = self._here
        here.sent[here.number] = content
        here.barrier.wait(120)
        told = list(here.sent)
        here.barrier.wait(120)
        return told

    def __call__(self, count: int, work: Callable[[int], Any]) -> list[Any]:
        """What `work` of each number gives, or raises."""
        barrier, sent, outcomes = threading.Barrier(count), [b""] * count, [None] * count

        def be(number: int) -> None:
            here = self._here
            here.number, here.count, here.barrier, here.sent = number, count, barrier, sent
            try:
                outcomes[number] = work(number)
            except BaseException as error:
                outcomes[number] = error

        threads = [threading.Thread(target=be, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two sizes, one of which cannot be read."""
    home = tmp_path_factory.mktemp("data")
    write_data(home, images=IMAGES)
    (home / "images" / "4.png").write_bytes((home / "images" / "4.png").read_bytes()[:400])
    return home


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(replace(small_weights(2), names=("bright", "dark")))


@pytest.fixture(scope="module")
def alone(home: Path, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "val"
    validate(detector, open_source(home / "data.yaml"), folder=folder)
    return folder


def assert_same_evaluation(found: Path, expected: Path) -> None:
    assert (found / "detections.json").read_bytes() == (expected / "detections.json").read_bytes()
    before, now = (json.loads((folder / "metrics.json").read_text()) for folder in (expected, found))
    assert before["AP50"] > 0
    for key in before.keys() - {"speed_ms"}:
        assert now[key] == before[key], key
    for figure in ("confusion.png", "precision_recall.png"):
        assert (found / figure).read_bytes() == (expected / figure).read_bytes()


@pytest.mark.parametrize("count", [2, 3, IMAGES + 1])
def test_processes_that_share_an_evaluation_find_what_one_finds(processes, home, detector, alone, tmp_path, count):
    def work(_: int) -> Any:
        return validate(detector, open_source(home / "data.yaml"), folder=tmp_path / "val", shared=True)

    runs = processes(count, work)
    assert [path.name for path in tmp_path.iterdir()] == ["val"]
    assert_same_evaluation(tmp_path / "val", alone)
    for run in runs:
        assert run.result.numbers() == runs[0].result.numbers()
        assert run.result.per_class == runs[0].result.per_class
        np.testing.assert_array_equal(run.result.precision, runs[0].result.precision)
        assert (run.failures, run.overflow, run.folder) == (runs[0].failures, runs[0].overflow, tmp_path / "val")
    assert list(runs[0].failures) == [4]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_devices_that_share_an_evaluation_find_what_one_finds(home, alone, tmp_path, count):
    several = Detector(replace(small_weights(2), names=("bright", "dark")), devices=jax.local_devices()[:count])
    validate(several, open_source(home / "data.yaml"), folder=tmp_path / "val")
    assert_same_evaluation(tmp_path / "val", alone)


def failing(error: BaseException, *, at: int) -> Any:
    """Progress that fails at an image."""

    def progress(items: Any, _total: int) -> Any:
        for number, item in enumerate(items):
            if number == at:
                raise error
            yield item

    return progress


@pytest.mark.parametrize(
    ("error", "elsewhere", "text"),
    [
        (RuntimeError("no heap"), InputError, r"process 1: Traceback (?s:.*)RuntimeError: no heap"),
        (InputError("a.png: gone"), InputError, r"^process 1: a\.png: gone$"),
        (Stopped(15), Stopped, "15"),
        (KeyboardInterrupt(), GoneError, "process 1 was broken off: KeyboardInterrupt"),
    ],
)
def test_what_ends_the_share_of_one_ends_all(processes, home, detector, tmp_path, error, elsewhere, text):
    def work(number: int) -> Any:
        progress = failing(error, at=2) if number == 1 else no_progress
        source = open_source(home / "data.yaml")
        return validate(detector, source, folder=tmp_path / "val", progress=progress, shared=True)

    first, own, third = processes(3, work)
    assert type(own) is type(error)
    for found in (first, third):
        assert type(found) is elsewhere
        with pytest.raises(elsewhere, match=text):
            raise found
    assert list(tmp_path.iterdir()) == []


def test_they_hear_of_it_within_a_round(processes, monkeypatch):
    monkeypatch.setattr(hosts, "_ROUND", 4)
    done: dict[int, list[int]] = {0: [], 1: []}

    def work(number: int) -> None:
        def one(item: int) -> None:
            if item == 13:  # the third of the second round
                raise InputError("no")
            done[number].append(item)

        hosts.for_own_share(one, hosts.own_share(100), 100)

    assert [str(error) for error in processes(2, work)] == ["process 1: no", "no"]
    assert done == {0: list(range(0, 16, 2)), 1: list(range(1, 13, 2))}


@pytest.mark.parametrize("total", [0, 1, 7, 8, 9, 64])
def test_shares_are_all_items_once(processes, monkeypatch, total):
    monkeypatch.setattr(hosts, "_ROUND", 2)

    def work(_: int) -> list[int]:
        done: list[int] = []
        hosts.for_own_share(done.append, hosts.own_share(total), total)
        return done

    assert sorted(item for done in processes(3, work) for item in done) == list(range(total))


def test_what_they_do_not_agree_on_is_refused_by_all(processes, home, detector, tmp_path):
    other = write_data(tmp_path / "other", images=3)

    def work(number: int) -> list[str]:
        said = []
        places = home / "data.yaml", [home / "data.yaml", other][number]
        for data, iou in ((places[0], 0.5 + 0.1 * number), (places[1], 0.5)):
            try:
                validate(detector, open_source(data), options=replace(EVALUATION, iou=iou), shared=True)
            except InputError as error:
                said.append(str(error))
        return said

    first, second = processes(2, work)
    assert second[0] == "iou is 0.6, but 0.5 in the first process; give the same to all"
    assert second[1].startswith("the number of labeled images is 3, but 11 in the first process")
    assert first == [f"process 1: {text}" for text in second]


def test_one_of_several_can_evaluate_by_itself(processes, home, detector, alone, tmp_path):
    def work(number: int) -> Any:
        return validate(detector, open_source(home / "data.yaml"), folder=tmp_path / "val") if number == 1 else None

    assert processes(2, work)[1].folder == tmp_path / "val"
    assert_same_evaluation(tmp_path / "val", alone)


class Notes(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def log(self, text: str) -> None:
        self.notes.append(text)


def test_an_evaluation_of_a_run_that_fails_in_one_is_reported_and_all_go_on(processes, home, tmp_path):
    weights = replace(small_weights(2), names=("bright", "dark"))
    notes = Notes()
    broken = {"params": {}, "batch_stats": {}}

    def work(number: int) -> list[Any]:
        callbacks = notes if number == 0 else Callback()
        val = open_source(home / "data.yaml")
        config = small_config(home / "data.yaml", val={"resize": "linear"})
        evaluate = evaluator(config, weights, val, tmp_path, StopSignals(), callbacks, no_progress)
        averaged = [weights.variables, broken if number == 1 else weights.variables, weights.variables]
        return [attempt("the evaluation", callbacks, evaluate, variables) for variables in averaged]

    first, second = processes(2, work)
    assert first == second
    assert [row is None for row in first] == [False, True, False]
    assert first[0] == first[2]
    (failed,) = (note for note in notes.notes if note.startswith("the evaluation failed"))
    assert failed.startswith("the evaluation failed, the run goes on: process 1: ")
    assert sum("counted as an image without detections" in note for note in notes.notes) == 1


def test_a_signal_to_one_breaks_off_the_evaluation_of_all(processes, home, tmp_path):
    weights = replace(small_weights(2), names=("bright", "dark"))

    def work(number: int) -> Any:
        signals = StopSignals()
        signals.received = 15 if number == 1 else None
        val = open_source(home / "data.yaml")
        evaluate = evaluator(small_config(home / "data.yaml"), weights, val, tmp_path, signals, Callback(), no_progress)
        return attempt("the evaluation", Callback(), evaluate, weights.variables)

    assert [(type(stopped), stopped.signal) for stopped in processes(3, work)] == [(Stopped, 15)] * 3


def test_processes_share_detection_and_one_folder(processes, home, detector, tmp_path):
    images = sorted((home / "images").iterdir())
    expected = detect(detector, images, tmp_path / "alone")

    def work(_: int) -> Any:
        return detect(detector, images, tmp_path / "shared", shared=True)

    for run in processes(3, work):
        assert (run.counts, run.failures, run.overflow) == (expected.counts, expected.failures, expected.overflow)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "shared"]
    there = [path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*") if path.is_file()]
    assert len(there) == 2 * (IMAGES - 1) + 1
    for path in there:
        assert (tmp_path / "shared" / path).read_bytes() == (tmp_path / "alone" / path).read_bytes(), path


def test_what_was_found_before_an_interruption_is_written(processes, home, detector, tmp_path):
    images = sorted((home / "images").iterdir())

    def work(number: int) -> Any:
        progress = failing(KeyboardInterrupt(), at=2) if number == 1 else no_progress
        return detect(detector, images, tmp_path / "out", output=Output(images=False), progress=progress, shared=True)

    kinds = [type(error) for error in processes(2, work)]
    assert kinds == [GoneError, KeyboardInterrupt]
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    expected = [images[place] for place in (*range(0, IMAGES, 2), 1, 5)]  # what cannot be read comes at once
    read = [Path(row["image"]) for row in content["images"] + content["unread"]]
    assert sorted(read) == sorted(expected)


def test_a_folder_that_is_not_shared_is_refused(processes, home, detector, tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "_appears", lambda _: hosts.is_first())

    def work(_: int) -> Any:
        return detect(detector, [home / "images" / "1.png"], tmp_path / "out", options=Options(), shared=True)

    first, second = processes(2, work)
    assert "does not see what the first process writes there; name a folder on a disk that all hosts share" in str(
        second
    )
    assert str(first) == f"process 1: {second}"
    assert list(tmp_path.iterdir()) == []


@contextmanager
def sent_by_parts(monkeypatch: pytest.MonkeyPatch, size: int):
    """`process_allgather` of two processes that give the same."""
    monkeypatch.setattr(hosts, "_MOST", size)
    monkeypatch.setattr(hosts, "_LEAST", 16)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "wait_for_all", lambda *_: None)
    shapes = []

    def allgather(array: Any) -> Any:
        shapes.append(np.shape(array))
        return np.stack([array, array])

    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", allgather)
    yield shapes


@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 33, 100])
def test_bytes_are_sent_by_parts_of_few_shapes(monkeypatch, length):
    content = np.random.default_rng(0).bytes(length)
    with sent_by_parts(monkeypatch, 32) as shapes:
        assert hosts.gather(content) == [content, content]
    assert shapes[0] == ()
    assert set(shapes[1:]) <= {(16,), (32,)}
    assert len(shapes) == 1 + -(-length // 32)

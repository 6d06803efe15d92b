import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import yolov7_jax
from tests.data.training_source import DrawnSource
from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.loader import Loader
from yolov7_jax.data.pipeline import Pipeline, TrainingRow
from yolov7_jax.data.sampling import balanced_repeats, rectangles, repeat_factors
from yolov7_jax.errors import DataError, InputError
from yolov7_jax.types import Batch, Candidates

SINGLE = AugmentConfig(mosaic=0)


def pipeline(source: Any, **options: Any) -> Pipeline:
    defaults: dict[str, Any] = {
        "source": source,
        "augment": AugmentConfig(mixup=0.5),
        "shapes": ((64, 64),),
        "anchors": (((10, 13), (16, 30)), ((30, 61), (62, 45))),
        "strides": (8, 16),
        "anchor_t": 4.0,
        "batch_size": 4,
        "seed": 0,
        "max_boxes": 9,
        "coarse": True,
    }
    return Pipeline(**defaults | options)


def batches(loader: Loader, count: int, start: int = 0) -> list[Batch]:
    with closing(loader.batches(start)) as made:
        return list(islice(made, count))


def flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, tuple) else [value]


def content(batch: Batch) -> list[tuple[Any, ...]]:
    return [(leaf.shape, leaf.dtype, leaf.tobytes()) for leaf in flat(batch)]


STEPS = 7  # over two ends of epochs of three steps


@pytest.fixture(scope="module")
def expected() -> list[Batch]:
    return batches(Loader(pipeline(DrawnSource()), workers=0), STEPS)


def test_batches_are_the_rows_in_order(expected: list[Batch]):
    made = pipeline(DrawnSource())
    for step, batch in enumerate(expected):
        rows = [made.row(step // 3, step % 3 * 4 + number).sample for number in range(4)]
        for leaf, *leaves in zip(flat(batch), *map(flat, rows), strict=True):
            np.testing.assert_array_equal(leaf, np.stack(leaves))
        assert isinstance(batch, Batch)
        assert isinstance(batch.fine, Candidates)
    indices = np.concatenate([batch.index for batch in expected])
    assert indices.tolist() == [
        made.index(step // 3, step % 3 * 4 + number) for step in range(7) for number in range(4)
    ]
    assert sorted(indices[:10]) == list(range(10))


EVERYTHING = AugmentConfig(
    mosaic=0.8,
    mosaic9=0.4,
    close_mosaic=1,
    mixup=0.5,
    copy_paste=0.5,
    paste_in=0.5,
    degrees=10,
    shear=3,
    perspective=0.0005,
    flipud=0.5,
)
SQUARES = ((48, 48), (64, 64), (80, 80))
SIZES = [DrawnSource()[index].image.shape[:2] for index in range(10)]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "augment": EVERYTHING,
        "epochs": 3,
        "shapes": SQUARES,
        "repeats": repeat_factors([np.array([n % 3]) for n in range(10)], 3, threshold=0.9),
    },
    "balanced": {"repeats": balanced_repeats([np.array([n > 7] * n, int) for n in range(10)], 2)},
    "rectangles": {
        "augment": EVERYTHING,
        **dict(zip(("shapes", "buckets"), rectangles(SIZES, 64, stride=16), strict=True)),
    },
}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[dict[str, Any], list[Batch]]:
    """Options of a pipeline, and the batches of its first steps by the thread that asks for them."""
    options = {"source": DrawnSource(with_polygons=True), **KINDS[request.param]}
    return options, batches(Loader(pipeline(**options), workers=0), STEPS)


def test_kinds_are_of_more_than_one_shape(kind: Any):
    options, expected = kind
    assert {batch.image.shape[1:3] for batch in expected} <= set(options.get("shapes", ((64, 64),)))
    assert ("shapes" not in options) == (len({batch.image.shape for batch in expected}) == 1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_threads_make_the_same_bytes(kind: Any, workers: int):
    options, expected = kind
    made = batches(Loader(pipeline(**options), workers=workers), STEPS)
    assert list(map(content, made)) == list(map(content, expected))


@pytest.mark.parametrize("workers", [1, 4])
def test_processes_make_the_same_bytes_without_jax(kind: Any, workers: int):
    options, expected = kind
    source = DrawnSource(no_jax=True, with_polygons=True)
    before = set(threading.enumerate())
    made = pipeline(**options | {"source": source, "on_error": "stop"})
    found = batches(Loader(made, workers=workers, processes=True), STEPS - 2, start=2)
    assert list(map(content, found)) == list(map(content, expected[2:]))
    assert multiprocessing.active_children() == []
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("start", range(1, STEPS))
def test_any_step_can_be_the_first(kind: Any, start: int):
    options, expected = kind
    made = batches(Loader(pipeline(**options), workers=2), STEPS - start, start)
    assert list(map(content, made)) == list(map(content, expected[start:]))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_rows(kind: Any, hosts: int):
    options, expected = kind
    parts = [
        batches(Loader(pipeline(**options), workers=workers, host=(host, hosts)), STEPS)
        for host, workers in zip(range(hosts), (0, 1, 2, 3), strict=False)
    ]
    for step, batch in enumerate(expected):
        for leaf, *leaves in zip(flat(batch), *(flat(part[step]) for part in parts), strict=True):
            np.testing.assert_array_equal(leaf, np.concatenate(leaves))


def test_a_batch_without_coarse_candidates(expected: list[Batch]):
    (batch,) = batches(Loader(pipeline(DrawnSource(), coarse=False), workers=1), 1)
    assert batch.coarse is None
    np.testing.assert_array_equal(batch.fine.index, expected[0].fine.index)


@dataclass
class Counting:
    """A pipeline whose rows are numbers, which counts them; done: there are enough."""

    batch_size: int = 4
    steps: int = 5
    enough: int = 0
    made: list[int] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def row(self, epoch: int, position: int) -> TrainingRow:
        which = epoch * self.steps * self.batch_size + position
        self.made.append(which)
        if len(self.made) == self.enough:
            self.done.set()
        number = np.array([which])
        return TrainingRow(Batch(number, number, number, number, Candidates(number, number), None, number, number), ())


def test_batches_are_made_while_the_one_who_asks_is_busy():
    counting: Any = Counting(enough=1 * 4 + 2 * 4 - 1)
    with closing(Loader(counting, workers=2, ahead=2).batches()) as made:
        next(made)
        assert counting.done.wait(30)  # nobody asks for more in the meantime


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_is_made_ahead_than_allowed(workers: int):
    counting: Any = Counting()
    threads = set(threading.enumerate())
    made = Loader(counting, workers=workers, ahead=2).batches()
    assert counting.made == []
    for step in range(8):
        assert next(made).image.ravel().tolist() == list(range(4 * step, 4 * step + 4))
        # when the last row of a batch is handed out, two batches after it have been begun at most
        assert len(counting.made) <= 4 * step + 3 + 2 * 4
    made.close()
    begun = len(counting.made)
    time.sleep(0.05)
    assert len(counting.made) == begun
    assert set(threading.enumerate()) == threads


def test_without_workers_nothing_is_made_ahead():
    counting: Any = Counting()
    made = Loader(counting, workers=0).batches(3)
    next(made)
    assert counting.made == list(range(12, 16))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_told_once_or_stops(workers: int):
    source = DrawnSource(6, bad=(2, 4))
    loader = Loader(pipeline(source), workers=workers)
    batches(loader, 6)
    assert sorted(loader.errors) == [f"{number}.png: is empty; expected an image" for number in (2, 4)]
    stop_pipeline = pipeline(source, augment=SINGLE, on_error="stop")
    first = min((2, 4), key=[stop_pipeline.index(0, position) for position in range(6)].index)
    stopping = Loader(stop_pipeline, workers=workers)
    with pytest.raises(DataError, match=rf"^{first}\.png: is empty"):
        batches(stopping, 6)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_errors_of_a_process_arrive_as_they_are():
    source = DrawnSource(2, bad=(0, 1))
    with pytest.raises(DataError, match=r"^\d\.png: is empty; expected an image$"):
        batches(Loader(pipeline(source, on_error="stop"), workers=1, processes=True), 1)


def test_a_process_that_dies_has_its_image_named():
    source = DrawnSource(5, deadly=3)
    loader = Loader(pipeline(source, augment=SINGLE, batch_size=5), workers=1, processes=True)
    with pytest.raises(DataError, match=r"^3\.png: a worker process died .*data\.workers.*data\.processes=false"):
        batches(loader, 1)
    assert multiprocessing.active_children() == []


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(yolov7_jax.__file__).parents[1])}
SCRIPT = """
import multiprocessing, signal, time
from tests.data.test_loader import pipeline
from tests.data.training_source import DrawnSource
from yolov7_jax.data.loader import Loader

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background it is ignored
    for _ in Loader(pipeline(DrawnSource()), workers=1, processes=True).batches():
        time.sleep(0.3)  # the worker has made all it may, and waits: only then would it complain of Ctrl-C
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        {then}
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("ending", ["Ctrl-C", "killed"])
def test_workers_end_with_the_process_that_asked_for_them(tmp_path: Path, ending: str):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(then="time.sleep(60)"))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert len(process.stdout.readline().split()) == 1
        if ending == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, errors = process.communicate(timeout=30)  # returns when the last that can write to the pipes has ended
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if ending == "Ctrl-C":
        assert errors.count("Traceback") == 1
        assert errors.rstrip().endswith("KeyboardInterrupt")


def test_a_script_that_cannot_be_imported_is_told_so(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(then="break").replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run([sys.executable, str(script)], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert "DataError: a worker process ended by itself" in done.stderr


def test_opencv_has_its_threads_back_when_ours_end():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    made = Loader(pipeline(DrawnSource()), workers=1).batches()
    next(made)
    assert cv2.getNumThreads() == 1
    made.close()
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(before)


def test_settings_that_cannot_be():
    made = pipeline(DrawnSource())
    with pytest.raises(InputError, match="batch_size is 4, which 3 hosts cannot share"):
        Loader(made, workers=0, host=(0, 3))
    with pytest.raises(InputError, match="workers is -1"):
        Loader(made, workers=-1)


def test_step_after_step_differs(expected: list[Batch]):
    assert all(content(one) != content(other) for one, other in pairwise(expected))

"""Callbacks of a run: what is called when, and what becomes of one that fails."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.small_run import small_config, write_data
from yolov7_jax.config import Config
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import train
from yolov7_jax.training.callbacks import Callback, Callbacks, RunInfo, TimeLimit


class Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_start(self, run):
        self.events.append(("start", run.folder.name, run.steps, run.step))

    def on_step(self, step, steps, metrics):
        self.events.append(("step", step))

    def on_row(self, row):
        self.events.append((row["kind"], row["step"]))

    def on_evaluation(self, row, *, best):
        self.events.append(("evaluation", row["step"]))

    def on_checkpoint(self, step, folder):
        assert (folder / "weights.safetensors").is_file()
        self.events.append(("checkpoint", step))

    def on_end(self, step, *, finished):
        self.events.append(("end", step, finished))


class Failing(Callback):
    def on_step(self, step, steps, metrics):
        raise RuntimeError(f"mine, at {step}")


class Bare:
    """Has one method of a callback and no base class."""

    heard = 0

    def on_step(self, step, steps, metrics):
        self.heard = step


def test_events_come_in_order_and_a_callback_that_fails_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, bare = Recorder(), Bare()
    config = small_config(write_data(tmp_path), train={"epochs": 2})
    with caplog.at_level(logging.ERROR, logger="yolov7_jax"):
        done = train(config, tmp_path / "run", callbacks=[Failing(), recorder, bare])
    assert done.finished
    steps = [("step", step) for step in range(1, 7)]
    assert recorder.events == [
        ("start", "run", 6, 0),
        *steps[:3],
        ("train", 3),
        ("checkpoint", 3),
        *steps[3:],
        ("train", 6),
        ("checkpoint", 6),
        ("val", 6),
        ("evaluation", 6),
        ("end", 6, True),
    ]
    assert bare.heard == 6
    assert len(caplog.records) == 6
    text = caplog.records[0].getMessage()
    assert "failed in on_step; the run goes on" in text
    assert "RuntimeError: mine, at 1" in text
    assert "callbacks.py" not in text.replace("test_callbacks.py", "")  # the traceback is theirs alone


def test_a_run_that_is_broken_off_tells_its_callbacks_why(tmp_path: Path) -> None:
    heard: list[BaseException] = []

    class Watching(Callback):
        def on_fault(self, error):
            heard.append(error)

        def on_end(self, step, *, finished):
            raise AssertionError("it did not end")

    data = write_data(tmp_path)
    config = small_config(data, data={"on_error": "stop", "workers": 0})

    class Breaking(Watching):
        def on_start(self, run):
            for image in (data.parent / "images").iterdir():
                image.write_bytes(b"no image")

    with pytest.raises(InputError) as raised:
        train(config, tmp_path / "run", callbacks=[Breaking()])
    assert heard == [raised.value]


def test_a_run_ends_when_its_hours_are_over() -> None:
    now, asked = [100.0], []
    limit = TimeLimit(0.5, clock=lambda: now[0])
    limit.on_start(RunInfo(Path("run"), Config(), 8, 0, asked.append))
    now[0] += 1799
    limit.on_step(1, 8, {})
    assert asked == []
    now[0] += 1
    limit.on_step(2, 8, {})
    assert asked == ["train.time_limit, 0.5 hours, is over"]


def test_interrupts_are_not_swallowed() -> None:
    class Interrupting(Callback):
        def log(self, text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([Interrupting()]).log("text")

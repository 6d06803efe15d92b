"""Callbacks of a run: what is called when, and what becomes of one that fails."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.small_run import small_config, write_data
from yolov7_jax.experiment import train
from yolov7_jax.training.callbacks import Callback, Callbacks


class Recorder(Callback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_start(self, run):
        self.events.append(("start", run.folder.name, run.steps, run.step))

    def on_step(self, step, steps, metrics):
        self.events.append(("step", step))

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
    after_first_epoch, after_second = [("checkpoint", 3)], [("checkpoint", 6), ("evaluation", 6)]
    expected = [("start", "run", 6, 0), *steps[:3], *after_first_epoch, *steps[3:], *after_second, ("end", 6, True)]
    assert recorder.events == expected
    assert bare.heard == 6
    assert len(caplog.records) == 6
    text = caplog.records[0].getMessage()
    assert "failed in on_step; the run goes on" in text
    assert "RuntimeError: mine, at 1" in text
    assert "callbacks.py" not in text.replace("test_callbacks.py", "")  # the traceback is theirs alone


def test_interrupts_are_not_swallowed() -> None:
    class Interrupting(Callback):
        def log(self, text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([Interrupting()]).log("text")

"""The loop around a step that is a formula, so that every number it leaves is known beforehand."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.training import hosts
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.checkpoint import Checkpoints, RunStatus
from yolov7_jax.training.log import TIMES, Log, read_log
from yolov7_jax.training.loop import LoopDependencies, Plan, train
from yolov7_jax.training.state import TrainState
from yolov7_jax.training.stop import Stopped, StopSignals
from yolov7_jax.types import Batch, Candidates

PLAN = Plan(steps_per_epoch=5, epochs=3, val_every_epochs=1, checkpoint_every_steps=0, max_nonfinite=3)


def fresh() -> TrainState:
    zero = jnp.int32(0)
    return TrainState(zero, {"w": jnp.zeros(2)}, {}, {"w": jnp.zeros(2)}, (), None, zero, zero, zero)


def batch(step: int) -> Batch:
    nothing = Candidates(np.zeros((1, 1, 1), np.int32), np.zeros((1, 1, 1), bool))
    image = np.full((1, 2, 2, 3), step, np.uint8)
    empty = np.zeros((1, 1), np.int32)
    return Batch(image, np.zeros((1, 1, 4), np.float32), empty, empty > 0, nothing, None, np.zeros((1, 2)), empty[0])


@jax.jit
def add(state: TrainState, value: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
    """Adds what the batch shows; 200 and more is taken for a loss that is not finite."""
    finite = value < 200
    w = state.params["w"] + jnp.where(finite, value.astype(jnp.float32), 0)
    in_row = jnp.where(finite, 0, state.nonfinite_in_row + 1)
    state = state._replace(
        step=state.step + 1, params={"w": w}, ema={"w": w / 2}, nonfinite_in_row=in_row, nonfinite=state.nonfinite
    )
    return state, {"box": w[0], "finite": finite, "nonfinite_in_row": in_row}


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.rows: list[tuple[int, bool]] = []
        self.notes: list[str] = []

    def on_step(self, step, _steps, _metrics):
        self.steps.append(step)

    def on_evaluation(self, row, *, best):
        self.rows.append((row["step"], best))

    def log(self, text):
        self.notes.append(text)


class Run:
    """A run in a folder; `at` maps steps to what happens before their batch is made."""

    def __init__(self, folder: Path, *, plan: Plan = PLAN, scores: dict[int, float] | None = None, at: Any = None):
        self.folder, self.plan, self.scores, self.at = folder, plan, scores or {}, at or {}
        self.callback = Recorder()
        self.published: list[tuple[int, float, bool]] = []
        self.images: dict[int, int] = {}
        self.evaluating: Any = lambda: None
        self.publishing: Any = lambda: None
        self.begun: list[int] = []

    def batches(self, start):
        self.begun.append(start)
        step = start
        while True:
            step += 1
            self.at.get(step, lambda: None)()
            yield batch(self.images.get(step, step))

    def go(self) -> tuple[TrainState, RunStatus]:
        def evaluate(averaged):
            self.evaluating()
            stop.check()
            return {"AP": self.scores.get(round(float(averaged["w"][0]) * 2), 0.5), "AP50": 0.5}

        def publish(averaged, status, best):
            self.publishing()
            self.published.append((status.step, float(averaged["w"][0]), best))

        log = Log(self.folder)
        with StopSignals() as stop, Checkpoints(self.folder / "checkpoints") as checkpoints:
            self.stop = stop
            restored = checkpoints.restore(fresh())
            state, status = restored or (fresh(), RunStatus())
            log.rewind(status.step)
            parts = LoopDependencies(
                plan=self.plan,
                train_step=lambda state, batch: add(state, jnp.int32(batch.image[0, 0, 0, 0])),
                batches=self.batches,
                evaluate=evaluate,
                score=lambda row: row["AP"],
                publish=publish,
                checkpoints=checkpoints,
                log=log,
                stop=stop,
                callbacks=self.callback,
                folder=self.folder,
            )
            return train(state, status, parts)

    def rows(self) -> list[dict[str, Any]]:
        rows = read_log(self.folder / "metrics.jsonl")
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def total(steps: int) -> int:
    return steps * (steps + 1) // 2


def test_a_whole_run(tmp_path):
    run = Run(tmp_path, scores={total(5): 0.5, total(10): 0.7, total(15): 0.6})
    state, status = run.go()
    assert float(state.params["w"][0]) == total(15)
    assert (status.step, status.score, status.best_score, status.best_step) == (15, 0.6, 0.7, 10)
    assert run.callback.steps == list(range(1, 16))
    assert run.callback.rows == [(5, True), (10, True), (15, False)]
    assert run.published == [  # when the step is saved, and when it is evaluated
        (step, total(step) / 2, best)
        for step, better in ((5, True), (10, True), (15, False))
        for best in (False, better)
    ]
    assert [(row["kind"], row["step"], row["epoch"]) for row in run.rows()] == [
        (kind, 5 * epoch, epoch) for epoch in (1, 2, 3) for kind in ("train", "val")
    ]
    assert [row["box"] for row in run.rows() if row["kind"] == "train"] == [
        sum(map(total, range(first, first + 5))) / 5 for first in (1, 6, 11)
    ]


def test_rows_end_with_epochs_and_tell_of_ten_steps(tmp_path):
    plan = Plan(steps_per_epoch=12, epochs=2, val_every_epochs=0, checkpoint_every_steps=0, max_nonfinite=3)
    run = Run(tmp_path, plan=plan)
    run.go()
    assert [(row["kind"], row["step"]) for row in run.rows()] == [("train", step) for step in (10, 12, 22, 24)]


@pytest.mark.parametrize("moment", range(1, 16))
def test_stopped_at_any_step_and_gone_on_with_it_is_the_same_run(tmp_path, moment):
    def whole() -> Run:
        run = Run(tmp_path / "whole", scores={total(5): 0.9})
        run.folder.mkdir()
        return run

    expected = whole()
    state, status = expected.go()
    first = Run(tmp_path, scores={total(5): 0.9}, at={moment: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    _, stopped = first.go()
    assert stopped.step == moment
    second = Run(tmp_path, scores={total(5): 0.9})
    again, finished = second.go()
    assert finished == status
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, state))
    assert second.rows() == expected.rows()


def test_an_evaluation_that_is_broken_off_is_done_on_the_way_back(tmp_path):
    first = Run(tmp_path)
    first.evaluating = lambda: os.kill(os.getpid(), signal.SIGINT)
    _, status = first.go()
    assert (status.step, status.evaluated) == (5, False)
    assert [row["kind"] for row in first.rows()] == ["train"]
    second = Run(tmp_path)
    second.go()
    assert second.callback.rows == [(5, True), (10, False), (15, False)]
    assert [row["kind"] for row in second.rows()] == ["train", "val"] * 3


def test_without_a_better_evaluation_it_gives_up_and_keeps_its_best(tmp_path):
    plan = replace(PLAN, epochs=9, patience=2)
    scores = {total(5): 0.4, total(10): 0.7, total(15): 0.6, total(20): 0.7}
    run = Run(tmp_path, plan=plan, scores=scores)
    _, status = run.go()
    assert (status.step, status.best_step) == (20, 10)  # as good is not better
    assert (tmp_path / "checkpoints" / "10").is_dir()
    again = Run(tmp_path, plan=plan, scores=scores)
    again.go()
    assert again.callback.steps == []
    longer = Run(tmp_path, plan=replace(plan, patience=3), scores=scores)
    _, status = longer.go()
    assert status.step == 25


def test_asked_to_end_it_saves_and_evaluates_where_it_is(tmp_path):
    run = Run(tmp_path)
    run.at = {7: lambda: run.stop.ask("enough")}
    _, status = run.go()
    assert (status.step, status.evaluated, run.stop.reason) == (7, True, "enough")
    assert run.callback.rows == [(5, True), (7, False)]
    assert (tmp_path / "checkpoints" / "7").is_dir()


def test_asked_during_an_evaluation_it_finishes_that_and_ends_there(tmp_path):
    run = Run(tmp_path)
    run.evaluating = lambda: run.stop.ask("enough")
    _, status = run.go()
    assert (status.step, status.evaluated, run.callback.rows) == (5, True, [(5, True)])


def test_a_signal_outranks_who_asked(tmp_path):
    run = Run(tmp_path)

    def both() -> None:
        run.stop.ask("enough")
        os.kill(os.getpid(), signal.SIGTERM)
        run.stop.ask("more than enough")

    run.at = {7: both}
    _, status = run.go()
    assert (status.step, status.evaluated, run.stop.received) == (7, False, signal.SIGTERM)


def test_batches_that_depend_on_evaluations_are_asked_for_anew(tmp_path):
    run = Run(tmp_path, plan=replace(PLAN, renews_batches=True))
    state, status = run.go()
    assert (run.begun, status.step, float(state.params["w"][0])) == ([0, 5, 10], 15, total(15))


def test_weights_to_be_kept_have_a_checkpoint(tmp_path):
    plan = replace(PLAN, val_every_epochs=0, checkpoint_every_steps=8, save_period=2)
    run = Run(tmp_path, plan=plan)
    run.go()
    assert [step for step, *_ in run.published] == [8, 10, 15]
    assert [plan.keeps_at(step) for step in (5, 8, 10, 15)] == [False, False, True, False]


def test_rows_tell_of_images_a_second_and_of_waiting(tmp_path):
    run = Run(tmp_path, at={3: lambda: time.sleep(0.2)})
    run.go()
    rows = [row for row in read_log(tmp_path / "metrics.jsonl") if row["kind"] == "train"]
    first, *_, last = rows
    assert 5 / first["images_per_second"] > 0.2  # seconds of its five images
    assert first["waiting"] * 5 / first["images_per_second"] == pytest.approx(0.2, abs=0.1)  # sleep is no clock
    assert 0 <= last["waiting"] < 1


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    Run(tmp_path).go()
    again = Run(tmp_path)
    _, status = again.go()
    assert status.step == 15
    assert again.callback.steps == []


def test_checkpoints_come_as_often_as_asked(tmp_path):
    plan = Plan(steps_per_epoch=5, epochs=2, val_every_epochs=2, checkpoint_every_steps=4, max_nonfinite=3)
    run = Run(tmp_path, plan=plan)
    run.go()
    assert [step for step, *_ in run.published] == [4, 8, 10, 10]


def test_a_loss_that_is_not_finite_is_told_of_and_its_batch_kept(tmp_path):
    run = Run(tmp_path)
    run.images[7] = 200
    state, _ = run.go()
    assert float(state.params["w"][0]) == total(15) - 7
    assert [row["step"] for row in run.rows() if row["kind"] == "nonfinite"] == [7]
    assert "step 7" in run.callback.notes[0]
    saved = np.load(tmp_path / "nonfinite" / "step-7.npz")
    assert (saved["image"] == 200).all()
    assert saved["fine.index"].shape == (1, 1, 1)
    means = [row["box"] for row in run.rows() if row["kind"] == "train"]
    assert means[1] == np.mean([total(step) - (7 if step > 7 else 0) for step in (6, 8, 9, 10)])


def test_of_several_processes_each_keeps_its_part_of_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "place", lambda: (1, 1))
    run = Run(tmp_path)
    run.images[7] = 200
    run.go()
    assert [file.name for file in (tmp_path / "nonfinite").iterdir()] == ["step-7-process-1.npz"]


def test_too_many_of_them_in_a_row_stop_the_run_and_name_the_last_checkpoint(tmp_path):
    run = Run(tmp_path)
    run.images.update({7: 200, 9: 200, 10: 200, 11: 200})
    with pytest.raises(InputError, match=r"3 losses in a row .*step 11.*checkpoints/10.*step-11.npz"):
        run.go()


def test_before_the_first_checkpoint_there_is_none_to_name(tmp_path):
    run = Run(tmp_path)
    run.images.update({1: 200, 2: 200, 3: 200})
    with pytest.raises(InputError, match="no checkpoint was written yet"):
        run.go()


def fail(error: Exception) -> Any:
    def failing(*_):
        raise error

    return failing


@pytest.mark.parametrize("error", [RuntimeError("no heap"), InputError("a.png: damaged"), OSError(28, "No space left")])
@pytest.mark.parametrize("part", ["evaluating", "publishing"])
def test_what_fails_after_a_step_is_reported_and_the_run_goes_on(tmp_path, part, error):
    run = Run(tmp_path)
    setattr(run, part, fail(error))
    state, status = run.go()
    assert (status.step, float(state.params["w"][0])) == (15, total(15))
    assert (tmp_path / "checkpoints" / "15").is_dir()
    assert len(run.callback.notes) == (3 if part == "evaluating" else 6)
    assert all(str(error) in note for note in run.callback.notes)
    assert ("Traceback" in run.callback.notes[0]) == (not isinstance(error, InputError))
    assert status.evaluated == (part == "publishing")
    again = Run(tmp_path)
    _, status = again.go()  # what is due is done, and no step
    assert (again.callback.steps, status.evaluated) == ([], True)


def test_an_evaluation_never_comes_before_its_step_is_saved(tmp_path):
    run = Run(tmp_path)
    saved = []
    run.evaluating = lambda: saved.append(
        {path.name.partition(".")[0] for path in (tmp_path / "checkpoints").iterdir()}
    )
    run.go()
    assert [step in there for step, there in zip(("5", "10", "15"), saved, strict=True)] == [True] * 3


def test_a_log_that_cannot_be_written_is_reported_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Log, "write", fail(InputError("metrics.jsonl: cannot be written")))
    run = Run(tmp_path)
    _, status = run.go()
    assert (status.step, status.evaluated) == (15, True)
    assert run.callback.notes == ["the log failed, the run goes on: metrics.jsonl: cannot be written"] * 6


def test_when_no_batch_comes_what_is_done_is_saved(tmp_path):
    run = Run(tmp_path, at={8: fail(InputError("b.png: damaged"))})
    with pytest.raises(InputError, match=r"b\.png"):
        run.go()
    again = Run(tmp_path)
    again.go()
    assert again.callback.steps == list(range(8, 16))
    assert [row["step"] for row in again.rows() if row["kind"] == "train"] == [5, 10, 15]


def test_signals_are_left_alone_off_the_main_thread(tmp_path):
    run = Run(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        _, status = pool.submit(run.go).result()
    assert status.step == 15


def test_the_second_interrupt_breaks_off():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(Stopped):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

import io
import math
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.viz.test_figures import result_of
from yolov7_jax.cli.console import Display, Pace, TrainingConsole, class_table, training_facts, work_facts
from yolov7_jax.config_file import read_config
from yolov7_jax.training.callbacks import RunInfo

RUN = RunInfo(Path("run"), read_config("debug", ["train.epochs=3", "train.batch_size=8"]), steps=96, step=0)
METRICS = {"box": 0.5, "obj": 0.25, "cls": 0.125, "total": 0.875, "overflow_boxes": 0.0}
CONTROL = "\x1b"


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def in_place_of_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_the_pace_is_that_of_the_last_half_minute_and_outlives_a_pause(clock: Clock) -> None:
    pace = Pace(clock)
    pace.mark(0)
    assert pace.per_second is None
    for clock.now, done in ((10, 100), (20, 120), (50, 180)):
        pace.mark(done)
    assert pace.per_second == 2.0  # from the mark at 20 s: what was quicker before is forgotten
    pace.pause()
    clock.now = 500
    pace.mark(181)
    assert pace.per_second == 2.0
    clock.now = 501
    pace.mark(185)
    assert pace.per_second == 4.0


def test_what_is_said_of_work() -> None:
    assert work_facts("images", 0, 9000, None, 0) == "images 0/9000"
    assert work_facts("images", 10, 9000, 2.5, 4) == "images 10/9000  2.5/s  0:59:56 left"
    assert work_facts("images", 1, 3, 0.0625, 16) == "images 1/3  0.062/s  0:00:32 left"
    assert work_facts("networks", 27, 27, 9, 3) == "networks 27/27  9.0/s  in 0:00:03"


def test_what_is_said_of_training() -> None:
    losses = "box 0.5000  obj 0.2500  cls 0.1250  total 0.8750"
    assert training_facts(RUN, 1, METRICS, None, 0.0) == f"epoch 1/3  it 1/32  {losses}"
    expected = f"epoch 2/3  it 32/32  {losses}  4.0 images/s  left: epoch 0:00:00, run 0:02:08"
    assert training_facts(RUN, 64, METRICS, 0.5, 0.25) == expected
    expected = f"epoch 3/3  it 1/32  {losses}  4.0 images/s  left: epoch 0:01:02, run 0:02:04"
    assert training_facts(RUN, 65, METRICS, 0.5, 0.25) == expected


@pytest.mark.parametrize("color", ["", "1"])
def test_without_a_terminal_there_is_a_plain_line_each_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, color: str
) -> None:
    if color:
        monkeypatch.setenv("FORCE_COLOR", color)
    display = Display(clock)
    for _ in display.progress(range(25), 25):
        clock.now += 1
    display.log("[bold]a note[/bold] of 1 thing")
    assert capsys.readouterr().err.splitlines() == [
        "images 10/25  1.0/s  0:00:15 left",
        "images 20/25  1.0/s  0:00:05 left",
        "[bold]a note[/bold] of 1 thing",
    ]


def test_a_terminal_has_one_bar_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_place_of_stderr(monkeypatch)
    display = Display()
    assert list(display.progress("abc", 3)) == ["a", "b", "c"]
    assert list(display.progress("de", 2, what="networks")) == ["d", "e"]
    text = terminal.getvalue()
    assert CONTROL in text
    assert text.index("images 3/3") < text.index("networks 2/2")
    assert "images" not in text.partition("networks")[2]  # the first is not drawn again


def test_training_in_a_log_file(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console = TrainingConsole(clock)
    with console:
        console.on_start(RUN._replace(step=32))
        for step in range(33, 43):
            clock.now += 4
            console.on_step(step, RUN.steps, {**METRICS, "overflow_boxes": float(step >= 41)})
        for _ in console.progress(range(4), 4):
            clock.now += 5
        console.on_evaluation({"epoch": 2, "AP": 0.25, "AP50": 0.5, "precision": 0.75, "recall": 0.375}, best=True)
    losses = "box 0.5000  obj 0.2500  cls 0.1250  total 0.8750  2.0 images/s"
    assert capsys.readouterr().err.splitlines() == [
        f"epoch 2/3  it 3/32  {losses}  left: epoch 0:01:56, run 0:04:04",
        f"epoch 2/3  it 6/32  {losses}  left: epoch 0:01:44, run 0:03:52",
        f"epoch 2/3  it 9/32  {losses}  left: epoch 0:01:32, run 0:03:40",
        "step 41: 1 boxes were left out of samples; raise data.max_boxes; metrics.jsonl counts them from here on",
        "images 2/4  0.2/s  0:00:10 left",
        "images 4/4  0.2/s  in 0:00:20",
        "epoch 2: AP 0.250  AP50 0.500  P 0.750  R 0.375  best so far",
    ]


def test_training_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_place_of_stderr(monkeypatch)
    with TrainingConsole() as console:
        console.on_start(RUN)
        console.log("compiling the training step")
        console.on_step(1, RUN.steps, METRICS)
        assert list(console.progress("ab", 2)) == ["a", "b"]
        console.on_step(2, RUN.steps, METRICS)
        console.on_start(RUN)  # the next run of an ablation
        console.on_step(1, RUN.steps, METRICS)
    text = terminal.getvalue()
    shown = ["compiling", "epoch 1/3  it 1/32", "images 2/2", "epoch 1/3  it 2/32"]
    places = [text.index(fact) for fact in shown]
    assert places == sorted(places)
    assert text.rindex("it 1/32") > places[-1]


def test_table_of_classes():
    console = Console(file=io.StringIO(), width=60)
    console.print(class_table(result_of([0.25, math.nan], ["[red]cat[/red]", "dog"])))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines == [
        ["class", "boxes", "AP50", "AP"],
        ["all", "4", "0.250", "0.250"],
        ["[red]cat[/red]", "4", "0.250", "0.250"],
        ["dog", "0", "-", "-"],
    ]

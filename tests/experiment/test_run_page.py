"""The page, table and log of a run, from what a run reports; no network is trained here."""

import math
import signal
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from tests.chromium import CHROMIUM, browser
from tests.viz.test_page import Page
from yolov7_jax.config import Config
from yolov7_jax.config_file import make_config
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.run_log import RunLog
from yolov7_jax.experiment.run_page import SHOWN_FIGURES, RunPage
from yolov7_jax.image import write_image
from yolov7_jax.training.callbacks import Callback, Callbacks, RunInfo, attempt
from yolov7_jax.training.log import Log, read_log
from yolov7_jax.training.results import results_csv

NASTY = "<script>alert('http://x.org')</script> & \"$x$\""


def config_of(**train: int) -> Config:
    settings = {"data": {"path": NASTY}, "train": {"epochs": 4, "batch_size": 8, **train}}
    return make_config(settings, where="test")


class Run:
    """What the loop does, without steps: rows, evaluations, texts."""

    def __init__(self, folder: Path, *others: Callback, step: int = 0, **train: int) -> None:
        self.folder = folder
        for number, name in enumerate([*SHOWN_FIGURES.values(), "other.png"]):
            if name != "curves.png":
                write_image(folder / "figures" / name, np.full((40, 60, 3), number, np.uint8))
        self.log = Log(folder)
        self.callbacks = Callbacks([RunLog(folder), *others, RunPage(folder)])
        self.callbacks.on_start(RunInfo(folder, config_of(**train), 40, step))

    def row(self, kind: str, step: int, **values: object) -> None:
        row = {"kind": kind, "step": step, "epoch": (step - 1) // 10 + 1, **values}
        self.log.write(row)
        self.callbacks.on_row(row)
        if kind == "val":
            self.callbacks.on_evaluation(row, best=True)

    def epoch(self, number: int) -> None:
        step = 10 * number
        self.callbacks.on_step(step, 40, {})
        times = {"seconds": 5.0, "images_per_second": 16.0, "waiting": 0.25}
        self.row("train", step, box=0.5, obj=0.25, cls=0.125, total=0.875, **{"lr/weight": 0.01}, **times)
        numbers = {"AP": number / 10, "AP50": number / 5, "precision": 0.6, "recall": 0.5, "f1": 0.54}
        by_class = {NASTY: number / 10, "none": None}
        self.row("val", step, **numbers, confidence=0.321, AP_of_class=by_class, seconds=3.0)

    def page(self) -> Page:
        return Page(self.folder / "index.html")


def facts(page: Page) -> dict[str, str]:
    return dict(zip(page.texts("dt"), page.texts("dd"), strict=True))


def needs_nothing_else(page: Page, folder: Path) -> None:
    """All that it shows lies beside it, and all text is text."""
    addresses = page.values("img", "src") + page.values("a", "href")
    for address in map(urlsplit, addresses):
        assert not address.scheme
        assert not address.netloc
        assert (folder / unquote(address.path)).is_file()
    assert {name for name, _, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "b"})
    assert "<script" not in page.source


def test_while_it_trains(tmp_path: Path):
    run = Run(tmp_path)
    assert facts(run.page()) == {"epoch": "0 of 4", "iteration": "0 of 40"}
    run.epoch(1)
    run.epoch(2)
    page = run.page()
    needs_nothing_else(page, tmp_path)
    assert page.texts("title") == page.texts("h1") == [tmp_path.name]
    assert page.texts("strong")[0].startswith("training (as of 20")
    assert facts(page) == {
        "epoch": "2 of 4",
        "iteration": "20 of 40",
        "best fitness, epoch 2": "0.220",  # 0.9 · 0.2 + 0.1 · 0.4
        "AP": "0.200",
        "AP50": "0.400",
        "precision": "0.600",
        "recall": "0.500",
        "F1": "0.540",
        "at confidence": "0.321",
        "images a second": "16.0",
        "waiting for data": "25 %",
        "time left": "0:00:16",  # 20 steps of 8 images at 16 a second, and two evaluations of three seconds
    }
    assert page.values("img", "alt") == list(SHOWN_FIGURES)
    assert {urlsplit(source).query for source in page.values("img", "src")} == {"version=20"}
    assert page.texts("tr")[:3] == ["classAP", f"{NASTY}0.200", "none-"]
    assert [a["content"] for _, a, _ in page.elements if a.get("http-equiv") == "refresh"] == ["60"]
    settings = [row for row in page.texts("tr") if row.startswith(("data.path", "train.epochs", "optim.lr0"))]
    assert settings == [f"data.path{NASTY}", "train.epochs4", f"data.path{NASTY}", "optim.lr00.01", "train.epochs4"]
    assert "Classes after epoch 2" in page.texts("h2")
    assert (tmp_path / "results.csv").read_text() == results_csv(read_log(tmp_path / "metrics.jsonl"))


def test_after_its_end(tmp_path: Path):
    run = Run(tmp_path)
    run.epoch(1)
    run.callbacks.log("ended: no evaluation was better")
    run.callbacks.on_end(10, finished=False)
    page = run.page()
    assert page.texts("strong")[0].startswith("ended: no evaluation was better (as of ")
    assert "time left" not in facts(page)
    assert "refresh" not in page.source
    run.callbacks.on_end(40, finished=True)
    assert run.page().texts("strong")[0].startswith("finished (as of ")
    assert "good" in run.page().source


@pytest.mark.parametrize("error", [InputError(f"{NASTY}: cannot be used"), RuntimeError(NASTY), KeyboardInterrupt()])
def test_after_a_fault(tmp_path: Path, error: BaseException):
    run = Run(tmp_path)
    run.epoch(1)
    run.callbacks.on_fault(error)
    page = run.page()
    needs_nothing_else(page, tmp_path)
    assert page.texts("strong")[0].startswith(f"broken off by an error ({type(error).__name__})")
    fault, told = page.texts("pre")  # the box at the top, and the log
    assert str(error) in fault
    assert type(error).__name__ in fault or isinstance(error, InputError)
    assert str(error) in told
    assert "refresh" not in page.source
    assert "broken off" in (tmp_path / "run.log").read_text()


def test_what_went_wrong_is_said(tmp_path: Path, caplog):
    class Broken(Callback):
        def on_evaluation(self, row, *, best):
            raise RuntimeError(NASTY)

    def fails() -> None:
        raise InputError(f"{NASTY}: no room")

    run = Run(tmp_path, Broken())
    run.row("nonfinite", 3, batch="step-3.npz")
    run.row("nonfinite", 7, batch="step-7.npz")
    attempt("writing the weights", run.callbacks, fails)
    run.epoch(1)
    page = run.page()
    needs_nothing_else(page, tmp_path)
    assert page.texts("strong")[1] == "What went wrong"
    wrong = page.texts("pre")[0]
    assert f"writing the weights failed, the run goes on: {NASTY}: no room" in wrong
    assert "2 iterations skipped, as loss or gradient was not finite; the last: 3, 7" in wrong
    assert "failed in on_evaluation" in wrong
    assert wrong.count(f"RuntimeError: {NASTY}") == 1


def test_a_resumed_run_goes_on_with_what_it_knew(tmp_path: Path):
    first = Run(tmp_path)
    first.callbacks.log("first")
    first.epoch(1)
    first.callbacks.log("stopped by SIGTERM")
    first.callbacks.on_end(10, finished=False)
    (tmp_path / "results.csv").write_text("damaged")
    second = Run(tmp_path, step=10)
    assert facts(second.page())["AP"] == "0.100"
    assert second.page().texts("strong")[0].startswith("training")
    second.epoch(2)
    lines = [line[21:] for line in (tmp_path / "run.log").read_text().splitlines()]
    ends = ["stopped by SIGTERM", "left after 10 iterations"]
    assert lines == ["begins, 40 iterations", "first", *ends, "resumed after 10 iterations"]
    assert (tmp_path / "results.csv").read_text().count("\n") == 3


def test_the_log_has_what_is_told_before_the_run_begins_and_writes_nothing_until_then(tmp_path: Path):
    log = RunLog(tmp_path / "run")
    log.log("anchors fit\nwell")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    log.on_start(RunInfo(tmp_path / "run", config_of(), 40, 0))
    log.on_end(40, finished=True)
    lines = [line[21:] for line in (tmp_path / "run" / "run.log").read_text().splitlines()]
    assert lines == ["anchors fit", "", "begins, 40 iterations", "finished after 40 iterations"]


def test_lines_that_cannot_be_written_come_with_the_next(tmp_path: Path, caplog):
    run = Run(tmp_path)
    (tmp_path / "run.log").rename(tmp_path / "away")
    (tmp_path / "run.log").mkdir()
    run.callbacks.log("one")
    (tmp_path / "run.log").rmdir()
    run.callbacks.log("two")
    text = (tmp_path / "run.log").read_text()
    assert text.index("one") < text.index("two")
    run.callbacks.on_end(0, finished=False)


def test_a_page_without_evaluations_and_numbers_that_are_missing(tmp_path: Path):
    run = Run(tmp_path, val_every_epochs=0)
    run.row("train", 10, box=math.nan)
    run.row("val", 10, AP=None, AP50=None, seconds=1.0)
    run.row("other", 10)
    page = run.page()
    assert facts(page)["AP"] == "-"
    assert "What went wrong" not in page.source


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open pages with; apt-get install chromium")
@pytest.mark.parametrize("state", ["training", "stopped", "fault"])
def test_in_chromium(tmp_path: Path, state: str):
    run = Run(tmp_path / "run")
    run.epoch(1)
    if state == "stopped":
        run.callbacks.log(f"stopped by {signal.SIGINT.name}")
        run.callbacks.on_end(10, finished=False)
    elif state == "fault":
        run.callbacks.on_fault(RuntimeError(NASTY))
    with browser(tmp_path / "profile") as page:
        page.open((run.folder / "index.html").absolute().as_uri())
        assert page.value("document.title") == "run"
        words = page.value("document.body.innerText")
        assert {"training": "training (as", "stopped": "stopped by SIGINT", "fault": NASTY}[state] in words
        assert "0.321" in words
        images = (
            "Promise.all([...document.images].map(i => (i.loading = 'eager', i.decode().then(() => i.naturalWidth))))"
        )
        widths = page.value(images)
        assert len(widths) == len(SHOWN_FIGURES)
        assert min(widths) > 0
        for width in (1200, 400):
            page.resize(width)
            assert page.value("document.documentElement.scrollWidth") <= width
        asked = page.asked_for()
        assert len(asked) >= 1 + len(SHOWN_FIGURES)
        assert all(address.startswith(run.folder.absolute().as_uri()) for address in asked)
        assert not page.complaints()

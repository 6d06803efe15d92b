"""The command line before any command: settings between options, the logs of libraries, large memory pages."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from yolov7_jax.cli import main as entry
from yolov7_jax.cli.main import environment_with_large_pages, main
from yolov7_jax.experiment import TrainingRun

DONE = TrainingRun(Path("run"), 4, None, None, "fitness", True, None)
OFF = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What `train` and `resume` are called with, in place of doing it."""
    calls: list[tuple[Any, ...]] = []

    def train(config: Any, folder: Path, **_: Any) -> TrainingRun:
        calls.append((config.train.epochs, config.train.seed, str(folder)))
        return DONE

    def resume(folder: Path, overrides: list[str], **_: Any) -> TrainingRun:
        calls.append((str(folder), overrides))
        return DONE

    monkeypatch.setattr("yolov7_jax.experiment.train", train)
    monkeypatch.setattr("yolov7_jax.experiment.resume", resume)
    monkeypatch.setenv("YOLOV7_JAX_COMPILATION_CACHE", "off")
    return calls


@pytest.mark.parametrize(
    "arguments",
    [
        "debug train.epochs=4 train.seed=7 --output ref",
        "debug --output ref train.epochs=4 train.seed=7",
        "debug train.epochs=4 --output ref train.seed=7",
        "--output ref debug train.epochs=4 train.seed=7",
    ],
)
def test_settings_stand_before_between_and_after_options(called: list[tuple[Any, ...]], arguments: str) -> None:
    assert main(["train", *arguments.split()]) == 0
    assert called == [(4, 7, "ref")]


@pytest.mark.parametrize(
    "arguments",
    [
        "--resume run train.epochs=4 train.val_every_epochs=2",
        "train.epochs=4 --resume run train.val_every_epochs=2",
        "train.epochs=4 train.val_every_epochs=2 --resume run",
    ],
)
def test_a_run_is_resumed_with_settings_before_and_after(called: list[tuple[Any, ...]], arguments: str) -> None:
    assert main(["train", *arguments.split()]) == 0
    assert called == [("run", ["train.epochs=4", "train.val_every_epochs=2"])]


@pytest.mark.parametrize("arguments", ["debug train.batch_size=-2", "debug --output ref train.batch_size=-2"])
def test_a_wrong_setting_is_named_as_it_was_given(
    called: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    assert main(["train", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("yolov7-jax: train.batch_size=-2: ")
    assert ".yaml" not in error
    assert not called


def test_what_libraries_log_is_kept_out_of_commands(
    called: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["train", "debug"]) == 0
    for name in ("absl", "orbax.checkpoint", "yolov7_jax"):
        logging.getLogger(name).error("from %s", name)
    assert capsys.readouterr().err == ""
    assert [record.name for record in caplog.records] == ["yolov7_jax"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": ""}, "glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
    ],
)
@pytest.mark.parametrize("modes", ["[always] madvise never\n", "always [madvise] never\n"])
def test_large_pages_are_asked_for(modes: str, given: dict[str, str], expected: str) -> None:
    environment = environment_with_large_pages("linux", modes, {"HOME": "/home", **given})
    assert environment == {"HOME": "/home", "GLIBC_TUNABLES": expected}
    assert environment_with_large_pages("linux", modes, environment) is None  # it does not begin anew for ever


@pytest.mark.parametrize(
    ("platform", "modes", "given"),
    [
        ("darwin", "always [madvise] never", {}),
        ("linux", "always madvise [never]", {}),
        ("linux", "", {}),
        ("linux", "always [madvise] never", OFF),
    ],
)
def test_large_pages_are_not_asked_for(platform: str, modes: str, given: dict[str, str]) -> None:
    assert environment_with_large_pages(platform, modes, given) is None


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The command lines that processes are begun anew with, where Linux has large pages."""
    lines: list[list[str]] = []
    modes = tmp_path / "enabled"
    modes.write_text("always [madvise] never\n")
    monkeypatch.setattr(entry, "_PAGES", modes)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "execve", lambda _, line, __: lines.append(line))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "yolov7_jax", "train", "debug"])
    return lines


def test_commands_that_train_begin_anew(
    begun: list[list[str]],
    called: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["yolov7-jax", "train", "debug"])
    assert main() == 0
    assert begun == [[sys.executable, "-m", "yolov7_jax", "train", "debug"]]
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=0" in capsys.readouterr().err
    assert main(["train", "debug"]) == 0  # from Python
    monkeypatch.setattr(sys, "argv", ["yolov7-jax", "train", "debug", "--settings"])
    assert main() == 0
    monkeypatch.setattr(sys, "argv", ["yolov7-jax", "summary"])
    assert main() == 2
    assert len(begun) == 1
    assert len(called) == 2


def test_a_process_that_begins_anew_has_the_status_of_its_command(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    command = [sys.executable, "-m", "yolov7_jax", "train", "debug", "--resume", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr.count("begins anew") <= 1  # none where there are no large pages
    assert done.stderr.endswith(
        "yolov7-jax: give a configuration, or --resume with the folder of a run, and not both\n"
    )

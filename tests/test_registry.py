"""Parts by name: registering, looking up, importing modules of users."""

import subprocess
import sys
from pathlib import Path

import pytest

from yolov7_jax import registry
from yolov7_jax.cli.main import main
from yolov7_jax.errors import InputError


def test_a_name_with_arguments_is_the_function_with_them_bound() -> None:
    table = {"ota": lambda base, **options: (base, options)}
    assert registry.look_up(table, "ota", where="x")(1) == (1, {})
    assert registry.look_up(table, "ota(top_k=5, name='a b', sizes=(1, 2))", where="x")(1) == (
        1,
        {"top_k": 5, "name": "a b", "sizes": (1, 2)},
    )


@pytest.mark.parametrize("text", ["ota(5)", "ota(top_k=5", "a.b()", "ota(x=__import__('os'))", "ota()()", "ota(**{})"])
def test_what_is_no_name_with_literals_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"loss\.assigner: .* cannot be read"):
        registry.look_up({"ota": print}, text, where="loss.assigner")


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'oat' is not known \(did you mean 'ota'\?\); expected one of ota, simple"):
        registry.look_up({"ota": print, "simple": print}, "oat", where="loss.assigner")


def test_names_are_identifiers() -> None:
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        registry.register_assigner("my assigner")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "yolov7_jax", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_a_module_is_imported_before_any_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('imported')\n")
    done = run(tmp_path, "--import", "mine", "train", "--settings")
    assert done.returncode == 0
    assert done.stdout.startswith("imported\n")


def test_a_module_that_is_not_there_or_fails_is_said(tmp_path: Path) -> None:
    done = run(tmp_path, "--import", "absent", "train", "--settings")
    assert done.returncode == 2
    assert done.stderr.startswith("yolov7-jax: --import absent: there is no module 'absent'")
    assert "Traceback" not in done.stderr
    (tmp_path / "broken.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    done = run(tmp_path, "--import", "broken", "train", "--settings")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[:2] == [
        "yolov7-jax: --import broken: the module failed; correct it",
        "Traceback (most recent call last):",
    ]
    assert "broken.py" in lines[2]  # not a frame of ours
    assert "yolov7_jax" not in "".join(lines[1:])
    (tmp_path / "needs.py").write_text("import something_else\n")
    assert "No module named 'something_else'" in run(tmp_path, "--import", "needs", "train", "--settings").stderr


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("loss.assigner=oat", "loss.assigner: 'oat' is not known (did you mean 'ota'?"),
        ("loss.name=detect", "loss.name: 'detect' is not known (did you mean 'detection'?"),
        ("optim.name=sgdd", "optim.name: 'sgdd' is not known (did you mean 'sgd'?"),
    ],
)
def test_unknown_parts_are_said_before_anything_is_read(
    setting: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "debug", "data.path=absent.yaml", setting, "--output", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_may_stand_after_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "debug", "--output", str(tmp_path), "train.epochs=7", "--settings", "loss.top_k=3"]) == 0
    lines = capsys.readouterr().out
    assert "\ntrain.epochs=7" in lines
    assert "\nloss.top_k=3 " in lines
    with pytest.raises(SystemExit):
        main(["train", "debug", "--settings", "--nonsense"])
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err

import subprocess
import sys
from pathlib import Path

import pytest

import yolov7_jax
from tests.small_networks import noise, small_weights
from yolov7_jax.compilation_cache import VARIABLE, enable_compilation_cache
from yolov7_jax.convert.weights_file import save
from yolov7_jax.image import write_image


def imported_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    assert "Detector" in yolov7_jax.__all__
    for name in yolov7_jax.__all__:
        assert getattr(yolov7_jax, name).__doc__, name
    assert callable(yolov7_jax.reparam)


def test_public_names_are_no_modules_whatever_is_imported_before() -> None:
    program = (
        "import yolov7_jax.training.loss, yolov7_jax.experiment\n"
        "import yolov7_jax as yolo\n"
        "from yolov7_jax import train\n"
        "from yolov7_jax.training import step\n"
        "print(train is yolo.train, train.__module__, step.__name__)\n"
        "print([name for name in yolo.__all__ if type(getattr(yolo, name)) is type(step)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True yolov7_jax.experiment.training yolov7_jax.training.step", "[]"]


@pytest.mark.parametrize("module", ["yolov7_jax.image", "yolov7_jax.datasets", "yolov7_jax.graph.zoo"])
def test_worker_processes_do_not_import_jax(module: str) -> None:
    assert not {"jax", "flax", "matplotlib"} & imported_by(f"import {module}")


def test_help_imports_nothing_heavy() -> None:
    statement = "from yolov7_jax.cli.main import main\ntry: main(['detect', '--help'])\nexcept SystemExit: pass"
    assert not {"jax", "numpy", "cv2", "rich"} & imported_by(statement)


def test_compilation_cache_can_be_moved_and_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys, jax\n"
        "from yolov7_jax.compilation_cache import enable_compilation_cache\n"
        "print(enable_compilation_cache())\n"
        "jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((64, 64))).block_until_ready()"
    )

    def run(**environment: str) -> str:
        for key in ("YOLOV7_JAX_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR"):
            monkeypatch.delenv(key, raising=False)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run(XDG_CACHE_HOME=str(tmp_path / "home")) == str(tmp_path / "home/yolov7_jax/xla")
    assert run(YOLOV7_JAX_COMPILATION_CACHE=str(tmp_path / "here")) == str(tmp_path / "here")
    assert run(YOLOV7_JAX_COMPILATION_CACHE="off") == "None"
    assert run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs")) == str(tmp_path / "theirs")
    (tmp_path / "file").touch()
    assert run(YOLOV7_JAX_COMPILATION_CACHE=str(tmp_path / "file/folder")) == "None"


def test_compiled_programs_are_kept(tmp_path: Path) -> None:
    program = (
        "import jax, time\n"
        "from yolov7_jax.compilation_cache import enable_compilation_cache\n"
        f"enable_compilation_cache({str(tmp_path)!r})\n"
        "import yolov7_jax as yolo\n"
        "graph = yolo.zoo('yolov5n', num_classes=1)\n"
        "variables = yolo.init(graph, jax.random.key(0))\n"
        "jax.jit(yolo.Network(graph).apply).lower(variables, jax.numpy.zeros((1, 64, 64, 3))).compile()"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert list(tmp_path.iterdir())


def test_a_cache_folder_is_returned_by_the_function() -> None:
    assert enable_compilation_cache("off") is None


def test_a_command_that_is_to_keep_no_programs_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "net.safetensors", small_weights())
    write_image(tmp_path / "a.png", noise(64, 64))
    for key in (VARIABLE, "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-m", "yolov7_jax"]
    detect = ["detect", "net.safetensors", "a.png"]
    kept = []
    for options in (["--no-compilation-cache"], []):
        subprocess.run([*command, *options, *detect], cwd=tmp_path, capture_output=True, check=True)
        kept.append((tmp_path / "home" / "yolov7_jax" / "xla").exists())
    assert kept == [False, True]

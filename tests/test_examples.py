"""Each example runs by itself, in a folder elsewhere, on the package as a wheel installs it."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests import quickly
from yolov7_jax.data.transforms import named_transforms, transformed
from yolov7_jax.ops.polygons import as_polygons
from yolov7_jax.types import Sample

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples" / "serve.py"})  # see test_serving.py

FUSED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""With the compiler's fusions, for what compares the weights of trainings: sums lose more digits without them."""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the project's wheel."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(ROOT)], capture_output=True, text=True, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs_elsewhere(example: Path, installed: Path, tmp_path: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 80
    for file in (example, ROOT / "examples" / "small_network.yaml"):
        shutil.copy(file, tmp_path)
    check = (
        "import runpy, yolov7_jax\n"
        f"assert yolov7_jax.__file__.startswith({str(installed)!r}), yolov7_jax.__file__\n"
        f"runpy.run_path({example.name!r}, run_name='__main__')"
    )
    flags = FUSED if example.stem == "seeds" else quickly.FLAGS
    environment = {**os.environ, "PYTHONPATH": str(installed), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_commands_know_what_modules_register(installed: Path, tmp_path: Path) -> None:
    settings = {
        "task_aligned": "loss.assigner=task_aligned(top_k=9)",
        "wise_iou": "loss.name=wise_iou",
        "wave_transform": 'augment.transforms=["wave(most=6, length=50)"]',
    }
    for module in settings:
        shutil.copy(ROOT / "examples" / f"{module}.py", tmp_path)
    imports = [word for module in settings for word in ("--import", module)]
    command = [sys.executable, "-m", "yolov7_jax", *imports, "train", "debug", *settings.values()]
    environment = {**os.environ, "PYTHONPATH": str(installed), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert "data.path is not set" in done.stderr  # the names were taken, and what comes next is missing


@pytest.mark.parametrize("with_polygon", [False, True])
def test_the_transform_of_the_example_moves_boxes_with_their_objects(with_polygon: bool) -> None:
    """A white rectangle on black: its new box is that of the pixels that are white afterwards."""
    runpy.run_path(str(ROOT / "examples" / "wave_transform.py"))
    x0, y0, x1, y1 = 40, 30, 70, 62
    edge = np.linspace((x0, y0), (x0, y1), 65), np.linspace((x1, y1), (x1, y0), 65)
    boxes, polygons = np.array([(x0, y0, x1, y1)], np.float32), as_polygons([[np.concatenate(edge)]])
    for seed in range(20):
        image = np.zeros((96, 128, 3), np.uint8)
        image[y0:y1, x0:x1] = 255
        sample = Sample(image, boxes, np.zeros(1, np.int32))
        sample = sample._replace(polygons=polygons) if with_polygon else sample
        waved = transformed(np.random.default_rng(seed), sample, named_transforms(["wave(most=9)"]), num_classes=1)
        rows, columns = np.nonzero(waved.image[..., 0] > 127)
        expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(waved.boxes_xyxy_px, [expected], atol=0.7)  # pixels are white from half white on
    assert waved.boxes_xyxy_px[0, 0] != x0

"""A run that is killed again and again ends as one that is left alone."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from tests.experiment.small_run import write_data
from tests.experiment.test_training import stored_arrays
from yolov7_jax.training.log import TIMES, read_log

KILLS = int(os.environ.get("YOLOV7_JAX_KILLS", "2"))
STEPS = 24


def start(home: Path, cache: Path) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("small_run.py")
    settings = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": ""}
    settings |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}
    return subprocess.Popen(
        [sys.executable, str(script), str(home)],
        env={**os.environ, **settings, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(home: Path, cache: Path) -> None:
    run = start(home, cache)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0
    assert out.endswith("done\n")


def kill_somewhere(home: Path, cache: Path, draw: random.Random) -> int:
    """Kills a run some steps on and a moment later; returns the last step it told of."""
    run = start(home, cache)
    assert run.stdout is not None
    wanted, last = draw.randint(1, 8), 0
    for line in run.stdout:
        if line.startswith("step"):
            last, wanted = int(line.split()[1]), wanted - 1
        if wanted == 0 or line == "done\n":
            break
    time.sleep(draw.uniform(0, 0.2))  # into writing, evaluating or the next step
    run.kill()
    run.communicate()
    return last


def outcome(home: Path) -> tuple[dict[str, str], list[dict[str, object]]]:
    """The SHA-256 of what has no times in it, and the log without them."""
    rows = read_log(home / "run" / "metrics.jsonl")
    for row in rows:
        for key in TIMES:
            row.pop(key, None)
    names = ("weights.safetensors", "best.safetensors", "figures/batch-1.png", "figures/predictions.png")
    return {name: hashlib.sha256((home / "run" / name).read_bytes()).hexdigest() for name in names}, rows


def arrays(home: Path) -> dict[str, bytes]:
    """The arrays of the last checkpoint, by name, as bytes."""
    tree = stored_arrays(home / "run", STEPS)
    return {keystr(path): np.asarray(leaf).tobytes() for path, leaf in tree_leaves_with_path(tree)}


def test_killed_at_random_moments_it_ends_with_files_of_the_same_bytes(tmp_path):
    cache = tmp_path / "cache"
    home, whole = tmp_path / "home", tmp_path / "whole"
    home.mkdir()
    write_data(home)
    finish(home, cache)
    shutil.copytree(home, whole)
    shutil.rmtree(home / "run")  # the same place again, which the settings in the weights name
    draw = random.Random(0)
    reached = [kill_somewhere(home, cache, draw) for _ in range(KILLS)]
    assert len(set(reached)) > KILLS // 2, reached  # they were different moments
    finish(home, cache)

    expected, found = outcome(whole), outcome(home)
    assert found == expected
    assert arrays(home) == arrays(whole)
    shutil.rmtree(tmp_path)

"""Strict settings for every test, and the way to the reference recordings."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

from tests import quickly

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=4 {quickly.FLAGS}")

import jax
import pytest
from hypothesis import settings

from yolov7_jax.compilation_cache import VARIABLE, enable_compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Tracing makes many objects that stay: looking through them again and again took a twentieth of the time.
gc.set_threshold(50_000, 20, 20)

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("YOLOV7_JAX_SHARED") or ROOT.parent / "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason="the reference recordings are not here: set YOLOV7_JAX_SHARED to their folder")
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _label_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave nothing in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLOV7_JAX_LABEL_CACHE", str(tmp_path_factory.mktemp("labels")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, processes that run them and commands that they start compile a program once between them."""
    home = tmp_path_factory.getbasetemp()
    folder = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "xla"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        enable_compilation_cache()
        yield


@pytest.fixture(autouse=True)
def _choice_of_cache(_compiled_programs: None) -> Iterator[None]:
    """What a test chooses holds for it alone."""
    before = os.environ[VARIABLE]
    yield
    os.environ[VARIABLE] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference recordings; tests that use it carry the marker `shared`."""
    return SHARED

"""Keeps compiled programs between runs, so that a second start is quick."""

from __future__ import annotations

import os
from pathlib import Path

import jax

VARIABLE = "YOLOV7_JAX_COMPILATION_CACHE"
"""Environment variable: "off", or the folder to keep compiled programs in."""

_WORTH_KEEPING_S = 0.2  # compilations shorter than this are not written


def enable_compilation_cache(folder: Path | str | None = None) -> Path | None:
    """Makes JAX keep compiled programs in a folder; commands call this at their start.

    folder: else the value of `YOLOV7_JAX_COMPILATION_CACHE`, else yolov7_jax in the user's cache folder. A folder
    that JAX was already given (`JAX_COMPILATION_CACHE_DIR`) stays.

    Returns:
        The folder in use, or None where it is switched off or cannot be written.
    """
    setting = str(folder or os.environ.get(VARIABLE, ""))
    if setting.lower() in ("off", "0", "false", "no"):
        return None
    given = jax.config.values["jax_compilation_cache_dir"]
    if given and not setting:
        return Path(given)
    chosen = Path(setting).expanduser() if setting else _user_cache() / "yolov7_jax" / "xla"
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_S)
    return chosen


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

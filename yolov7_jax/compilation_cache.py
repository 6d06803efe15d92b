"""Compiled programs: kept between runs, so that a second start is quick; and what to say while one is made."""

from __future__ import annotations

import os
from pathlib import Path

import jax

VARIABLE = "YOLOV7_JAX_COMPILATION_CACHE"
"""Environment variable: "off", or the folder to keep compiled programs in."""

_WORTH_KEEPING_S = 0.2  # compilations shorter than this are not written


def enable_compilation_cache(folder: Path | str | None = None) -> Path | None:
    """Makes JAX keep compiled programs in a folder; commands call this at their start, and `Detector.load` does.

    folder: or "off", for all later calls of this process, and those that it starts, too; else the value of
    `YOLOV7_JAX_COMPILATION_CACHE`, else yolov7_jax in the user's cache folder. A folder that JAX was already given
    (`JAX_COMPILATION_CACHE_DIR`) stays.

    Returns:
        The folder in use, or None where it is switched off or cannot be written.
    """
    if folder:
        os.environ[VARIABLE] = str(folder)
    setting = os.environ.get(VARIABLE, "")
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


def compiling(what: str, image_size: tuple[int, int]) -> str:
    """What to tell people who are about to wait for a program for images of a size (h, w)."""
    kept = ", kept for later runs" if jax.config.values["jax_compilation_cache_dir"] else ""
    height, width = image_size
    return f"compiling {what} for images of {width} × {height} pixels: seconds to minutes the first time{kept}"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

"""Files and folders: written whole or not at all, never over others; JSON, and the door to YAML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any

from yolov7_jax.errors import DataError, InputError


def cache_folder(name: str, variable: str) -> Path:
    """What an environment variable names, else a folder of this name in yolov7_jax in the user's cache folder."""
    if chosen := os.environ.get(variable):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolov7_jax" / name


def write_atomically(file: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8; makes its folder. Readers see the old content or the new, never a part of it.

    Raises:
        InputError: it cannot be written; names it and says why.
    """
    writer = f"{os.getpid()}.{get_ident()}"  # several processes and threads may write the same file
    part = file.with_name(f"{file.name}.{writer}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); make room, or choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def append_whole(file: Path, content: bytes) -> None:
    """Adds to the end of a file, or leaves it as it is; makes the file where it is not there.

    Raises:
        InputError: it cannot be written now; names it and says why.
    """
    there = file.stat().st_size if file.exists() else 0
    try:
        with file.open("ab") as stream:
            stream.write(content)
    except OSError as error:
        with suppress(OSError):
            os.truncate(file, there)  # what a full disk took of it
        raise InputError(
            f"{file}: cannot be written ({error.strerror}); its rows are kept and written with the next"
        ) from error


def write_json(file: Path, content: Any) -> None:
    """Writes values as JSON that people can read, a list with a row on each line; makes the folder.

    In a mapping, numbers of numpy become numbers, what JSON does not have text, and numbers that are not finite null.
    """
    to_text = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    is_list = isinstance(content, list)
    text = "[\n" + ",\n".join(map(to_text, content)) + "\n]" if is_list else to_text(_json_value(content), indent=2)
    write_atomically(file, text + "\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if hasattr(value, "item"):  # of numpy
        return _json_value(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def new_folder(folder: Path) -> Path:
    """A folder that was not there: the one named, or the first free of name-2, name-3 …; nothing is overwritten.

    Raises:
        DataError: it cannot be made, or is a file.
    """
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError as error:
            if number == 1 and not folder.is_dir():
                raise DataError(f"{folder}: is a file; name a folder that can be written to") from error
            number += 1
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{folder}: cannot be made ({reason}); name a folder that can be written to") from error


def read_yaml(path: Path | str) -> Any:
    """The content of a YAML file as plain Python values.

    Raises:
        InputError: the file is not there, is not text, or is not YAML; names the file and the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason}); expected a YAML file") from error
    import yaml  # slow to import, and help needs none

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{where}: {problem}; correct the line so that the file is valid YAML") from error


def yaml_text(content: Any) -> str:
    """Plain values as YAML, keys in their order."""
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)

"""The door to YAML: every file that people write by hand is read here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from yolov7_jax.errors import InputError


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
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{where}: {problem}; correct the line so that the file is valid YAML") from error

"""What all settings mean: the text that stands under each in `config`, beside a value."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Any

from yolov7_jax.config import Config


def settings_text(config: Config) -> str:
    """All settings of a configuration as lines `section.key=value  # meaning`."""
    return "\n".join(
        f"{f'{section}.{key}={value}':<32}{meaning}".rstrip() for section, key, value, meaning in _rows(config)
    )


def _rows(config: Config) -> Iterator[tuple[str, str, Any, str]]:
    for section in dataclasses.fields(config):
        settings = getattr(config, section.name)
        meanings = _meanings(type(settings))
        for field in dataclasses.fields(settings):
            meaning = meanings.get(field.name, "")
            value = getattr(settings, field.name)
            shown = json.dumps(value) if isinstance(value, tuple) else value  # as a list
            yield section.name, field.name, shown, f"# {meaning}" if meaning else ""


def _meanings(section: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = str(below.value.value)
    return found

"""Results for people and programs: a table for the console, a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolov7_jax.files import write_atomically
from yolov7_jax.types import CocoResult

if TYPE_CHECKING:
    from rich.table import Table


def class_table(result: CocoResult) -> Table:
    """Boxes, AP50 and AP of all classes and of each, for the console; a dash where a class has no boxes."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold")
    for heading in ("boxes", "AP50", "AP"):
        table.add_column(heading, justify="right")
    total = sum(row.boxes for row in result.per_class)
    table.add_row("all", str(total), _three(result.AP50), _three(result.AP), style="bold", end_section=True)
    for row in result.per_class:
        table.add_row(Text(row.name), str(row.boxes), _three(row.AP50), _three(row.AP))
    return table


def _three(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def metrics_json(result: CocoResult, *, speed: Mapping[str, float], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into metrics.json: the twelve numbers as fractions, each class, milliseconds a stage, settings used.

    Args:
        result: of the evaluation.
        speed: milliseconds an image, by stage.
        settings: what the evaluation was run with, by name.

    Returns:
        Values that JSON has; null where the ground truth has nothing to find.
    """
    content = {
        **result.numbers(),
        "per_class": [row._asdict() for row in result.per_class],
        "speed_ms": speed,
        "settings": settings,
    }
    return {key: _json_value(value) for key, value in content.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, np.generic):
        return _json_value(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def write_json(file: Path, content: Any) -> None:
    """Writes values as JSON that people can read, a list with a row on each line; makes the folder."""
    to_text = partial(json.dumps, ensure_ascii=False, allow_nan=False)
    is_list = isinstance(content, list)
    text = "[\n" + ",\n".join(map(to_text, content)) + "\n]" if is_list else to_text(content, indent=2)
    write_atomically(file, text + "\n")

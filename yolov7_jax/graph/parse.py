"""Reads a network as yolov5/yolov7 users write it: a YAML file, or the dict of one inside a checkpoint.

Rows are `[from, number, module, args]`; the last of args may be a mapping of arguments by name, such as
`{identity: false}` of RepConv. Texts in them are read as literals, never evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from math import ceil, inf
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from yolov7_jax.errors import GraphError
from yolov7_jax.files import read_yaml
from yolov7_jax.graph.builder import finish
from yolov7_jax.graph.kinds import kind_of
from yolov7_jax.graph.layers import activation_name, bind
from yolov7_jax.graph.spec import IMAGE, Anchors, Graph, Node, Value

_LARGEST_MULTIPLE = 100  # of depth or width; published networks stay below 2


def parse(source: Path | str | Mapping[str, Any], *, num_classes: int | None = None) -> Graph:
    """The graph of a yolov5/yolov7 model YAML (a path) or of the dict of one.

    num_classes replaces the file's `nc`.

    Raises:
        InputError: the file cannot be read. GraphError: something in it is wrong; names the file, the line and layer.
    """
    if isinstance(source, Mapping):
        return _parse_model(source, num_classes, "the model dict", {})
    content = read_yaml(source)
    if not isinstance(content, Mapping):
        raise GraphError(f"{source}: not a model description; expected the keys nc, anchors, backbone and head")
    return _parse_model(content, num_classes, str(source), _layer_lines(Path(source).read_text(encoding="utf-8")))


def _layer_lines(text: str) -> dict[int, int]:
    """The line on which each layer stands, by its number."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    parts = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    rows = [row for part in ("backbone", "head") if part in parts for row in parts[part].value]
    return {number: row.start_mark.line + 1 for number, row in enumerate(rows)}


def _parse_model(model: Mapping[str, Any], num_classes: int | None, where: str, lines: Mapping[int, int]) -> Graph:
    if missing := [key for key in ("anchors", "backbone", "head") if key not in model]:
        raise GraphError(f"{where}: the key {missing[0]!r} is missing; a model has nc, anchors, backbone and head")
    nodes: list[Node] = []
    try:
        classes = num_classes if num_classes is not None else _count(model, "nc", 80)
        channels = _count(model, "ch", 3)
        anchors = _anchors(model["anchors"])
        rows = [*_rows(model, "backbone"), *_rows(model, "head")]
        per_level = anchors if isinstance(anchors, int) else len(anchors[0])
        settings = _Settings(
            depth=_multiple(model, "depth_multiple"),
            width=_multiple(model, "width_multiple"),
            activation=activation_name(model.get("activation") or True),
            outputs=per_level * (5 + classes),
        )
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from error
    for number, row in enumerate(rows):
        try:
            nodes.append(_parse_row(row, number, settings))
        except GraphError as error:
            line = f", line {lines[number]}" if number in lines else ""
            raise GraphError(f"{where}{line}: layer {number}: {error}") from error
    try:
        return finish(nodes, anchors=anchors, num_classes=classes, channels=channels)
    except GraphError as error:
        line = next((f", line {at}" for n, at in lines.items() if str(error).startswith(f"layer {n} ")), "")
        raise GraphError(f"{where}{line}: {error}") from error


def _rows(model: Mapping[str, Any], part: str) -> Sequence[Any]:
    rows = model[part]
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise GraphError(f"{part!r} must be a list of layers, got {rows!r}")
    return rows


def _count(model: Mapping[str, Any], key: str, default: int) -> int:
    value = model.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise GraphError(f"{key} must be a whole number from 1, got {value!r}")
    return value


def _multiple(model: Mapping[str, Any], key: str) -> float:
    value = model.get(key, 1.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= _LARGEST_MULTIPLE:
        raise GraphError(f"{key} must be a number above 0 and up to {_LARGEST_MULTIPLE}, got {value!r}")
    return float(value)


def _anchors(value: Any) -> Anchors | int:
    """Anchors of a file: [L][A](w, h) from lists of w, h, w, h …, or the number of them in a level."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    try:
        levels = [[float(size) for size in level] for level in value]
        if levels and all(level and len(level) % 2 == 0 and all(0 < size < inf for size in level) for level in levels):
            return tuple(tuple(zip(level[::2], level[1::2], strict=True)) for level in levels)
    except (TypeError, ValueError):
        pass
    raise GraphError(f"anchors must be a list of w, h pairs in pixels for each level, or their number, got {value!r}")


class _Settings(NamedTuple):
    """Of a whole model. outputs: channels of a detect convolution, which the width does not scale."""

    depth: float
    width: float
    activation: str
    outputs: int


def _parse_row(row: Any, number: int, settings: _Settings) -> Node:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 4 or not isinstance(row[3], Sequence):
        raise GraphError(f"expected [from, number, module, [arguments]], got {row!r}")
    source, repeat, op, raw = row
    kind = kind_of(str(op))
    if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 1:
        raise GraphError(f"the number of repeats must be a whole number from 1, got {repeat!r}")
    repeat = max(round(repeat * settings.depth), 1) if repeat > 1 else 1
    args, named = ([], {}) if kind.head else _arguments(raw)
    if "channels" in kind.arguments and args:
        args[0] = _scaled(args[0], settings)
    if "repeats" in kind.arguments:
        args.insert(1, repeat)
        repeat = 1
    options = bind(op, args, named, activation=settings.activation)
    return Node(str(number), op, _sources(source, number), tuple(options.items()), repeat)


def _arguments(raw: Sequence[Any]) -> tuple[list[Value], dict[str, Value]]:
    """Arguments by position and, from a mapping at the end of a row, by name."""
    named = raw[-1] if raw and isinstance(raw[-1], Mapping) else {}
    by_position = raw[:-1] if named else raw
    return [_literal(value) for value in by_position], {str(key): _literal(value) for key, value in named.items()}


def _scaled(channels: Value, settings: _Settings) -> Value:
    if not isinstance(channels, int) or channels < 1 or channels == settings.outputs:
        return channels
    return ceil(channels * settings.width / 8) * 8


def _sources(source: Any, number: int) -> tuple[str, ...]:
    """Names of the layers a `from` entry means: negative counts back, the rest are absolute."""
    entries = source if isinstance(source, Sequence) and not isinstance(source, str) else [source]
    if not entries or any(not isinstance(entry, int) or isinstance(entry, bool) for entry in entries):
        raise GraphError(f"'from' must be a layer number or a list of them, got {source!r}")
    absolute = [number + entry if entry < 0 else entry for entry in entries]
    if bad := [entry for entry in absolute if entry < -1 or entry >= number]:
        raise GraphError(f"'from' names layer {bad[0]}, which does not stand before layer {number}")
    return tuple(IMAGE if entry == -1 else str(entry) for entry in absolute)


def _literal(value: Any) -> Value:
    """A value of a row: texts that are Python literals become them, lists become tuples."""
    if isinstance(value, list | tuple):
        return tuple(_literal(item) for item in value)
    if not isinstance(value, str):
        return value
    try:
        return _literal(ast.literal_eval(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value

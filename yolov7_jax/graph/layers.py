"""Checks layers against the table of kinds: binds their arguments, and finds the shapes that they give."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.kinds import REQUIRED, Check, Value, kind_of
from yolov7_jax.graph.shapes import Shape
from yolov7_jax.graph.spec import IMAGE, Node

ACTIVATIONS = ("SiLU", "LeakyReLU", "ReLU", "Hardswish", "Mish", "Sigmoid", "Identity")


def bind(
    op: str, positional: Sequence[Value] = (), named: Mapping[str, Value] | None = None, *, activation: str = "SiLU"
) -> dict[str, Value]:
    """All arguments of a layer kind by name: those given, checked, and the defaults of the others.

    activation stands in where a kind takes one and none is given, or just `True`.

    Raises:
        GraphError: an unknown kind or argument, too many or too few of them, or a wrong value.
    """
    kind = kind_of(op)
    table, by_position = kind.arguments, tuple(kind.positional)
    if len(positional) > len(by_position):
        raise GraphError(
            f"{op} takes at most {len(by_position)} arguments ({', '.join(by_position)}), got {positional}"
        )
    given = {**dict(zip(by_position, positional, strict=False)), **(named or {})}
    if unknown := sorted(set(given) - set(table)):
        raise GraphError(f"{op} has no argument {', '.join(unknown)}; expected {', '.join(table)}")
    missing = [key for key, default in table.items() if default is REQUIRED and key not in given]
    if missing:
        raise GraphError(f"{op} needs {', '.join(missing)}")
    if "activation" in table and given.get("activation", True) is True:
        given["activation"] = activation
    return {key: _checked(op, key, given[key]) if key in given else default for key, default in table.items()}


def _checked(op: str, key: str, value: Value) -> Value:
    if key == "kernel" and isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]  # a square as PyTorch also writes it
    check, expected = kind_of(op).checks.get(key) or CHECKS.get(key) or _ANYTHING
    if check(value):
        return activation_name(value) if key == "activation" or (key == "csp_activation" and value) else value
    raise GraphError(f"argument {key!r} of {op} must be {expected}, got {value!r}")


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


_ANYTHING: Check = (lambda _: True, "anything")

CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(
        ("channels", "kernel", "stride", "groups", "repeats", "factor", "gain"), (_whole(1), "a positive integer")
    ),
    "pool_stride": (lambda value: value is None or _whole(1)(value), "a positive integer, or None for the kernel"),
    "padding": (lambda value: value is None or _whole(0)(value), "an integer from 0 up, or None"),
    **dict.fromkeys(("dimension", "place"), (_whole(0), "an integer from 0 up")),
    "margins": (
        lambda value: isinstance(value, tuple) and len(value) == 4 and all(map(_whole(0), value)),
        "four integers from 0 up: left, right, top, bottom",
    ),
    "kernels": (
        lambda value: isinstance(value, tuple) and bool(value) and all(_whole(1)(k) and k % 2 for k in value),
        "a list of odd numbers",
    ),
    **dict.fromkeys(("shortcut", "identity", "reversed"), (lambda value: isinstance(value, bool), "True or False")),
    "expansion": (lambda value: isinstance(value, int | float) and 0 < value <= 4, "a number from 0 to 4"),
    "size": (lambda value: value is None, "None"),
    "mode": (lambda value: isinstance(value, str), "a text"),
    **dict.fromkeys(
        ("activation", "csp_activation"),
        (lambda value: isinstance(value, str | bool | None), "True, False or the text of an activation"),
    ),
}
"""What arguments of these names must be, whatever the kind; a kind may have its own checks."""


def activation_name(value: Value) -> str:
    """The canonical text of an activation: `True`, `nn.SiLU()`, `nn.LeakyReLU(0.1)`, `False`, `None` and the like.

    Raises:
        GraphError: the activation is not known.
    """
    if value is True:
        return "SiLU"
    if value in (False, None):
        return "Identity"
    match = re.fullmatch(r"(?:nn\.)?(\w+)(?:\(([^()]*)\))?", str(value).strip())
    if not match or match[1] not in ACTIVATIONS:
        raise GraphError(f"activation {value!r} is not known; expected one of {', '.join(ACTIVATIONS)}")
    name, arguments = match[1], match[2] or ""
    if name != "LeakyReLU":
        return name
    slope = re.match(r"\s*(?:negative_slope\s*=\s*)?([0-9.eE+-]+)", arguments)
    return f"LeakyReLU({float(ast.literal_eval(slope[1])) if slope else 0.01})"


def infer_shapes(nodes: Sequence[Node], channels: int) -> dict[str, Shape]:
    """The shape that every node gives, by name.

    Raises:
        GraphError: a node reads what does not stand before it, has the wrong number of inputs, inputs that do not
            fit together, or a name that is already taken; names the node.
    """
    shapes = {IMAGE: Shape(channels, Fraction(1))}
    for node in nodes:
        if node.name in shapes:
            raise GraphError(f"layer {node.name} ({node.op}): this name is already taken; names must be unique")
        if unknown := [name for name in node.src if name not in shapes]:
            raise GraphError(f"layer {node.name} ({node.op}) reads layer {unknown[0]}, which does not stand before it")
        shapes[node.name] = _shape(node, [shapes[name] for name in node.src])
    return shapes


def _shape(node: Node, inputs: list[Shape]) -> Shape:
    try:
        options = bind(node.op, named=node.options)
        for _ in range(node.repeat):
            inputs = [kind_of(node.op).shape(inputs, **options)]
    except GraphError as error:
        raise GraphError(f"layer {node.name} ({node.op}): {error}") from error
    return inputs[0]

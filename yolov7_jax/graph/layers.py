"""The layer kinds: the arguments each takes, in the order of the yolov5/yolov7 model YAML, and the shape it gives.

A kind is a function of the shapes of its inputs and of its arguments. Its signature is the table: positional
arguments are those of the YAML, `repeats` marks a kind that holds its own repeats, `activation` is that of its
convolutions. Names and meaning of all of them follow the public model files of YOLOv5 and YOLOv7.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.spec import IMAGE, Node, Value

ACTIVATIONS = ("SiLU", "LeakyReLU", "ReLU", "Hardswish", "Mish", "Sigmoid", "Identity")
DETECT_KINDS = ("Detect", "IDetect")


class Shape(NamedTuple):
    """Of a feature map: channels, and stride, the pixels of the image that one of its cells stands for."""

    channels: int
    stride: Fraction


def _conv(
    inputs: Sequence[Shape],
    channels: int,
    kernel: int = 1,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    activation: str = "SiLU",
) -> Shape:
    (x,) = inputs
    if x.channels % groups or channels % groups:
        raise GraphError(f"{groups} groups do not divide its {x.channels} input and {channels} output channels")
    return Shape(channels, x.stride * stride)


def _rep_conv(
    inputs: Sequence[Shape],
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    activation: str = "SiLU",
    *,
    identity: bool = True,
) -> Shape:
    if kernel != 3 or padding not in (None, 1):
        raise GraphError(f"RepConv has a 3x3 kernel with padding 1, got kernel {kernel} and padding {padding}")
    return _conv(inputs, channels, kernel, stride, padding, groups)


def _bottleneck(
    inputs: Sequence[Shape],
    channels: int,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    activation: str = "SiLU",
) -> Shape:
    (x,) = inputs
    return Shape(channels, x.stride)


def _c3(
    inputs: Sequence[Shape],
    channels: int,
    repeats: int = 1,
    shortcut: bool = True,
    groups: int = 1,
    expansion: float = 0.5,
    *,
    activation: str = "SiLU",
) -> Shape:
    (x,) = inputs
    return Shape(channels, x.stride)


def _sppf(inputs: Sequence[Shape], channels: int, kernel: int = 5, *, activation: str = "SiLU") -> Shape:
    (x,) = inputs
    return Shape(channels, x.stride)


def _sppcspc(
    inputs: Sequence[Shape],
    channels: int,
    repeats: int = 1,
    shortcut: bool = False,
    groups: int = 1,
    expansion: float = 0.5,
    kernels: tuple[int, ...] = (5, 9, 13),
    *,
    activation: str = "SiLU",
) -> Shape:
    (x,) = inputs
    return Shape(channels, x.stride)


def _max_pool(inputs: Sequence[Shape], kernel: int = 2) -> Shape:
    (x,) = inputs
    return Shape(x.channels, x.stride * kernel)


def _same_pool(inputs: Sequence[Shape], kernel: int = 3, stride: int = 1) -> Shape:
    (x,) = inputs
    if kernel % 2 == 0:
        raise GraphError(f"SP pads its kernel evenly on both sides, so that must be odd, got {kernel}")
    return Shape(x.channels, x.stride * stride)


def _upsample(inputs: Sequence[Shape], size: None = None, factor: int = 2, mode: str = "nearest") -> Shape:
    (x,) = inputs
    if size is not None or mode != "nearest":
        raise GraphError(f"only upsampling by a whole factor with mode 'nearest' is known, got {(size, factor, mode)}")
    return Shape(x.channels, x.stride / factor)


def _concat(inputs: Sequence[Shape], dimension: int = 1) -> Shape:
    if dimension != 1:
        raise GraphError(f"Concat joins channels (dimension 1), got dimension {dimension}")
    if len({x.stride for x in inputs}) != 1:
        raise GraphError(f"its inputs have strides {', '.join(str(x.stride) for x in inputs)}; expected one stride")
    return Shape(sum(x.channels for x in inputs), inputs[0].stride)


def _detect(inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


KINDS: Mapping[str, Callable[..., Shape]] = {
    "Conv": _conv,
    "RepConv": _rep_conv,
    "Bottleneck": _bottleneck,
    "C3": _c3,
    "SPPF": _sppf,
    "SPPCSPC": _sppcspc,
    "MP": _max_pool,
    "SP": _same_pool,
    "nn.Upsample": _upsample,
    "Concat": _concat,
    "Detect": _detect,
    "IDetect": _detect,
}


def parameters(op: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a layer kind, in order.

    Raises:
        GraphError: no such kind; lists those there are.
    """
    if op not in KINDS:
        raise GraphError(f"layer kind {op!r} is not known; expected one of {', '.join(KINDS)}")
    return {key: p for key, p in inspect.signature(KINDS[op]).parameters.items() if key != "inputs"}


def bind(
    op: str, positional: Sequence[Value] = (), named: Mapping[str, Value] | None = None, *, activation: str = "SiLU"
) -> dict[str, Value]:
    """All arguments of a layer kind by name: those given, checked, and the defaults of the others.

    activation stands in where a kind takes one and none is given, or just `True`.

    Raises:
        GraphError: an unknown kind or argument, too many or too few of them, or a wrong value.
    """
    table = parameters(op)
    by_position = [key for key, p in table.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(positional) > len(by_position):
        raise GraphError(
            f"{op} takes at most {len(by_position)} arguments ({', '.join(by_position)}), got {positional}"
        )
    given = {**dict(zip(by_position, positional, strict=False)), **(named or {})}
    if unknown := sorted(set(given) - set(table)):
        raise GraphError(f"{op} has no argument {', '.join(unknown)}; expected {', '.join(table)}")
    missing = [key for key, p in table.items() if p.default is p.empty and key not in given]
    if missing:
        raise GraphError(f"{op} needs {', '.join(missing)}")
    if "activation" in table and given.get("activation", True) is True:
        given["activation"] = activation
    return {key: _checked(op, key, given[key]) if key in given else p.default for key, p in table.items()}


def _checked(op: str, key: str, value: Value) -> Value:
    check, expected = _CHECKS[key]
    if check(value):
        return activation_name(value) if key == "activation" else value
    raise GraphError(f"argument {key!r} of {op} must be {expected}, got {value!r}")


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("channels", "kernel", "stride", "groups", "repeats", "factor"), (_whole(1), "a positive integer")),
    "padding": (lambda value: value is None or _whole(0)(value), "an integer from 0 up, or None"),
    "dimension": (_whole(0), "an integer"),
    "kernels": (
        lambda value: isinstance(value, tuple) and bool(value) and all(_whole(1)(k) and k % 2 for k in value),
        "a list of odd numbers",
    ),
    **dict.fromkeys(("shortcut", "identity"), (lambda value: isinstance(value, bool), "True or False")),
    "expansion": (lambda value: isinstance(value, int | float) and 0 < value <= 4, "a number from 0 to 4"),
    "size": (lambda value: value is None, "None"),
    "mode": (lambda value: isinstance(value, str), "a text"),
    "activation": (lambda value: isinstance(value, str | bool | None), "True, False or the text of an activation"),
}


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
            inputs = [KINDS[node.op](inputs, **options)]
    except GraphError as error:
        raise GraphError(f"layer {node.name} ({node.op}): {error}") from error
    except ValueError as error:
        raise GraphError(f"layer {node.name} ({node.op}) takes one input, got {len(inputs)}") from error
    return inputs[0]

"""The networks by name. A name is that of the public model file, without its ending."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo.yolov5 import MULTIPLES, yolov5
from yolov7_jax.graph.zoo.yolov7 import yolov7, yolov7_tiny

_ZOO: Mapping[str, Callable[..., Graph]] = {
    "yolov7-tiny": partial(yolov7_tiny, activation="LeakyReLU(0.1)", head="IDetect"),
    "yolov7-tiny-silu": partial(yolov7_tiny, activation="SiLU", head="Detect"),
    "yolov7": yolov7,
    **{f"yolov5{size}": partial(yolov5, size) for size in MULTIPLES},
}


def zoo_names() -> tuple[str, ...]:
    """The names that `zoo` knows."""
    return tuple(_ZOO)


def zoo(name: str, *, num_classes: int = 80) -> Graph:
    """The graph of a named network, in its training form (implicit vectors and RepConv branches unfolded).

    Raises:
        GraphError: no such name; offers the nearest.
    """
    if name not in _ZOO:
        near = difflib.get_close_matches(name, _ZOO, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(_ZOO)}"
        raise GraphError(f"no network is named {name!r}; {hint}")
    return _ZOO[name](num_classes=num_classes)

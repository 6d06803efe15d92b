"""The networks by name. A name is that of the public model file, without its ending; the ablations have our own."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import yolor, yolov3, yolov4, yolov5, yolov7, yolov7_p6

_ZOO: Mapping[str, Callable[..., Graph]] = {
    name: build
    for family in (yolov7, yolov7_p6, yolor, yolov5, yolov4, yolov3)
    for name, build in family.NETWORKS.items()
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

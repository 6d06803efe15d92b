"""Builds a graph node by node; each layer added returns the reference that later layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, prod

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.kinds import KINDS
from yolov7_jax.graph.layers import activation_name, bind, infer_shapes
from yolov7_jax.graph.spec import Anchors, Graph, Node, Value

YOLOV5_KINDS = ("C3", "C3TR", "C3Ghost", "Focus", "BottleneckCSP")


class Builder:
    """Collects nodes. `activation` is that of every layer that does not say its own."""

    def __init__(self, *, activation: str = "SiLU") -> None:
        self.activation = activation_name(activation)
        self.nodes: list[Node] = []

    def add(
        self,
        op: str,
        src: str | Sequence[str],
        *positional: Value,
        repeat: int = 1,
        tag: str = "",
        **named: Value,
    ) -> str:
        """Adds a layer and returns its name, the reference to its output.

        Raises:
            GraphError: an unknown kind, or an argument that does not fit it.
        """
        args = bind(op, positional, named, activation=self.activation)
        name = str(len(self.nodes))
        sources = (src,) if isinstance(src, str) else tuple(src)
        self.nodes.append(Node(name, op, sources, tuple(args.items()), repeat, tag))
        return name

    def build(self, *, anchors: Anchors | int, num_classes: int, channels: int = 3) -> Graph:
        """The finished graph; see `finish`."""
        return finish(self.nodes, anchors=anchors, num_classes=num_classes, channels=channels)


def finish(nodes: Sequence[Node], *, anchors: Anchors | int, num_classes: int, channels: int = 3) -> Graph:
    """The graph of some nodes, whose last is the detect layer: checked, with strides and ordered anchors.

    anchors: [L][A](width, height) in pixels, or how many a level has: then sizes of 2, 4, 8 … cells stand in until
    they are fitted to data. Anchors listed from large to small while levels go from fine to coarse are reversed.

    Raises:
        GraphError: names the layer that is wrong, or says how many anchors were expected.
    """
    if not nodes or not nodes[-1].head:
        heads = ", ".join(name for name, kind in KINDS.items() if kind.head)
        raise GraphError(f"the last layer must be the detect layer, one of {heads}")
    shapes = infer_shapes(nodes, channels)
    strides = [shapes[name].stride for name in nodes[-1].lead]
    if any(stride.denominator != 1 for stride in strides):
        raise GraphError(f"the detect layer reads strides {', '.join(map(str, strides))}; expected whole numbers")
    steps = tuple(int(stride) for stride in strides)
    if num_classes < 1:
        raise GraphError(f"the number of classes must be at least 1, got {num_classes}")
    return Graph(
        nodes=tuple(nodes),
        anchors=_ordered(_stand_in(anchors, steps) if isinstance(anchors, int) else anchors, steps),
        strides=steps,
        max_stride=ceil(max(shape.stride for shape in shapes.values())),
        num_classes=num_classes,
        channels=channels,
        single_class_score="product" if any(node.op in YOLOV5_KINDS for node in nodes) else "objectness",
    )


def with_anchors(graph: Graph, anchors: Anchors) -> Graph:
    """The graph with other anchors, [L][A](width, height) in pixels."""
    return replace(graph, anchors=_ordered(anchors, graph.strides))


def _stand_in(count: int, strides: tuple[int, ...]) -> Anchors:
    return tuple(tuple((stride * 2.0**i, stride * 2.0**i) for i in range(1, count + 1)) for stride in strides)


def _ordered(anchors: Anchors, strides: tuple[int, ...]) -> Anchors:
    if len(anchors) != len(strides) or len({len(level) for level in anchors}) != 1 or not anchors[0]:
        sizes = ", ".join(str(len(level)) for level in anchors)
        raise GraphError(f"the detect layer has {len(strides)} levels; expected as many lists of anchors, got {sizes}")
    grows = sum(map(prod, anchors[-1])) >= sum(map(prod, anchors[0]))
    return anchors if grows == (strides[-1] >= strides[0]) else tuple(reversed(anchors))

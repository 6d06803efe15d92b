"""Rewrites of graphs. They keep the names of nodes, so that weights stay where they are."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from yolov7_jax.graph.spec import Graph, Node, used_nodes

_INFERENCE_HEAD = {"IDetect": "Detect"}


def plain_head(graph: Graph) -> Graph:
    """The graph with its training head replaced by the plain one, without the layers that nothing reads any more."""
    head = graph.detect
    plain = Node(head.name, _INFERENCE_HEAD.get(head.op, head.op), head.src[: len(graph.strides)], head.args)
    return replace(graph, nodes=used_nodes((*graph.nodes[:-1], plain), (plain.name,)))


def inference_form(graph: Graph) -> Graph:
    """The graph that `reparam` folds weights for: plain head, every convolution with its normalisation taken in."""
    return replace(plain_head(graph), folded=True)


def with_width(graph: Graph, multiple: float) -> Graph:
    """The graph with the channels of all its convolutions multiplied, rounded up to multiples of 8."""

    def scaled(node: Node) -> Node:
        args = ((key, ceil(value * multiple / 8) * 8 if key == "channels" else value) for key, value in node.args)
        return replace(node, args=tuple(args))

    return graph if multiple == 1 else replace(graph, nodes=tuple(map(scaled, graph.nodes)))

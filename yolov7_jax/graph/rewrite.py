"""Rewrites of graphs. They keep the names of nodes, so that weights stay where they are."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from yolov7_jax.graph.layers import activation_name
from yolov7_jax.graph.spec import IMAGE, Graph, Node, used_nodes


def plain_head(graph: Graph) -> Graph:
    """The graph with its training head replaced by the plain one, without the layers that nothing reads any more."""
    head = graph.detect
    plain = Node(head.name, "Detect", head.lead)
    return replace(graph, nodes=used_nodes((*graph.nodes[:-1], plain), (plain.name,)))


def deploy_form(graph: Graph) -> Graph:
    """The graph with a plain head and its layers numbered anew: that of the inference files of YOLOv7's family.

    Weights in this form still have batch normalization and the branches of RepConv.
    """
    plain = plain_head(graph)
    number = {node.name: str(place) for place, node in enumerate(plain)} | {IMAGE: IMAGE}
    nodes = (replace(node, name=number[node.name], src=tuple(number[name] for name in node.src)) for node in plain)
    return replace(plain, nodes=tuple(nodes))


def inference_form(graph: Graph) -> Graph:
    """The graph that `reparam` folds weights for: plain head, every convolution with its normalization taken in."""
    return replace(plain_head(graph), folded=True)


def with_width(graph: Graph, multiple: float) -> Graph:
    """The graph with the channels of all its convolutions multiplied, rounded up to multiples of 8."""

    def scaled(node: Node) -> Node:
        args = ((key, ceil(value * multiple / 8) * 8 if key == "channels" else value) for key, value in node.args)
        return replace(node, args=tuple(args))

    return graph if multiple == 1 else replace(graph, nodes=tuple(map(scaled, graph.nodes)))


def without_implicit(graph: Graph) -> Graph:
    """The graph without implicit vectors in its detect layer."""
    plain = replace(graph.detect, op=graph.detect.op.removeprefix("I"))
    return replace(graph, nodes=(*graph.nodes[:-1], plain))


def with_activation(graph: Graph, activation: str) -> Graph:
    """The graph with another activation, such as "nn.LeakyReLU(0.1)", wherever there is one.

    Raises:
        GraphError: the activation is not known.
    """
    name = activation_name(activation)

    def changed(node: Node) -> Node:
        args = ((key, name if key == "activation" and value != "Identity" else value) for key, value in node.args)
        return replace(node, args=tuple(args))

    return replace(graph, nodes=tuple(map(changed, graph.nodes)))

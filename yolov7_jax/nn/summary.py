"""Layers, shapes, parameters and operations of a network, found without computing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.conv import Conv2d
from yolov7_jax.nn.network import NODE_OUTPUTS, Network, abstract_variables, node_scope


class Row(NamedTuple):
    """One layer. shape: of its output, (h, w, c); None for the detect layer. flops: of one image."""

    name: str
    op: str
    src: tuple[str, ...]
    shape: tuple[int, ...] | None
    parameters: int
    flops: int


class Summary(NamedTuple):
    """All layers of a network and their sums.

    parameters: trainable ones, as the field counts them. flops: two for each multiplication and addition of
    convolutions, of one image.
    """

    rows: tuple[Row, ...]
    parameters: int
    flops: int


def summarize(graph: Graph, *, image_size: tuple[int, int] = (640, 640)) -> Summary:
    """The summary of a network at an image size (height, width).

    Raises:
        GraphError: a side is no multiple of the largest stride.
    """
    variables = abstract_variables(graph)
    image = jax.ShapeDtypeStruct((1, *image_size, graph.channels), jnp.float32)
    flops = Counter[str]()

    def count(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        layer = context.module
        if isinstance(layer, Conv2d):
            flops[layer.path[0]] += 2 * out.size * layer.kernel**2 * args[0].shape[-1] // layer.groups
        return out

    def run(variables: Any, image: Any) -> Any:
        return Network(graph).apply(variables, image, mutable=[NODE_OUTPUTS])[1].get(NODE_OUTPUTS, {})

    with nn.intercept_methods(count):
        outputs = jax.eval_shape(run, variables, image)
    rows = tuple(
        Row(
            node.name,
            node.op,
            node.src,
            outputs[node_scope(node.name)][0].shape[1:] if node_scope(node.name) in outputs else None,
            sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"].get(node.name, {}))),
            flops[node.name],
        )
        for node in graph
    )
    return Summary(rows, sum(row.parameters for row in rows), sum(row.flops for row in rows))

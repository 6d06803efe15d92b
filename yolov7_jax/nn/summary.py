"""Layers, shapes, parameters and operations of a network, found without computing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.attention import Attention, Linear
from yolov7_jax.nn.conv import Conv, Conv2d
from yolov7_jax.nn.network import NODE_OUTPUTS, Network, node_scope

Shape = tuple[int, ...]


class Row(NamedTuple):
    """One layer, or `repeat` of them in sequence.

    shape: of its output, (h, w, c); None for the detect layer. flops: of one image.
    """

    name: str
    op: str
    repeat: int
    src: tuple[str, ...]
    shape: Shape | None
    parameters: int
    flops: int


class Summary(NamedTuple):
    """All layers of a network and their sums.

    parameters: trainable ones, as the field counts them. flops: two for each multiplication and addition of
    convolutions and matrix products, of one image.
    """

    rows: tuple[Row, ...]
    parameters: int
    flops: int


class _Count(NamedTuple):
    parameters: int = 0
    flops: int = 0

    def plus(self, other: _Count) -> _Count:
        return _Count(self.parameters + other.parameters, self.flops + other.flops)


_CONV_FIELDS = tuple(field.name for field in fields(Conv) if field.name not in ("parent", "name"))

_known: dict[Hashable, tuple[_Count, Shape]] = {}
"""Counts and output shapes of convolutions with what follows them. Networks have many, but few different ones."""


def summarize(graph: Graph, *, image_size: tuple[int, int] | None = None) -> Summary:
    """The summary of a network at an image size (height, width), by default that of `Graph.default_size`.

    Raises:
        GraphError: a side is no multiple of the largest stride.
    """
    size = (graph.default_size, graph.default_size) if image_size is None else image_size
    counts, shapes = _trace(graph, jax.ShapeDtypeStruct((1, *size, graph.channels), jnp.float32))
    rows = tuple(
        Row(node.name, node.op, node.repeat, node.src, shapes.get(node.name), *counts[node.name]) for node in graph
    )
    return Summary(rows, sum(row.parameters for row in rows), sum(row.flops for row in rows))


def _trace(graph: Graph, image: jax.ShapeDtypeStruct) -> tuple[dict[str, _Count], dict[str, Shape]]:
    """Counts of the layers, and output shapes of all but the detect layer, by name."""
    counts = defaultdict[str, _Count](_Count)

    def count(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        if context.method_name != "__call__" or not layer.path:
            return call(*args, **kwargs)
        name = layer.path[0]
        key = isinstance(layer, Conv) and (args[0].shape, *(getattr(layer, field) for field in _CONV_FIELDS))
        if key in _known:
            known, shape = _known[key]
            counts[name] = counts[name].plus(known)
            return jnp.zeros(shape, image.dtype)
        before = counts[name]
        out = call(*args, **kwargs)
        counts[name] = counts[name].plus(_Count(_own_parameters(layer), _operations(layer, args, out)))
        if key:
            added = (a - b for a, b in zip(counts[name], before, strict=True))
            _known[key] = _Count(*added), out.shape
        return out

    with nn.intercept_methods(count):
        initialize = partial(Network(graph).init, mutable=("params", "batch_stats", NODE_OUTPUTS))
        outputs = jax.eval_shape(initialize, jax.random.key(0), image).get(NODE_OUTPUTS, {})
    return counts, {name: outputs[node_scope(name)][0].shape[1:] for name in (node.name for node in graph.nodes[:-1])}


def _own_parameters(layer: nn.Module) -> int:
    """Those of the module itself, without those of the modules that it calls."""
    params = layer.variables.get("params", {})
    return sum(leaf.size for leaf in params.values() if isinstance(leaf, jax.Array))


def _operations(layer: nn.Module, inputs: tuple[jax.Array, ...], out: jax.Array) -> int:
    """Those of a call of the module itself; 0 for one that only calls others."""
    if isinstance(layer, Conv2d):
        return 2 * out.size * layer.kernel**2 * inputs[0].shape[-1] // layer.groups
    if isinstance(layer, Attention):
        # As a whole: three projections before and one after; queries by keys, weights by values.
        *_, tokens, channels = out.shape
        return 2 * out.size * (4 * channels + 2 * tokens)
    if isinstance(layer, Linear) and not isinstance(layer.parent, Attention):
        return 2 * out.size * inputs[0].shape[-1]
    return 0

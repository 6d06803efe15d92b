"""Runs a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import field
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike, DTypeLike

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.kinds import kind_of
from yolov7_jax.graph.layers import infer_shapes
from yolov7_jax.graph.spec import IMAGE, Graph, Node
from yolov7_jax.nn import cpu
from yolov7_jax.nn.conv import STAGE, Form
from yolov7_jax.nn.csp import repeated
from yolov7_jax.nn.parameters import first_values
from yolov7_jax.registry import nearest
from yolov7_jax.types import Outputs

NODE_OUTPUTS = "intermediates"
"""The collection that holds what every node gives, by `node_scope`, when it is made mutable."""
NOTHING_GIVEN: Mapping[str, jax.Array] = MappingProxyType({})


class Network(nn.Module):
    """The network that a graph describes, from images to raw outputs.

    graph: static. dtype: of the computation, float32, bfloat16 or float16 (float64 for tests); weights stay float32.
    frozen: which batch normalization keeps its running statistics in training (`Form`). cpu_tuning: whether what is
    only there to be quick on CPUs is used (`nn.cpu`).
    Apply it as `network.apply(variables, images, train=False)` with variables {"params", "batch_stats"}; in
    training add `mutable=["batch_stats"]`.
    """

    graph: Graph
    dtype: DTypeLike = jnp.float32
    frozen: str = ""
    cpu_tuning: bool = field(default_factory=cpu.tuning)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, given: Mapping[str, jax.Array] = NOTHING_GIVEN
    ) -> Outputs:
        """Images [B, H, W, 3], RGB in 0..1, sides multiples of the largest stride → `Outputs`.

        given: feature maps [B, h, w, c] by the names of the nodes whose outputs they stand in for; what the outputs
        then do not depend on is dead code to the compiler.

        Raises:
            GraphError: a side is no such multiple, or images have other axes.
        """
        check_axes(self.graph, images.shape)
        form = Form(self.dtype, self.graph.folded, self.frozen)
        values = {IMAGE: images.astype(self.dtype)}
        with cpu.tuned(self.cpu_tuning):
            for node in self.graph.nodes[:-1]:
                if node.name in given:
                    values[node.name] = given[node.name]
                    continue
                with jax.named_scope(node_scope(node.name)):
                    value = _run(node, [values[name] for name in node.src], form, train)
                values[node.name] = checkpoint_name(value, STAGE) if node.name in stage_ends(self.graph) else value
                self.sow(NODE_OUTPUTS, node_scope(node.name), values[node.name])
            with jax.named_scope(node_scope(self.graph.detect.name)):
                return _head(self.graph, form)([values[name] for name in self.graph.detect.src])


def check_axes(graph: Graph, shape: tuple[int, ...]) -> None:
    """Refuses images that are not [B, H, W, 3] with sides that are multiples of the largest stride.

    Raises:
        GraphError: says what they are.
    """
    if len(shape) != 4 or shape[3] != graph.channels:
        raise GraphError(f"images must be [B, H, W, {graph.channels}], got {list(shape)}{_hint(graph, shape)}")
    for side in shape[1:3]:
        graph.check_side(side)


def _hint(graph: Graph, shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[1] == graph.channels:
        return "; move the channels to the end: images.transpose(0, 2, 3, 1)"
    return "; add an axis for the batch: images[None]" if len(shape) == 3 else ""


@lru_cache(maxsize=8)
def stage_ends(graph: Graph) -> frozenset[str]:
    """The nodes whose feature maps a layer of another stride, or the head, reads."""
    shapes = infer_shapes(graph.nodes, graph.channels)
    ends = {name for node in graph for name in node.src if node.head or shapes[name].stride != shapes[node.name].stride}
    return frozenset(ends - {IMAGE})


def lead_outputs(network: Network, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
    """Raw lead outputs [B, N, 5 + C] in inference of images [B, H, W, 3], RGB in 0..1."""
    outputs: Any = network.apply(variables, images)
    return outputs.lead


def features(
    network: Network, variables: Mapping[str, Any], images: ArrayLike, layers: Sequence[str]
) -> dict[str, jax.Array]:
    """What layers give in inference, feature maps [B, H, W, c], by what they were asked for as.

    Layers after the last of them are not computed.

    Args:
        network: of the variables.
        variables: {"params", "batch_stats"}.
        images: [B, H, W, 3], RGB in 0..1, sides multiples of the largest stride.
        layers: names of nodes, such as "11", or tags, such as "p3/elan", which stand for the last node of that tag.

    Raises:
        GraphError: no such layer; names the nearest. A side is no multiple of the largest stride.
    """
    found = _node_outputs(network, node_names(network.graph, layers), variables, images)
    return dict(zip(layers, found, strict=True))


def node_names(graph: Graph, layers: Sequence[str]) -> tuple[str, ...]:
    """The nodes that layers stand for; see `features`.

    Raises:
        GraphError: no such layer; names the nearest.
    """
    nodes = graph.nodes[:-1]
    known = {node.tag: node.name for node in nodes if node.tag} | {node.name: node.name for node in nodes}
    if unknown := [layer for layer in layers if layer not in known]:
        hint = nearest(unknown[0], known)
        raise GraphError(f"there is no layer {unknown[0]!r}{hint}; expected a node's name or tag, {', '.join(known)}")
    return tuple(known[layer] for layer in layers)


@partial(jax.jit, static_argnums=(0, 1))
def _node_outputs(
    network: Network, names: tuple[str, ...], variables: Mapping[str, Any], images: ArrayLike
) -> list[jax.Array]:
    """Outputs of nodes; that they alone are returned makes all after them dead code to the compiler."""
    return outputs_of_nodes(network, names, variables, images)[1]


def outputs_of_nodes(
    network: Network, names: Sequence[str], variables: Mapping[str, Any], images: ArrayLike
) -> tuple[Outputs, list[jax.Array]]:
    """The network's outputs in inference, and feature maps [B, h, w, c] of nodes. Pure."""
    outputs, state = network.apply(variables, images, mutable=[NODE_OUTPUTS])
    return outputs, [state[NODE_OUTPUTS][node_scope(name)][0] for name in names]


def node_scope(name: str) -> str:
    """The scope that a node's operations carry in traces and profiles, and the key of its output."""
    return f"node {name}"


def _run(node: Node, xs: list[jax.Array], form: Form, train: bool) -> jax.Array:
    kind = kind_of(node.op)
    layer, is_module = kind.load()
    options = {**node.options, **kind.fixed}
    if not is_module:
        for _ in range(node.repeat):
            xs = [layer(*xs, **options)]
        return xs[0]

    def make(name: str) -> nn.Module:
        return layer(**options, form=form, name=name)

    if node.repeat > 1:
        return repeated(make, node.repeat, name=node.name)(*xs, train=train)
    output: jax.Array = make(node.name)(*xs, train=train)
    return output


def _head(graph: Graph, form: Form) -> Callable[[list[jax.Array]], Outputs]:
    kind = kind_of(graph.detect.op)
    detect: Callable[[list[jax.Array]], Outputs] = kind.load()[0](
        anchors=len(graph.anchors[0]),
        num_classes=graph.num_classes,
        strides=graph.strides,
        **kind.fixed,
        form=form,
        name=graph.detect.name,
    )
    return detect


def example_images(graph: Graph) -> jax.ShapeDtypeStruct:
    """The shape of the smallest images that the network takes."""
    return jax.ShapeDtypeStruct((1, graph.max_stride, graph.max_stride, graph.channels), jnp.float32)


def init(graph: Graph, key: jax.Array) -> dict[str, Any]:
    """Randomly initialized weights, float32, drawn as PyTorch draws them: {"params": tree, "batch_stats": tree}."""
    if isinstance(key, jax.core.Tracer):
        return _draw(graph, key)
    with first_values() as values:
        shapes = jax.eval_shape(lambda: _draw(graph, key))
    others = flatten_dict(shapes).keys() - values.keys()  # what layers of one's own made by Flax alone
    if others:
        with jax.ensure_compile_time_eval():
            values.update(jax.jit(partial(_draw_some, graph, others))(key))
    return dict(unflatten_dict(values))


def _draw(graph: Graph, key: jax.Array) -> dict[str, Any]:
    example = example_images(graph)
    return dict(Network(graph).init(key, jnp.zeros(example.shape, example.dtype)))


def _draw_some(graph: Graph, paths: Set[tuple[str, ...]], key: jax.Array) -> dict[tuple[str, ...], jax.Array]:
    """Of these paths alone: what draws the others is dead code to the compiler."""
    return {path: leaf for path, leaf in flatten_dict(_draw(graph, key)).items() if path in paths}


@lru_cache(maxsize=8)
def abstract_variables(graph: Graph) -> dict[str, Any]:
    """Shapes and dtypes of all weights, without computing any. One tree for all callers: do not change it."""
    with first_values():
        return jax.eval_shape(partial(_draw, graph), jax.random.key(0))

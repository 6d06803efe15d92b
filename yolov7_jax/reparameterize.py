"""Re-parameterization: a trained network folded into its inference form (YOLOv7, sections 4.1 and 4.3).

Batch normalization goes into the convolution before it, the branches of RepConv into one 3×3 convolution, implicit
vectors into the detect convolution; training heads and the layers that only they use are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from numpy.typing import NDArray

from yolov7_jax.errors import WeightsError
from yolov7_jax.graph.kinds import kind_of, resolve
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.fold import modules
from yolov7_jax.nn.network import Network, abstract_variables, example_images, lead_outputs

Tree = Mapping[str, Any]
Array = NDArray[np.float64]

TOLERANCE = 1e-5
"""Difference of an output, relative to the largest, that is never too much: a rounding of weights to float32."""

_ROUNDINGS = 10
"""Beyond `TOLERANCE`, how many times what the source itself loses in float32 a difference may be."""


def reparam(graph: Graph, variables: Tree) -> tuple[Graph, dict[str, Any]]:
    """The inference form of a network: its graph and variables (numpy; only "params").

    Folded weights are float32, or float64 where JAX computes in it (`JAX_ENABLE_X64`). Both forms are run in float64
    on a random image. A network in that form already is returned as it is.

    Raises:
        WeightsError: outputs of the two forms differ by more than rounding to float32 explains; says by how much.
    """
    if graph.folded:
        return graph, dict(variables)
    folded_graph, folded = inference_form(graph), fold(graph, variables)
    exact = _probe(graph, variables, jnp.float64)
    error = _relative(_probe(folded_graph, folded, jnp.float64), exact)
    if not error <= TOLERANCE and not error <= _ROUNDINGS * _relative(_probe(graph, variables, jnp.float32), exact):
        raise WeightsError(
            f"folding changed the outputs by {error:.2g} of the largest, more than rounding to float32 explains; "
            "the weights are damaged or their scales differ too much, use the network unfolded"
        )
    return folded_graph, folded


def fold(graph: Graph, variables: Tree) -> dict[str, Any]:
    """The variables of `inference_form(graph)`, computed in float64, without the probe that `reparam` makes.

    Raises:
        WeightsError: a folded weight is not finite; names the layer.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})
    kinds = {node.name: kind_of(node.op) for node in graph}
    folded = {}
    for node in inference_form(graph):
        if node.name not in params:
            continue
        rule = resolve(kinds[node.name].fold or modules)
        weights, moments = params[node.name], stats.get(node.name, {})
        if node.repeat > 1:
            layer = {place: rule(weights[place], moments.get(place, {})) for place in weights}
        else:
            layer = rule(weights, moments)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(layer)):
            raise WeightsError(
                f"layer {node.name} ({node.op}) has weights that are not finite once folded; "
                "the file is damaged or its training diverged, use an earlier checkpoint"
            )
        folded[node.name] = layer
    _check_own_kinds(graph, folded)
    return {"params": folded}


def _check_own_kinds(graph: Graph, folded: Tree) -> None:
    """Layers of a user's kinds must have been folded to what their modules ask for in the inference form."""
    own = [node for node in graph.nodes[:-1] if node.name in folded and not kind_of(node.op).built_in]
    for node in own:
        expected = abstract_variables(inference_form(graph))["params"][node.name]
        wanted, found = (jax.tree.map(np.shape, tree) for tree in (expected, folded[node.name]))
        if wanted != found:
            raise WeightsError(
                f"layer {node.name} ({node.op}) is folded to {found}, but its inference form has {wanted}; "
                "give the kind a rule: register_layer(..., fold=...)"
            )


def difference(graph: Graph, variables: Tree, other: Graph, other_variables: Tree) -> float:
    """Largest difference of the lead outputs of two networks on a random image, relative to the first's largest.

    Computed in float64 on the CPU. NaN where an output is not finite.
    """
    return _relative(_probe(other, other_variables, jnp.float64), _probe(graph, variables, jnp.float64))


def _probe(graph: Graph, variables: Tree, dtype: DTypeLike) -> Array:
    """Lead outputs of a network on a random image twice its largest stride wide, on the CPU."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        batch, height, width, channels = example_images(graph).shape
        image = np.random.default_rng(0).uniform(0, 1, (batch, 2 * height, 2 * width, channels))
        return np.asarray(jax.jit(partial(lead_outputs, Network(graph, dtype)))(variables, image), np.float64)


def _relative(outputs: Array, exact: Array) -> float:
    with np.errstate(invalid="ignore"):  # what is not finite gives NaN, which is no small difference
        return float(np.abs(outputs - exact).max() / np.abs(exact).max())

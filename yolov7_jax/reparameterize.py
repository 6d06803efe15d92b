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
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.conv import BATCH_NORM_EPSILON
from yolov7_jax.nn.network import Network, example_images, lead_outputs

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
    folded = {}
    for node in inference_form(graph):
        if node.name not in params:
            continue
        layer = _fold(params[node.name], stats.get(node.name, {}))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(layer)):
            raise WeightsError(
                f"layer {node.name} ({node.op}) has weights that are not finite once folded; "
                "the file is damaged or its training diverged, use an earlier checkpoint"
            )
        folded[node.name] = layer
    return {"params": folded}


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


def _fold(params: Tree, stats: Tree) -> dict[str, Any]:
    """Folds a layer by the names of its parts, whatever its kind."""
    if "conv" in params and "bn" in params:
        return {"conv": _conv_norm(params["conv"], params["bn"], stats["bn"])}
    if "bn" in params:
        return _bottleneck_csp(params, stats)
    if "rbr_dense" in params:
        return {"rbr_reparam": _rep_conv(params, stats)}
    if "m" in params and "ia" in params and "im" in params:
        return {"m": {level: _implicit(params, level) for level in params["m"]}}
    return {
        key: _fold(value, stats.get(key, {})) if isinstance(value, Mapping) else np.asarray(value)
        for key, value in params.items()
        if key != "m2"  # an auxiliary head
    }


def _norm(params: Tree, stats: Tree) -> tuple[Array, Array]:
    """Factor and shift of a batch normalization with fixed statistics."""
    scale, bias, mean, var = (
        np.asarray(a, np.float64) for a in (params["scale"], params["bias"], stats["mean"], stats["var"])
    )
    factor = scale / np.sqrt(var + BATCH_NORM_EPSILON)
    return factor, bias - mean * factor


def _conv_norm(conv: Tree, norm: Tree, stats: Tree) -> dict[str, Any]:
    factor, shift = _norm(norm, stats)
    return _weights(np.asarray(conv["kernel"], np.float64) * factor, shift)


def _bottleneck_csp(params: Tree, stats: Tree) -> dict[str, Any]:
    """BottleneckCSP: one normalization over the joined outputs of the convolutions cv3 and cv2."""
    factor, shift = _norm(params["bn"], stats["bn"])
    others = {key: value for key, value in params.items() if key not in ("bn", "cv2", "cv3")}
    joined = {
        key: _weights(np.asarray(params[key]["kernel"], np.float64) * factor[part], shift[part])
        for key, part in (("cv3", slice(len(factor) // 2)), ("cv2", slice(len(factor) // 2, None)))
    }
    return {**_fold(others, stats), **joined}


def _rep_conv(params: Tree, stats: Tree) -> dict[str, Any]:
    factor, bias = _norm(params["rbr_dense"]["1"], stats["rbr_dense"]["1"])
    kernel = np.asarray(params["rbr_dense"]["0"]["kernel"], np.float64) * factor
    factor, shift = _norm(params["rbr_1x1"]["1"], stats["rbr_1x1"]["1"])
    kernel[1, 1] += np.asarray(params["rbr_1x1"]["0"]["kernel"], np.float64)[0, 0] * factor
    bias = bias + shift
    if "rbr_identity" in params:
        factor, shift = _norm(params["rbr_identity"], stats["rbr_identity"])
        channels = np.arange(kernel.shape[3])
        kernel[1, 1, channels % kernel.shape[2], channels] += factor  # its own channel, counted within its group
        bias = bias + shift
    return _weights(kernel, bias)


def _implicit(params: Tree, level: str) -> dict[str, Any]:
    conv, added, factor = (
        params["m"][level],
        np.asarray(params["ia"][level]["implicit"], np.float64),
        np.asarray(params["im"][level]["implicit"], np.float64),
    )
    kernel = np.asarray(conv["kernel"], np.float64)
    return _weights(kernel * factor, (np.asarray(conv["bias"], np.float64) + added @ kernel[0, 0]) * factor)


def _weights(kernel: Array, bias: Array) -> dict[str, Any]:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the probe finds it
        return {"kernel": kernel.astype(_width()), "bias": bias.astype(_width())}


def _width() -> Any:
    """The widest float that JAX is set to compute in."""
    return jax.dtypes.canonicalize_dtype(np.float64)

"""How layers are folded into their inference form: numpy trees of one layer, computed in float64.

A rule takes the params and the batch statistics of a layer and gives the params of its inference form. `modules` is the
rule of all kinds that have none of their own (`graph.kinds.register_layer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from yolov7_jax.nn.conv import BATCH_NORM_EPSILON

Tree = Mapping[str, Any]
Array = NDArray[np.float64]


def modules(params: Tree, stats: Tree) -> dict[str, Any]:
    """Folds every `Conv`, `RepConv` and other `BatchNorm` of a layer, each known by the names of its parts.

    A normalization that stands by itself becomes the scale and the shift that it is with fixed statistics.
    """
    if set(params) == {"conv", "bn"} and set(params["conv"]) == {"kernel"}:
        return {"conv": _conv_norm(params["conv"], params["bn"], stats["bn"])}
    if {"rbr_dense", "rbr_1x1"} <= set(params):
        return {"rbr_reparam": _rep_conv(params, stats)}
    if set(stats) == {"mean", "var"} and set(params) == {"scale", "bias"}:
        factor, shift = _norm(params, stats)
        return _as_stored(scale=factor, bias=shift)
    return {
        key: modules(value, stats.get(key, {})) if isinstance(value, Mapping) else np.asarray(value)
        for key, value in params.items()
    }


def bottleneck_csp(params: Tree, stats: Tree) -> dict[str, Any]:
    """BottleneckCSP: one normalization over the joined outputs of the convolutions cv3 and cv2."""
    factor, shift = _norm(params["bn"], stats["bn"])
    others = {key: value for key, value in params.items() if key not in ("bn", "cv2", "cv3")}
    joined = {
        key: _as_stored(kernel=_wide(params[key]["kernel"]) * factor[part], bias=shift[part])
        for key, part in (("cv3", slice(len(factor) // 2)), ("cv2", slice(len(factor) // 2, None)))
    }
    return {**modules(others, stats), **joined}


def head(params: Tree, stats: Tree) -> dict[str, Any]:
    """Detect layers: implicit vectors go into the convolutions, the auxiliary ones are dropped."""
    if "ia" not in params:
        return {"m": modules(params["m"], stats)}
    return {"m": {level: _implicit(params, level) for level in params["m"]}}


def _norm(params: Tree, stats: Tree) -> tuple[Array, Array]:
    """Factor and shift of a batch normalization with fixed statistics."""
    factor = _wide(params["scale"]) / np.sqrt(_wide(stats["var"]) + BATCH_NORM_EPSILON)
    return factor, _wide(params["bias"]) - _wide(stats["mean"]) * factor


def _conv_norm(conv: Tree, norm: Tree, stats: Tree) -> dict[str, Any]:
    factor, shift = _norm(norm, stats)
    return _as_stored(kernel=_wide(conv["kernel"]) * factor, bias=shift)


def _rep_conv(params: Tree, stats: Tree) -> dict[str, Any]:
    factor, bias = _norm(params["rbr_dense"]["1"], stats["rbr_dense"]["1"])
    kernel = _wide(params["rbr_dense"]["0"]["kernel"]) * factor
    factor, shift = _norm(params["rbr_1x1"]["1"], stats["rbr_1x1"]["1"])
    kernel[1, 1] += _wide(params["rbr_1x1"]["0"]["kernel"])[0, 0] * factor
    bias = bias + shift
    if "rbr_identity" in params:
        factor, shift = _norm(params["rbr_identity"], stats["rbr_identity"])
        channels = np.arange(kernel.shape[3])
        kernel[1, 1, channels % kernel.shape[2], channels] += factor  # its own channel, counted within its group
        bias = bias + shift
    return _as_stored(kernel=kernel, bias=bias)


def _implicit(params: Tree, level: str) -> dict[str, Any]:
    conv, added, factor = params["m"][level], params["ia"][level]["implicit"], params["im"][level]["implicit"]
    kernel = _wide(conv["kernel"])
    return _as_stored(
        kernel=kernel * _wide(factor), bias=(_wide(conv["bias"]) + _wide(added) @ kernel[0, 0]) * _wide(factor)
    )


def _wide(leaf: Any) -> Array:
    return np.asarray(leaf, np.float64)


def _as_stored(**leaves: Array) -> dict[str, Any]:
    """In the widest float that JAX is set to compute in."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and the probe finds it
        return {key: leaf.astype(jax.dtypes.canonicalize_dtype(np.float64)) for key, leaf in leaves.items()}

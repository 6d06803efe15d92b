"""The module of each layer kind that has weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flax import linen as nn

from yolov7_jax.nn.attention import transformer
from yolov7_jax.nn.conv import Conv
from yolov7_jax.nn.csp import CSP, DARK, RES, REVERSED_DARK, BottleneckCSP, Residual, blocks
from yolov7_jax.nn.ghost import GhostBottleneck, GhostConv, ghost_blocks
from yolov7_jax.nn.rep import RepConv
from yolov7_jax.nn.spp import SPP, SPPCSPC, SPPF
from yolov7_jax.nn.transition import DownC, Focus, Stem

Module = Callable[..., nn.Module]


def _bottleneck(*, reversed: bool = False, rep: bool = False, **options: Any) -> Residual:
    return Residual(kernels=REVERSED_DARK if reversed else DARK, rep=rep, **options)


def _csp(*, inner: Module, layout: str, reversed: bool = False, identity: bool = True, **options: Any) -> CSP:
    inner = partial(inner, identity=identity, **({"kernels": REVERSED_DARK} if reversed else {}))
    return CSP(layout=layout, inner=inner, **options)


def _csp_variants(block: str, **inner: Any) -> dict[str, Module]:
    """The layouts A, B and C around a block, with RepConvs and without."""
    return {
        f"{prefix}{block}CSP{layout}": partial(_csp, layout=layout, inner=partial(blocks, rep=bool(prefix), **inner))
        for prefix in ("", "Rep")
        for layout in "ABC"
    }


MODULES: Mapping[str, Module] = {
    "Conv": Conv,
    "DWConv": partial(Conv, groups=None),
    "RepConv": RepConv,
    "GhostConv": GhostConv,
    "Focus": Focus,
    "Stem": Stem,
    "DownC": DownC,
    "Bottleneck": _bottleneck,
    "RepBottleneck": partial(_bottleneck, rep=True),
    **dict.fromkeys(("Res", "ResX"), partial(Residual, kernels=RES)),
    **dict.fromkeys(("RepRes", "RepResX"), partial(Residual, kernels=RES, rep=True)),
    "GhostBottleneck": GhostBottleneck,
    "BottleneckCSP": BottleneckCSP,
    "C3": CSP,
    "C3TR": partial(CSP, inner=transformer),
    "C3Ghost": partial(CSP, inner=ghost_blocks),
    **_csp_variants("Bottleneck"),
    **_csp_variants("Res", kernels=RES, expansion=0.5),
    **_csp_variants("ResX", kernels=RES),
    "SPP": SPP,
    "SPPF": SPPF,
    "SPPCSPC": SPPCSPC,
}
"""Layer kinds with weights: (x, train) → x. They take the arguments of the kind by name, `form` and `name`."""

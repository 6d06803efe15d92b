"""Finds the form of a network that a PyTorch state dict is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.convert.torch_names import PREFIX, LoadReport, compare
from yolov7_jax.graph.rewrite import deploy_form, inference_form
from yolov7_jax.graph.spec import Graph, Node
from yolov7_jax.nn.conv import BATCH_NORM_EPSILON

State = Mapping[str, NDArray[Any]]

_NORM = ("weight", "bias", "running_mean", "running_var")
_JOINED = ("cv3", "cv2")  # of BottleneckCSP, in the order in which it joins them


class Fit(NamedTuple):
    """A network, a state dict in its names, and the account of how they fit."""

    graph: Graph
    state: State
    report: LoadReport


def forms(graph: Graph) -> tuple[Graph, ...]:
    """The forms in which weights of a network are published: as it is, for deployment, and both of them folded."""
    numberings = (graph, deploy_form(graph))
    return tuple(dict.fromkeys((*numberings, *map(inference_form, numberings))))


def best_fit(candidates: Iterable[Graph], state: State) -> Fit:
    """The candidate into which every tensor fits; else the one that takes most of them, and then lacks fewest."""
    has_norms = any(name.endswith("running_mean") for name in state)

    def unlikely(graph: Graph) -> tuple[bool, bool]:  # spares comparing with networks that cannot be
        return f"{PREFIX}{graph.detect.name}.m.0.weight" not in state, graph.folded == has_norms

    fits = []
    for graph in sorted(candidates, key=unlikely):
        named = with_joined_norms_folded(state) if graph.folded else state
        fits.append(Fit(graph, named, compare(graph, named)))
        if fits[-1].report.complete:
            return fits[-1]
    return min(fits, key=lambda fit: (-len(fit.report.matched), fit.report.wrong))


def with_joined_norms_folded(state: State) -> State:
    """The state dict in which the normalizations that BottleneckCSP has over two joined convolutions are in these.

    PyTorch models fused for inference keep them: they follow no single convolution.
    """
    folded = dict(state)
    for name in state:
        owner = name.removesuffix(".bn.running_mean")
        if owner != name and (convs := _joined_convolutions(owner, state)):
            for gone in _NORM:
                del folded[f"{owner}.bn.{gone}"]
            folded |= convs
    return folded


def _joined_convolutions(owner: str, state: State) -> dict[str, NDArray[np.float64]]:
    """Weights and biases of a layer's two joined convolutions with its normalization in them; empty if not so."""
    kernels = [np.asarray(state.get(f"{owner}.{part}.weight", 0), np.float64) for part in _JOINED]
    norm = [np.asarray(state.get(f"{owner}.bn.{leaf}", 0), np.float64) for leaf in _NORM]
    if any(kernel.ndim != 4 for kernel in kernels) or {n.shape for n in norm} != {(sum(map(len, kernels)),)}:
        return {}
    weight, bias, mean, var = norm
    factor = weight / np.sqrt(var + BATCH_NORM_EPSILON)
    shift = bias - mean * factor
    convs = {}
    for part, kernel in zip(_JOINED, kernels, strict=True):
        convs[f"{owner}.{part}.weight"] = kernel * factor[: len(kernel)].reshape(-1, 1, 1, 1)
        convs[f"{owner}.{part}.bias"] = shift[: len(kernel)]
        factor, shift = factor[len(kernel) :], shift[len(kernel) :]
    return convs


def with_module_activations(graph: Graph, activations: Mapping[str, str]) -> Graph:
    """The graph with the activations that the modules of a file have; a layer whose modules disagree keeps its own.

    activations: texts by module path (`model.2.cv1`). Old model files leave them to the code of their day.
    """
    return replace(graph, nodes=tuple(_activated(node, activations) for node in graph)) if activations else graph


def _activated(node: Node, activations: Mapping[str, str]) -> Node:
    own = f"{PREFIX}{node.name}"
    within = {path: text for path, text in activations.items() if path == own or path.startswith(f"{own}.")}
    options = node.options
    joined = within.pop(own, None) if "csp_activation" in options else None
    found = set(within.values())
    found = found - {"Identity"} or found  # parts of ghost layers have none, whatever the others have
    if "activation" in options and len(found) == 1:
        options["activation"] = found.pop()
    if joined not in (None, options.get("activation")):
        options["csp_activation"] = joined
    return replace(node, args=tuple(options.items()))

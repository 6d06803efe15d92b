"""Weights of one network as the start of another that differs in its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from numpy.typing import NDArray

from yolov7_jax.convert.torch_names import flatten, unflatten
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import WeightsError
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import init

_BOX_ROWS = 5  # x, y, w, h and objectness, which no class owns


def transfer(weights: Weights, names: Sequence[str], key: jax.Array) -> tuple[Weights, str]:
    """The weights for other classes, and a sentence that accounts for every class.

    Classes with a name in common keep their rows of the detect layer, the others are randomly initialized. Everything
    else stays, box and objectness rows too; anchors are the weights'.

    Args:
        weights: in training form, as a training wrote them.
        names: the classes wanted, in order.
        key: for what is initialized, as `nn.network.init` does.

    Raises:
        WeightsError: the weights are folded, and so cannot be trained.
    """
    if weights.graph.folded:
        raise WeightsError(
            "the weights are in inference form (batch normalization folded) and cannot be trained; "
            "start from the checkpoint of a training"
        )
    names = tuple(names)
    if names == weights.names:
        return weights, _account(names, names)
    graph = replace(weights.graph, num_classes=len(names))
    sources = [weights.names.index(name) if name in weights.names else None for name in names]
    initial = dict(flatten(jax.tree.map(np.asarray, init(graph, key))))
    variables = unflatten(
        (path, _with_rows(leaf, initial[path], sources, graph) if _has_rows(path, graph) else leaf)
        for path, leaf in flatten(weights.variables)
    )
    return Weights(graph, variables, names, weights.meta), _account(weights.names, names)


def _account(before: Sequence[str], after: Sequence[str]) -> str:
    kept, added = ([name for name in after if (name in before) is known] for known in (True, False))
    dropped = [name for name in before if name not in after]
    if not (added or dropped):
        return f"all {len(kept)} classes keep their weights"
    return (
        f"{len(kept)} classes keep their weights ({_listed(kept)}), {len(added)} are randomly initialized "
        f"({_listed(added)}), {len(dropped)} of the file are not wanted ({_listed(dropped)})"
    )


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "") or "none"


def _has_rows(path: tuple[str, ...], graph: Graph) -> bool:
    """Whether the last axis of a leaf is the detect layer's (anchor, row): implicit vectors `ia` are of its input."""
    return path[1] == graph.detect.name and not path[2].startswith("ia")


def _with_rows(
    old: NDArray[np.float32], initial: NDArray[np.float32], sources: Sequence[int | None], graph: Graph
) -> NDArray[np.float32]:
    """The initial leaf with the rows of boxes and objectness, and of classes that have a source, from the old one."""
    anchors = len(graph.anchors[0])
    before, rows = (leaf.reshape(*leaf.shape[:-1], anchors, -1) for leaf in (old, initial.copy()))
    rows[..., :_BOX_ROWS] = before[..., :_BOX_ROWS]
    for place, source in enumerate(sources):
        if source is not None:
            rows[..., _BOX_ROWS + place] = before[..., _BOX_ROWS + source]
    return rows.reshape(initial.shape)

"""Names and layouts of weights: PyTorch state dict ↔ tree of variables, strict, both ways.

A tree path follows the PyTorch name: `model.2.cv1.conv.weight` is params / 2 / cv1 / conv / kernel. Kernels of
convolutions are OIHW there and HWIO here, those of linear layers (out, in) there and (in, out) here, implicit vectors
(1, c, 1, 1) there and (c,) here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import WeightsError
from yolov7_jax.graph.builder import with_anchors
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import abstract_variables

Path = tuple[str, ...]

PREFIX = "model."
BUFFERS = ("num_batches_tracked", "anchors", "anchor_grid", "stride")
"""Last names of tensors that a graph determines; they may be in a state dict or not."""

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("params", "implicit"): "implicit",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_GLUED = "in_proj"
"""The input projections of PyTorch's attention are no layer of their own: `in_proj_weight`, `in_proj_bias`."""
_LISTED = 8  # names of a kind that an error message shows


@dataclass(frozen=True)
class LoadReport:
    """How the tensors of a file and of a network fit together, by PyTorch names.

    matched: in both, shapes equal. missing: the network's alone. unexpected: the file's alone. mismatched: (name,
    shape in the file, shape in the network). buffers: the file's, determined by the graph.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    buffers: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every weight is accounted for."""
        return self.wrong == 0

    @property
    def wrong(self) -> int:
        """How many tensors have no place, or the wrong shape for it."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors matched"]
        wrong = [f"{name} (file {theirs}, network {ours})" for name, theirs, ours in self.mismatched]
        for kind, names in (("missing", self.missing), ("unexpected", self.unexpected), ("mismatched", wrong)):
            if names:
                shown = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
                parts.append(f"{len(names)} {kind}: {shown}")
        return "; ".join(parts)


def flatten(tree: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Leaves of a nested dict with their paths, in order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, (*path, key))
        else:
            yield (*path, key), value


def unflatten(leaves: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
    """The nested dict of some leaves."""
    tree: dict[str, Any] = {}
    for path, value in leaves:
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = value
    return tree


def torch_name(path: Path) -> str:
    """The PyTorch name of a tree path."""
    owner, leaf = ".".join(path[1:-1]), _LEAVES.get((path[0], path[-1]), path[-1])  # a user's layers may have others
    return f"{PREFIX}{owner}{'_' if path[-2] == _GLUED else '.'}{leaf}"


def _to_torch_layout(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if path[-1] == "kernel":
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return array.reshape(1, -1, 1, 1) if path[-1] == "implicit" else array


def _from_torch_layout(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if path[-1] == "kernel":
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    return array.reshape(-1) if path[-1] == "implicit" else array


def _torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    return _to_torch_layout(path, np.broadcast_to(np.float32(0), shape)).shape


def compare(graph: Graph, state: Mapping[str, NDArray[Any]]) -> LoadReport:
    """Fits the tensors of a PyTorch state dict to the network of a graph."""
    expected = {torch_name(path): _torch_shape(path, leaf.shape) for path, leaf in flatten(abstract_variables(graph))}
    both = [name for name in expected if name in state]
    extra = [name for name in state if name not in expected]
    is_buffer = {name: name.rsplit(".", 1)[-1] in BUFFERS for name in extra}
    return LoadReport(
        matched=tuple(name for name in both if state[name].shape == expected[name]),
        missing=tuple(name for name in expected if name not in state),
        unexpected=tuple(name for name in extra if not is_buffer[name]),
        mismatched=tuple(
            (name, state[name].shape, expected[name]) for name in both if state[name].shape != expected[name]
        ),
        buffers=tuple(name for name in extra if is_buffer[name]),
    )


def from_torch_state(
    graph: Graph, state: Mapping[str, NDArray[Any]], *, strict: bool = True, initial: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Variables {"params", "batch_stats"} of float32 numpy arrays from a PyTorch state dict.

    With strict=False, weights that are missing or have another shape are taken from `initial` (variables, as
    `nn.network.init` gives them), and tensors without a place are left out; `compare` tells which.

    Raises:
        WeightsError: strict, and not every weight is accounted for; or something is to come from `initial` and that
            is not given. Lists missing, unexpected and mismatched names.
    """
    report = compare(graph, state)
    if not report.complete and (strict or initial is None):
        raise WeightsError(f"the weights do not fit the network: {report}; give the model they were made for")
    matched = set(report.matched)
    start = dict(flatten(initial or {}))

    def leaf(path: Path) -> NDArray[np.float32]:
        name = torch_name(path)
        if name in matched:
            return np.ascontiguousarray(_from_torch_layout(path, np.asarray(state[name]).astype(np.float32)))
        return np.asarray(start[path], np.float32)

    return unflatten((path, leaf(path)) for path, _ in flatten(abstract_variables(graph)))


def to_torch_state(graph: Graph, variables: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The PyTorch state dict of a network's variables, with the buffers that `load_state_dict` asks for."""
    state: dict[str, NDArray[Any]] = {}
    for path, leaf in flatten(variables):
        name = torch_name(path)
        state[name] = np.asarray(_to_torch_layout(path, np.asarray(leaf)), order="C")
        if path[-1] == "var":
            state[name.removesuffix("running_var") + "num_batches_tracked"] = np.zeros((), np.int64)
    return state | _head_buffers(graph)


def _head_buffers(graph: Graph) -> dict[str, NDArray[Any]]:
    """Anchors of the detect layer in cells; YOLOv7's also keeps them in pixels."""
    anchors = np.asarray(graph.anchors, np.float32)
    head = f"{PREFIX}{graph.detect.name}."
    buffers: dict[str, NDArray[Any]] = {
        f"{head}anchors": anchors / np.asarray(graph.strides, np.float32).reshape(-1, 1, 1)
    }
    if graph.single_class_score == "objectness":
        buffers[f"{head}anchor_grid"] = anchors.reshape(len(anchors), 1, -1, 1, 1, 2)
    return buffers


def head_in_state(graph: Graph, state: Mapping[str, NDArray[Any]]) -> Graph:
    """The graph with the anchors that a PyTorch state dict holds, and with the scoring of the family it comes from."""
    head = f"{PREFIX}{graph.detect.name}."
    cells = state.get(f"{head}anchors")
    if cells is None or cells.ndim != 3 or cells.shape[0] != len(graph.strides) or cells.shape[2] != 2:
        return graph
    pixels = cells.astype(np.float64) * np.asarray(graph.strides, np.float64).reshape(-1, 1, 1)
    graph = with_anchors(graph, tuple(tuple((float(w), float(h)) for w, h in level) for level in pixels))
    has_grid = f"{head}anchor_grid" in state  # which only YOLOv5 from v6.0 on has not
    return graph if has_grid else replace(graph, single_class_score="product")


def classes_in_state(graph: Graph, state: Mapping[str, NDArray[Any]]) -> int | None:
    """The number of classes that a PyTorch state dict has rows for in the detect layer of a graph, if it has such."""
    kernel = state.get(f"{PREFIX}{graph.detect.name}.m.0.weight")
    per_anchor, rest = divmod(kernel.shape[0], len(graph.anchors[0])) if kernel is not None and kernel.ndim else (0, 0)
    return per_anchor - 5 if per_anchor > 5 and rest == 0 else None

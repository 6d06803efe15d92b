"""The project's weights file: `.safetensors` with the graph, the class names and the origin of the weights inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized

from yolov7_jax.convert.torch_names import LoadReport, compare, flatten, from_torch_state, to_torch_state, unflatten
from yolov7_jax.errors import WeightsError
from yolov7_jax.files import write_atomically
from yolov7_jax.graph.layers import infer_shapes
from yolov7_jax.graph.spec import Graph

FORMAT = "yolov7_jax.1"
NAMINGS = ("tree", "torch")


@dataclass(frozen=True)
class Weights:
    """A network with what it knows.

    graph: its architecture. variables: {"params", "batch_stats"} of float32 numpy arrays. names: of the classes.
    meta: where the weights come from (JSON values): source file, epoch, hyper-parameters, input_size and the like.
    """

    graph: Graph
    variables: Mapping[str, Any]
    names: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.names) != self.graph.num_classes:
            raise WeightsError(
                f"has {len(self.names)} class names but {self.graph.num_classes} classes; "
                "expected as many names as classes"
            )

    @property
    def input_size(self) -> int:
        """The side of images in pixels that the network is meant for: the file's word, else the graph's."""
        return int(self.meta.get("input_size") or self.graph.default_size)


def save(path: Path | str, weights: Weights, *, naming: str = "tree") -> None:
    """Writes a `.safetensors` file, whole or not at all.

    naming "tree" keeps tensors by tree path (params/0/conv/kernel); "torch" by PyTorch name and layout, such that
    `model.load_state_dict(safetensors.torch.load_file(path))` takes it. Both read back with `load`.

    Raises:
        WeightsError: the name does not end in .safetensors, or the naming is unknown.
        InputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: weights are written as .safetensors; give a name with that ending")
    if naming not in NAMINGS:
        raise WeightsError(f"{path}: naming must be one of {', '.join(NAMINGS)}, got {naming!r}")
    tensors = (
        to_torch_state(weights.graph, weights.variables)
        if naming == "torch"
        else {"/".join(leaf_path): np.asarray(leaf) for leaf_path, leaf in flatten(weights.variables)}
    )
    metadata = {
        "format": FORMAT,
        "naming": naming,
        "graph": weights.graph.to_json(),
        "names": json.dumps(weights.names),
        "meta": json.dumps({**weights.meta, "input_size": weights.input_size}),
    }
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        content = _ordered(serialized(contiguous, metadata))
    except SafetensorError as error:
        raise WeightsError(f"{path}: cannot be written ({error}); give arrays of numbers") from error
    write_atomically(path, content)


def _ordered(content: bytes) -> bytes:
    """The same file with its metadata in the order of their names: safetensors writes another one in every process."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[end:]))


def read_safetensors(path: Path | str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors and the metadata of any `.safetensors` file.

    Raises:
        WeightsError: the file cannot be read or is not a whole `.safetensors` file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: not a whole .safetensors file ({reason}); copy or export it again") from error


def from_safetensors(
    path: Path | str, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> tuple[Weights, LoadReport]:
    """The weights in a file that `save` wrote, of either naming, and the account of its tensors.

    Raises:
        WeightsError: the metadata is broken, or tensors do not fit the graph.
    """
    try:
        graph = Graph.from_json(metadata["graph"])
        names, meta, naming = json.loads(metadata["names"]), json.loads(metadata["meta"]), metadata["naming"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("names is no list of texts")
        if not isinstance(meta, dict):
            raise ValueError("meta is no object")
        if naming not in NAMINGS:
            raise ValueError(f"naming is {naming!r}, not one of {', '.join(NAMINGS)}")
        infer_shapes(graph.nodes, graph.channels)
        graph.check_side(int(meta.get("input_size", graph.default_size)))
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: its metadata cannot be read ({error}); write the file again") from error
    try:
        state = tensors if naming == "torch" else to_torch_state(graph, _tree(tensors))
        return Weights(graph, from_torch_state(graph, state), tuple(names), meta), compare(graph, state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _tree(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return unflatten((tuple(name.split("/")), array) for name, array in tensors.items())

"""Reads PyTorch checkpoints (`.pt`, `.pth`) without PyTorch, and without executing anything that is in them.

The file is a zip: `<root>/data.pkl` describes the objects (see `torch_pickle`), `<root>/data/<key>` holds the numbers
of the tensors, uncompressed. What is read never takes more than a few times the size of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolov7_jax.convert.torch_archive import ADVICE, Archive
from yolov7_jax.convert.torch_modules import activations_of, attributes_of, is_module, tensors_of
from yolov7_jax.convert.torch_pickle import read_pickle
from yolov7_jax.convert.torch_values import Budget, Instance, Name, NumpyArray, Refused, Tensor
from yolov7_jax.errors import WeightsError

_PARTS = ("ema", "model", "state_dict", "model_state_dict")
"""Where the weights are in checkpoints, the best first: the EMA is what is published."""
_WHOLE = "file"
_MAX_ENTRIES = 100_000
_MAX_DEPTH = 64
_MAX_TEXT = 1000
_ENDLESS = "has settings that are nested too deep, too many, or hold themselves; save only the state dict"
_COPIES = 4
_SPARE = 2**20


@dataclass(frozen=True)
class TorchCheckpoint:
    """What a PyTorch file holds.

    kind: "model" (a whole pickled module) or "state_dict". source: the part that the state was taken from ("ema",
    "model", "state_dict" ..., "file" for a file that is a state dict). state: arrays by PyTorch name, in the order of
    `Module.state_dict()`, with their own layout, dtype and memory. config: the model's YAML as a dict. names: of the
    classes. hyperparameters: the model's `hyp`. meta: numbers and short texts beside the model. optimizer: its state
    dict. other: the states of the other parts, by part. activations: of a whole module's parts, by their paths (see
    `torch_modules.activations_of`).
    """

    path: Path
    kind: str
    source: str
    state: Mapping[str, np.ndarray]
    config: Mapping[str, Any] | None
    names: tuple[str, ...] | None
    hyperparameters: Mapping[str, Any] | None
    strides: tuple[int, ...] | None
    meta: Mapping[str, Any]
    optimizer: Mapping[str, Any] | None
    other: Mapping[str, Mapping[str, np.ndarray]]
    activations: Mapping[str, str]


def read_torch_file(path: Path | str, *, prefer: str = "ema") -> TorchCheckpoint:
    """The weights of a PyTorch checkpoint and what is known of their model; nothing in the file is executed.

    prefer: the part to take where there are several (the others are in `other`); a part that is not there is passed
    over for the next of ema, model, state_dict, model_state_dict.

    Raises:
        WeightsError: the file is not there, damaged, of another kind, or holds what weights do not need.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise Refused(f"is not a file; {ADVICE}")
        with path.open("rb") as file:
            archive = Archive(path, file)
            return _checkpoint(path, read_pickle(archive.read("data.pkl"), archive.storages), _Arrays(archive), prefer)
    except Refused as refused:
        raise WeightsError(f"{path}: {refused}") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}); {ADVICE}") from error


class _Arrays:
    """Copies tensors out of an archive, no more of them than a few times its size."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        refusal = f"has tensors of more than {_COPIES} times its own size (views of few numbers); {ADVICE}"
        self.bytes = Budget(_COPIES * archive.size + _SPARE, refusal)
        self.storages: dict[str, bytes] = {}

    def __call__(self, tensor: Tensor) -> np.ndarray:
        dtype, key = tensor.storage.dtype, tensor.storage.key
        self.bytes.spend(math.prod(tensor.shape) * dtype.itemsize)
        if 0 in tensor.shape:
            return np.zeros(tensor.shape, dtype)
        if key not in self.storages:
            self.storages[key] = self.archive.read(f"data/{key}")
        steps = zip(tensor.shape, tensor.strides, strict=True)
        strides = tuple(step * dtype.itemsize if size > 1 else 0 for size, step in steps)
        stored = np.uint8 if dtype == np.bool_ else dtype  # any byte but 0 is true
        offset = tensor.offset * dtype.itemsize
        return np.ndarray(tensor.shape, stored, self.storages[key], offset, strides).astype(dtype, order="C")


class _Plain:
    """Turns settings in a file into plain Python values, no more of them than a file can hold."""

    def __init__(self, tensor: Callable[[Tensor], np.ndarray], *, lists: bool) -> None:
        self.tensor = tensor
        self.lists = lists
        self.values = Budget(_MAX_ENTRIES, _ENDLESS)

    def __call__(self, value: Any, depth: int = 0) -> Any:
        self.values.spend(1)
        if depth > _MAX_DEPTH:
            raise Refused(_ENDLESS)
        match value:
            case None | bool() | int() | float() | str():
                return value
            case Name():
                return str(value)
            case Tensor():
                array = self.tensor(value)
                return self(NumpyArray(array), depth) if self.lists else array
            case NumpyArray(value=np.ndarray() as array):
                self.values.spend(array.size)
                return array.tolist()
            case dict():
                return {key: self(item, depth + 1) for key, item in value.items()}
            case list():
                return [self(item, depth + 1) for item in value]
            case set():
                return [self(item, depth + 1) for item in sorted(value, key=str)]
            case tuple():
                return tuple(self(item, depth + 1) for item in value)
            case Instance() if content := value.items or value.elements or value.attributes:
                return self(content, depth + 1)
        kind = value.kind if isinstance(value, Instance) else type(value).__name__
        raise Refused(f"has a setting of type {kind}; expected numbers, texts, lists and dicts")


def _checkpoint(path: Path, content: Any, arrays: _Arrays, prefer: str) -> TorchCheckpoint:
    entries = _entries()
    whole = tensors_of(content, entries)
    beside = content if isinstance(content, dict) and not whole else {}
    values = {_WHOLE: content} if whole else {key: value for key, value in beside.items() if type(key) is str}
    parts = {_WHOLE: whole} if whole else {key: tensors_of(value, entries) for key, value in values.items()}
    parts = {key: tensors for key, tensors in parts.items() if tensors}
    source = next((key for key in (prefer, *_PARTS, *parts) if key in parts), None)
    if source is None:
        raise Refused(f"holds no tensors as a model or a state dict; {ADVICE} with {', '.join(_PARTS)} in it")
    model = values[source]
    known = {**beside, **{key: value for key, value in attributes_of(model).items() if value is not None}}
    plain = _Plain(arrays, lists=True)
    states = {key: {name: arrays(tensor) for name, tensor in tensors.items()} for key, tensors in parts.items()}
    return TorchCheckpoint(
        path=path,
        kind="model" if is_module(model) else "state_dict",
        source=source,
        state=states.pop(source),
        config=_settings(known.get("yaml"), plain),
        names=_names(plain(known.get("names"))),
        hyperparameters=_settings(known.get("hyp"), plain),
        strides=_strides(plain(known.get("stride"))),
        meta=_meta(beside),
        optimizer=_settings(beside.get("optimizer"), _Plain(arrays, lists=False)),
        other=states,
        activations=activations_of(model, _entries()),
    )


def _entries() -> Budget:
    return Budget(_MAX_ENTRIES, f"has more than {_MAX_ENTRIES} tensors and modules; {ADVICE}")


def _settings(value: Any, plain: _Plain) -> dict[Any, Any] | None:
    return plain(value) if isinstance(value, dict | Instance) else None


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[number] for number in range(len(value))]
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(name, str | int) for name in value):
        raise Refused(
            "has class names that are not a list of texts, or texts numbered from 0; correct the model's names"
        )
    return tuple(str(name) for name in value)


def _strides(value: Any) -> tuple[int, ...] | None:
    levels = value if isinstance(value, list | tuple) else []
    whole = all(isinstance(level, int) or (isinstance(level, float) and level.is_integer()) for level in levels)
    return tuple(int(level) for level in levels) if levels and whole else None


def _meta(beside: Mapping[Any, Any]) -> dict[str, Any]:
    """The numbers and short texts of a checkpoint; best_fitness may be a numpy array of one number."""
    meta = {}
    for key, value in beside.items():
        if isinstance(value, NumpyArray) and value.value is not None and value.value.size == 1:
            value = value.value.item()
        if type(key) is str and (
            isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _MAX_TEXT)
        ):
            meta[key] = value
    return meta

"""Reads PyTorch checkpoints (`.pt`, `.pth`) without PyTorch, and without executing anything that is in them.

The file is a zip: `<root>/data.pkl` describes the objects (see `torch_pickle`), `<root>/data/<key>` holds the numbers
of the tensors, uncompressed. What is read never takes more than a few times the size of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolov7_jax.convert.torch_archive import ADVICE, Archive, Budget
from yolov7_jax.convert.torch_pickle import read_pickle
from yolov7_jax.convert.torch_values import Instance, Name, Numpy
from yolov7_jax.errors import WeightsError

_PARTS = ("ema", "model", "state_dict", "model_state_dict")
"""Where the weights are in checkpoints, the best first: the EMA is what is published."""
_WHOLE = "file"
_PARALLEL = "module"
_MAX_ENTRIES = 100_000
_MAX_DEPTH = 64
_MAX_TEXT = 1000
_MAX_NAME = 300
_ENDLESS = "has settings that are nested too deep, too many, or hold themselves; save only the state dict"
_COPIES = 4
_SPARE = 2**20

_ACTIVATIONS = {
    **{name: name for name in ("SiLU", "ReLU", "Hardswish", "Mish", "Sigmoid", "Identity")},
    "Swish": "SiLU",
    "MemoryEfficientSwish": "SiLU",
    "MemoryEfficientMish": "Mish",
}
"""What classes of activations compute, by their names alone: before PyTorch had them, model code brought its own."""
_LEAKY_SLOPE = 0.01  # PyTorch's default


@dataclass(frozen=True)
class TorchCheckpoint:
    """The weights in a PyTorch file, and what it says of their model.

    source: the part that the state was taken from ("ema", "model", "state_dict" ..., "file" for a file that is a model
    or a state dict itself). state: arrays by PyTorch name, in the order of `Module.state_dict()`, with their own
    layout, dtype and memory. activations: of a whole module's parts, as in `nn.LeakyReLU(0.1)`, by the state-dict path
    of the part; those that a part holds as `act`, and whose class has a known name. config: the model's YAML as a dict.
    names: of the classes. hyperparameters: the model's `hyp`. meta: numbers and short texts beside the model.
    """

    source: str
    state: Mapping[str, np.ndarray]
    activations: Mapping[str, str]
    config: Mapping[str, Any] | None
    names: tuple[str, ...] | None
    hyperparameters: Mapping[str, Any] | None
    meta: Mapping[str, Any]


def read_torch_file(path: Path | str) -> TorchCheckpoint:
    """The weights of a PyTorch checkpoint and what is known of their model; nothing in the file is executed.

    Raises:
        WeightsError: the file is not there, damaged, of another kind, or holds what weights do not need.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"is not a file; {ADVICE}")
        with path.open("rb") as file:
            archive = Archive(path, file)
            content = read_pickle(archive.read("data.pkl"), lambda key: archive.read(f"data/{key}"))
        return _checkpoint(content, archive.size)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}); {ADVICE}") from error


def _checkpoint(content: Any, size: int) -> TorchCheckpoint:
    within = content if isinstance(content, dict) else {}
    source, part, tensors, activations = _best_part(content, within)
    beside = {} if source == _WHOLE else within
    own = part.attributes if _is_module(part) else {}
    known = {**beside, **{key: value for key, value in own.items() if value is not None}}
    left = Budget(_MAX_ENTRIES, _ENDLESS)
    return TorchCheckpoint(
        source=source,
        state=_copied(tensors, size),
        activations=activations,
        config=_settings(known.get("yaml"), left),
        names=_names(_plain(known.get("names"), left)),
        hyperparameters=_settings(known.get("hyp"), left),
        meta=_meta(beside),
    )


def _best_part(content: Any, within: dict[Any, Any]) -> tuple[str, Any, dict[str, np.ndarray], dict[str, str]]:
    """The part of a file that has the weights, by its name, with its tensors and activations."""
    left = Budget(_MAX_ENTRIES, f"has more than {_MAX_ENTRIES} tensors and modules; {ADVICE}")
    parts = {key: within[key] for key in (*_PARTS, *within) if type(key) is str and key in within}
    for source, part in [(_WHOLE, content), *parts.items()]:
        model = _unwrapped(part)
        tensors, activations = _weights(model, left)
        if tensors:
            return source, model, tensors, activations
    raise WeightsError(f"holds no tensors as a model or a state dict; {ADVICE} with {', '.join(_PARTS)} in it")


def _is_module(value: Any) -> bool:
    return isinstance(value, Instance) and isinstance(value.attributes.get("_modules"), dict)


def _unwrapped(value: Any) -> Any:
    """The module that a DataParallel holds; anything else as it is."""
    modules = value.attributes["_modules"] if _is_module(value) else {}
    return modules[_PARALLEL] if list(modules) == [_PARALLEL] and _is_module(modules[_PARALLEL]) else value


def _weights(value: Any, left: Budget) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a module or of a state dict by name, and a module's activations; empty for all else."""
    if _is_module(value):
        return _module_weights(value, left)
    if not isinstance(value, dict):
        return {}, {}
    left.spend(len(value))
    if not all(type(name) is str and isinstance(item, np.ndarray) for name, item in value.items()):
        return {}, {}
    prefix = f"{_PARALLEL}."
    wrapped = all(name.startswith(prefix) for name in value)
    return {name.removeprefix(prefix): tensor for name, tensor in value.items()} if wrapped else value, {}


def _module_weights(root: Instance, left: Budget) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors as `Module.state_dict()` has them: a module's own, then those of its modules, in order; activations."""
    tensors: dict[str, np.ndarray] = {}
    activations: dict[str, str] = {}
    pending = [("", root)]
    while pending:
        prefix, module = pending.pop()
        parameters, buffers, modules = (_held(module, kind, left) for kind in ("_parameters", "_buffers", "_modules"))
        hidden = module.attributes.get("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set) else set()
        own = parameters | {name: value for name, value in buffers.items() if name not in hidden}
        tensors |= {_joined(prefix, name): value for name, value in own.items() if isinstance(value, np.ndarray)}
        if (text := _activation(modules.get("act"))) is not None:
            activations[prefix.removesuffix(".")] = text
        children = [(_joined(prefix, name) + ".", child) for name, child in modules.items() if _is_module(child)]
        pending += reversed(children)
    return tensors, activations


def _held(module: Instance, kind: str, left: Budget) -> dict[str, Any]:
    held = module.attributes.get(kind)
    held = held if isinstance(held, dict) else {}
    left.spend(len(held))
    return {name: value for name, value in held.items() if type(name) is str}


def _joined(prefix: str, name: str) -> str:
    if len(prefix) + len(name) > _MAX_NAME:
        raise WeightsError(f"has tensor names above {_MAX_NAME} characters, or modules that hold themselves; {ADVICE}")
    return prefix + name


def _activation(module: Any) -> str | None:
    if not isinstance(module, Instance):
        return None
    if module.kind.name == "LeakyReLU":
        slope = module.attributes.get("negative_slope", _LEAKY_SLOPE)
        return f"LeakyReLU({float(slope)})" if isinstance(slope, int | float) and 0 <= slope < 1 else None
    return _ACTIVATIONS.get(module.kind.name)


def _copied(views: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Tensors with memory of their own, if they take no more of it than a few times the size of the file."""
    if sum(view.nbytes for view in views.values()) > _COPIES * size + _SPARE:
        raise WeightsError(f"has tensors of more than {_COPIES} times its own size (views of few numbers); {ADVICE}")
    stored = {name: view.view(np.uint8) if view.dtype == np.bool_ else view for name, view in views.items()}
    return {name: stored[name].astype(view.dtype, order="C") for name, view in views.items()}  # any byte but 0 is true


def _plain(value: Any, left: Budget, depth: int = 0) -> Any:
    """Settings in a file as plain Python values. left: how many values a file may still have."""
    left.spend(1)
    if depth > _MAX_DEPTH:
        raise WeightsError(_ENDLESS)
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Name():
            return str(value)
        case Numpy(value=np.ndarray() as array) | (np.ndarray() as array):
            left.spend(array.size)
            return array.tolist()
        case dict():
            return {key: _plain(item, left, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_plain(item, left, depth + 1) for item in value)
        case set() | frozenset():
            return [_plain(item, left, depth + 1) for item in sorted(value, key=str)]
        case Instance() if content := value.items or value.elements or value.attributes:
            return _plain(content, left, depth + 1)
    kind = value.kind if isinstance(value, Instance) else type(value).__name__
    raise WeightsError(f"has a setting of type {kind}; expected numbers, texts, lists and dicts")


def _settings(value: Any, left: Budget) -> dict[Any, Any] | None:
    return _plain(value, left) if isinstance(value, dict | Instance) else None


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[number] for number in range(len(value))]
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(name, str | int) for name in value):
        raise WeightsError(
            "has class names that are not a list of texts, or texts numbered from 0; correct the model's names"
        )
    return tuple(str(name) for name in value)


def _meta(beside: Mapping[Any, Any]) -> dict[str, Any]:
    """The numbers and short texts of a checkpoint; best_fitness may be a numpy array of one number."""
    meta = {}
    for key, value in beside.items():
        if isinstance(value, Numpy) and isinstance(value.value, np.ndarray) and value.value.size == 1:
            value = value.value.item()
        if type(key) is str and (
            isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _MAX_TEXT)
        ):
            meta[key] = value
    return meta

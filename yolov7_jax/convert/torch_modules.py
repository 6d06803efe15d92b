"""The modules that a whole-model checkpoint holds: their tensors by state-dict name, and their activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from yolov7_jax.convert.torch_archive import ADVICE
from yolov7_jax.convert.torch_values import Budget, Instance, Refused, Tensor

Value = TypeVar("Value")

_PARALLEL = "module."
_MAX_NAME = 300
_ACTIVATIONS = {
    **{name: name for name in ("SiLU", "ReLU", "Hardswish", "Mish", "Sigmoid", "Identity")},
    "Swish": "SiLU",
    "MemoryEfficientSwish": "SiLU",
    "MemoryEfficientMish": "Mish",
}
"""What classes of activations compute, by their names alone: before PyTorch had them, model code brought its own."""
_LEAKY_SLOPE = 0.01  # PyTorch's default


def is_module(value: Any) -> bool:
    """Whether a value of a file is a pickled module."""
    return isinstance(value, Instance) and isinstance(value.attributes.get("_modules"), dict)


def tensors_of(value: Any, entries: Budget) -> dict[str, Tensor]:
    """The state dict of a module or of a dict of tensors, without the prefix of DataParallel; empty for all else.

    entries: what is left of the tensors and modules that a file may have.

    Raises:
        Refused: they are more, or a name is very long, as those of modules that hold themselves.
    """
    if is_module(value):
        return _without_wrapper(dict(_module_tensors(value, entries)))
    if not isinstance(value, dict):
        return {}
    entries.spend(len(value))
    is_state = all(type(name) is str and isinstance(item, Tensor) for name, item in value.items())
    return _without_wrapper(value) if is_state else {}


def activations_of(value: Any, entries: Budget) -> dict[str, str]:
    """The activations of a module's parts, as in `nn.LeakyReLU(0.1)`, by the state-dict path of the part.

    Those are told that a part holds as `act`, and whose class has a known name.

    Raises:
        Refused: as `tensors_of`.
    """
    if not is_module(value):
        return {}
    found = {
        prefix.removesuffix("."): text
        for prefix, part in _parts(value, entries)
        if (text := _activation(part.attributes["_modules"].get("act"))) is not None
    }
    return _without_wrapper(found)


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of a module, or of the one that a DataParallel holds."""
    if not is_module(value):
        return {}
    modules = value.attributes["_modules"]
    inner: Any = modules.get("module") if len(modules) == 1 else None
    return inner.attributes if is_module(inner) else value.attributes


def _without_wrapper(named: dict[str, Value]) -> dict[str, Value]:
    if all(name.startswith(_PARALLEL) for name in named):
        return {name.removeprefix(_PARALLEL): value for name, value in named.items()}
    return named


def _parts(root: Instance, entries: Budget) -> Iterator[tuple[str, Instance]]:
    """A module and all in it, each with the prefix of its names, in the order of `Module.state_dict()`."""
    pending = [("", root)]
    while pending:
        prefix, module = pending.pop()
        yield prefix, module
        modules = _held(module, "_modules", entries)
        children = [(_joined(prefix, name) + ".", child) for name, child in modules.items() if is_module(child)]
        pending.extend(reversed(children))


def _module_tensors(root: Instance, entries: Budget) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a module as `Module.state_dict()` has them: its own, then those of its modules, in order."""
    for prefix, module in _parts(root, entries):
        passing = module.attributes.get("_non_persistent_buffers_set")
        hidden = passing if isinstance(passing, set) else set()
        buffers = _held(module, "_buffers", entries).items()
        own = _held(module, "_parameters", entries) | {name: value for name, value in buffers if name not in hidden}
        yield from ((_joined(prefix, name), value) for name, value in own.items() if isinstance(value, Tensor))


def _held(module: Instance, kind: str, entries: Budget) -> dict[str, Any]:
    held = module.attributes.get(kind)
    held = held if isinstance(held, dict) else {}
    entries.spend(len(held))
    return {name: value for name, value in held.items() if type(name) is str}


def _joined(prefix: str, name: str) -> str:
    if len(prefix) + len(name) > _MAX_NAME:
        raise Refused(f"has tensor names above {_MAX_NAME} characters, or modules that hold themselves; {ADVICE}")
    return prefix + name


def _activation(module: Any) -> str | None:
    if not isinstance(module, Instance):
        return None
    if module.kind.name == "LeakyReLU":
        slope = module.attributes.get("negative_slope", _LEAKY_SLOPE)
        return f"LeakyReLU({float(slope)})" if isinstance(slope, int | float) and 0 <= slope < 1 else None
    return _ACTIVATIONS.get(module.kind.name)

"""The calls that PyTorch and numpy write into pickles for plain data, answered with inert values.

`CALLS` is the whole of what a file can ask for; each entry checks its arguments and gives None where they do not fit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from yolov7_jax.convert.torch_values import (
    Budget,
    Instance,
    Name,
    NumpyArray,
    NumpyDtype,
    Refused,
    Storage,
    Tensor,
    damaged,
    shown,
)

_MAX_NUMBERS = 2**48
_MAX_AXES = 32


class Limits(NamedTuple):
    """What a file may still ask for: objects, and bytes copied from its texts."""

    objects: Budget
    copies: Budget


_STORAGES = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.ComplexFloatStorage": np.complex64,
    "torch.ComplexDoubleStorage": np.complex128,
}
_NUMPY_CODES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_CLOSED = sys.stdlib_module_names | {"commands", "exceptions", "ml_dtypes", "numpy", "torch"}
"""Packages whose classes may not have objects here, but for `torch.nn` and these two."""
_OPEN = frozenset({"argparse.Namespace", "types.SimpleNamespace"})
_SILENT = (
    *(f"pathlib.{name}" for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "timedelta", "timezone")),
    "builtins.slice",
)
"""Calls that give something harmless which no one here asks for: an empty object takes its place."""
_KEYS = (str, int, float, bool, bytes, type(None))


def key_of(value: Any) -> Any:
    """A key of a dict: of a type whose hash neither recurses nor can be made to collide at will."""
    if type(value) not in _KEYS or (type(value) is int and not -(2**63) <= value < 2**64):
        raise Refused(f"has a dictionary key of type {type(value).__name__}; expected texts and numbers")
    return value


def is_shape(sizes: tuple[Any, ...]) -> bool:
    """Whether these can be the sizes of an array: whole, few, and of a product that no machine exceeds."""
    whole = len(sizes) <= _MAX_AXES and all(type(size) is int and size >= 0 for size in sizes)
    return whole and math.prod(max(size, 1) for size in sizes) <= _MAX_NUMBERS


def storage(reference: Any, sizes: Mapping[str, int]) -> Storage:
    """The memory that a persistent id of PyTorch means. sizes: the bytes there are for each storage key.

    Raises:
        Refused: it is described otherwise, of an unknown kind, missing, or smaller than declared.
    """
    match reference:
        case ("storage", Name() as kind, str(key), str(), int(count)):
            pass
        case _:
            raise damaged("the memory of a tensor is not described as PyTorch does")
    if str(kind) not in _STORAGES:
        raise Refused(
            f"holds tensors of kind {kind} (quantized or unknown); save a state dict of plain tensors instead"
        )
    dtype = np.dtype(_STORAGES[str(kind)])
    if key not in sizes:
        raise damaged(f"its member data/{shown(key)} with the numbers of a tensor is missing")
    if not 0 <= count * dtype.itemsize <= sizes[key]:
        raise damaged(f"its member data/{shown(key)} has {sizes[key]} bytes, not {shown(count)} numbers as declared")
    return Storage(key, dtype, count)


def _tensor(_: Limits, args: tuple[Any, ...]) -> Tensor | None:
    match args:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            pass
        case _:
            return None
    known = is_shape(shape) and len(shape) == len(strides)
    if not known or not all(type(step) is int and step >= 0 for step in (offset, *strides)):
        raise damaged("a tensor has an impossible shape, offset or stride")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise damaged(f"a tensor reaches beyond the {storage.count} numbers of its member data/{shown(storage.key)}")
    return Tensor(storage, offset, shape, strides)


def _parameter(_: Limits, args: tuple[Any, ...]) -> Any:
    return args[0] if args and isinstance(args[0], Tensor) else None


def _typed_tensor(limits: Limits, args: tuple[Any, ...]) -> Any:
    match args:
        case (Name() as function, _, tuple(inner), *_) if str(function) in _REBUILD:
            return _REBUILD[str(function)](limits, inner)
        case (Name() as function, *_):
            raise call_refused(function)
    return None


def _set(limits: Limits, args: tuple[Any, ...]) -> set[Any] | None:
    match args:
        case () | (list(),):
            limits.objects.spend(sum(map(len, args)))
            return {key_of(element) for elements in args for element in elements}
    return None


def _dict(_: Limits, args: tuple[Any, ...]) -> dict[Any, Any] | None:
    match args:  # OrderedDict(), defaultdict(list): the items come later
        case () | (None | Name(),):
            return {}
    return None


def _encoded(limits: Limits, args: tuple[Any, ...]) -> bytes | None:
    match args:
        case (str(text), "latin1" | "latin-1"):
            limits.copies.spend(len(text))
            return text.encode("latin-1") if max(text, default="") <= "\xff" else None
    return None


def _numpy_dtype(_: Limits, args: tuple[Any, ...]) -> NumpyDtype | None:
    match args:
        case (str(code), *_) if code in _NUMPY_CODES:
            return NumpyDtype(np.dtype(code))
        case (str(code), *_):
            raise Refused(f"holds a numpy array of type {shown(code)}; expected numbers, save the file without it")
    return None


def _numpy_array(_: Limits, args: tuple[Any, ...]) -> NumpyArray | None:
    return NumpyArray() if args and args[0] == Name("numpy", "ndarray") else None


def _numpy_scalar(_: Limits, args: tuple[Any, ...]) -> Any:
    match args:
        case (NumpyDtype(dtype=dtype), bytes(content)) if len(content) == dtype.itemsize:
            return np.frombuffer(content, dtype)[0].item()
    return None


def _object(_: Limits, args: tuple[Any, ...]) -> Instance | None:
    match args:
        case (Name() as kind, Name("builtins", "object"), None):
            return instance(kind)
    return None


_Call = Callable[[Limits, tuple[Any, ...]], Any]
_REBUILD: dict[str, _Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
CALLS: dict[str, _Call] = {
    **_REBUILD,
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "torch.Size": lambda _, args: args[0] if args and isinstance(args[0], tuple) else None,
    "torch.device": lambda _, args: args[0] if args and isinstance(args[0], str) else None,
    "builtins.bytes": lambda _, args: None if args else b"",  # how protocol 2 writes it
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "copyreg._reconstructor": _object,
    **dict.fromkeys(_SILENT, lambda _limits, _args: Instance(Name("builtins", "object"))),
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy.core.multiarray.scalar": _numpy_scalar,
}


def call_refused(function: Any) -> Refused:
    """The refusal of a call that is not in `CALLS`, or of an object of a class that may have none."""
    name = str(function) if isinstance(function, Name) else f"a {type(function).__name__}"
    if name.startswith(("torch._utils._rebuild", "torch.serialization._get_layout")):
        return Refused(f"holds a quantized, sparse or empty tensor (it calls {name}); save dense tensors instead")
    return Refused(
        f"calls {name}, which weights do not need, and nothing was executed; "
        "use a file from a source you trust, or save only the state dict"
    )


def instance(kind: Any) -> Instance:
    """An object of a class, without anything in it."""
    known = isinstance(kind, Name) and (
        kind.module.split(".")[0] not in _CLOSED or kind.module.startswith("torch.nn.") or str(kind) in _OPEN
    )
    if not known:
        raise call_refused(kind)
    return Instance(kind)

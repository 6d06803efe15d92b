"""The inert values that a PyTorch pickle is read into, and what stands for the calls that PyTorch writes into it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from yolov7_jax.convert.torch_archive import Budget, damaged, shown
from yolov7_jax.errors import WeightsError

_MAX_NUMBERS = 2**48
_MAX_AXES = 8  # networks have up to 6
_KEYS = (str, int, float, bool, bytes, type(None))

_STORAGES: dict[str, Any] = {
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
"""The types of numbers by the classes of their storages."""
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_NUMPY_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_UNASKED = (
    *(f"pathlib.{name}" for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "timedelta", "timezone")),
    "builtins.slice",
)
"""Calls that give something harmless which no one here asks for: an empty object takes its place."""
_CLOSED = sys.stdlib_module_names | {"commands", "exceptions", "ml_dtypes", "numpy", "torch"}
"""Packages whose classes may not have objects here, but for `torch.nn` and these two."""
_OPEN = ("argparse.Namespace", "types.SimpleNamespace")


@dataclass(frozen=True, slots=True)
class Name:
    """A function or a class that the file names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Instance:
    """An object of any class: the attributes that the file gives it; items if it is a dict, elements if a list."""

    kind: Name
    attributes: dict[str, Any] = field(default_factory=dict)
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, element: Any) -> None:  # noqa: D102 - as of a list
        self.elements.append(element)

    def extend(self, elements: list[Any]) -> None:  # noqa: D102
        self.elements.extend(elements)


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """The memory of tensors: `count` numbers at the beginning of a member of the archive."""

    content: bytes
    dtype: np.dtype[Any]
    count: int


@dataclass(eq=False, slots=True)
class Numpy:
    """A type or an array of numpy; the byte order of the one and the content of the other come later."""

    value: np.dtype[Any] | np.ndarray | None = None


def check_key(value: Any) -> None:
    """Whether a value may be a key: of a type whose hash neither recurses nor can be made to collide at will.

    Raises:
        WeightsError: it may not.
    """
    if type(value) not in _KEYS or (type(value) is int and not -(2**63) <= value < 2**64):
        raise WeightsError(f"has a dictionary key of type {type(value).__name__}; expected texts and numbers")


def _is_shape(sizes: tuple[Any, ...]) -> bool:
    """Whether these can be the sizes of an array: whole, few, and of a product that no machine exceeds."""
    whole = len(sizes) <= _MAX_AXES and all(type(size) is int and size >= 0 for size in sizes)
    return whole and math.prod(max(size, 1) for size in sizes) <= _MAX_NUMBERS


def new_instance(kind: Any) -> Instance:
    """An object of a class, without anything in it.

    Raises:
        WeightsError: it is a class of Python's, PyTorch's or numpy's own.
    """
    known = isinstance(kind, Name) and (
        kind.module.split(".")[0] not in _CLOSED or kind.module.startswith("torch.nn.") or str(kind) in _OPEN
    )
    if not known:
        raise _refused(kind)
    return Instance(kind)


def called(function: Any, args: Any, copies: Budget) -> Any:
    """What a call gives, if it is one of those that PyTorch and numpy write for plain data.

    copies: what may still be copied from values of the file.

    Raises:
        WeightsError: it is any other call.
    """
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise _refused(function)
    value = _of_torch(function, args)
    return _of_python(function, args, copies) if value is None else value


def storage_of(reference: Any, read: Callable[[str], bytes]) -> Storage:
    """The storage that a persistent id of PyTorch means. read: gives the bytes that the archive has for a key.

    Raises:
        WeightsError: it is described otherwise, of an unknown kind, or smaller than declared.
    """
    match reference:
        case ("storage", Name() as kind, str(key), str(), int(count)):
            pass
        case _:
            raise damaged("the storage of a tensor is not described as PyTorch does")
    if str(kind) not in _STORAGES:
        raise WeightsError(
            f"holds tensors of kind {kind} (quantized or unknown); save a state dict of plain tensors instead"
        )
    dtype, content = np.dtype(_STORAGES[str(kind)]), read(key)
    if not 0 <= count * dtype.itemsize <= len(content):
        raise damaged(f"its member data/{shown(key)} has {len(content)} bytes, not {shown(count)} numbers as declared")
    return Storage(content, dtype, count)


def set_state(target: Any, state: Any, copies: Budget) -> None:
    """What BUILD does: gives a value its state. copies: as in `called`.

    Raises:
        WeightsError: the value has no state, or another kind of it.
    """
    match target, state:
        case Instance(), _:  # a dict, with __slots__ a tuple of two; other states hold no weights
            for attributes in state[:2] if isinstance(state, tuple) else (state,):
                if isinstance(attributes, dict):
                    copies.spend(len(attributes))
                    if not all(type(name) is str for name in attributes):
                        raise damaged(f"an attribute of {target.kind} has a name that is not text")
                    target.attributes.update(attributes)
        case dict(), dict():
            pass  # the attributes of an OrderedDict
        case Numpy(value=np.dtype() as dtype), (_, "<" | ">" | "=" | "|" as order, *_):
            target.value = dtype.newbyteorder(order)
        case (
            Numpy(value=None),
            (_, tuple(shape), Numpy(value=np.dtype() as dtype), int(fortran), bytes(content)),
        ) if _is_shape(shape) and math.prod(shape) * dtype.itemsize == len(content):
            target.value = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
        case _:
            raise damaged(f"it sets the state of a {type(target).__name__} that has none such")


def _of_torch(function: Name, args: tuple[Any, ...]) -> Any:
    match str(function), args:
        case name, (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if name in _TENSORS:
            return _view(storage, offset, shape, strides)
        case name, (np.ndarray() as tensor, *_) if name in _PARAMETERS:
            return tensor
        case "torch._tensor._rebuild_from_type_v2", (Name() as inner, _, tuple(given), *_):
            if str(inner) not in _TENSORS + _PARAMETERS:
                raise _refused(inner)
            return _of_torch(inner, given)
        case ("torch.Size", (tuple() as value,)) | ("torch.device", (str() as value, *_)):
            return value
    return None


def _of_python(function: Name, args: tuple[Any, ...], copies: Budget) -> Any:
    match str(function), args:
        case "builtins.bytes", ():  # how protocol 2 writes it
            return b""
        case "builtins.set" | "builtins.frozenset", () | (list(),):
            copies.spend(sum(map(len, args)))
            for element in (elements := args[0] if args else []):
                check_key(element)
            return set(elements)
        case "collections.OrderedDict" | "collections.defaultdict", () | (None | Name(),):
            return {}  # the items come later
        case "copyreg._reconstructor", (kind, Name("builtins", "object"), None):
            return new_instance(kind)
        case "_codecs.encode", (str(text), "latin1" | "latin-1") if max(text, default="") <= "\xff":
            copies.spend(len(text))
            return text.encode("latin-1")
        case "numpy.dtype", (str(code), *_):
            if code not in _NUMPY_CODES:
                raise WeightsError(
                    f"holds a numpy array of type {shown(code)}; expected numbers, save the file without it"
                )
            return Numpy(np.dtype(code))
        case "numpy.core.multiarray._reconstruct", (Name("numpy", "ndarray"), *_):
            return Numpy()
        case "numpy.core.multiarray.scalar", (Numpy(value=np.dtype() as dtype), bytes(number)):
            return np.frombuffer(number, dtype).item()
        case name, _ if name in _UNASKED:
            return Instance(Name("builtins", "object"))
    raise _refused(function)


def _view(storage: Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> np.ndarray:
    """The part of a storage that a tensor is; offset and strides count numbers, not bytes."""
    whole = all(type(step) is int and step >= 0 for step in (offset, *strides))
    if not (whole and _is_shape(shape) and len(shape) == len(strides)):
        raise damaged("a tensor has an impossible shape, offset or stride")
    if 0 in shape:
        return np.ndarray(shape, storage.dtype, b"")
    if offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) >= storage.count:
        raise damaged(f"a tensor reaches beyond the {storage.count} numbers of its storage")
    width = storage.dtype.itemsize
    steps = [stride * width if size > 1 else 0 for size, stride in zip(shape, strides, strict=True)]
    return np.ndarray(shape, storage.dtype, storage.content, offset * width, steps)


def _refused(function: Any) -> WeightsError:
    """The refusal of a call, or of an object of a class that may have none."""
    name = str(function) if isinstance(function, Name) else f"a {type(function).__name__}"
    known = name in _TENSORS + _PARAMETERS
    if name.startswith(("torch._utils._rebuild", "torch.serialization._get_layout")) and not known:
        return WeightsError(f"holds a quantized, sparse or empty tensor (it calls {name}); save dense tensors instead")
    return WeightsError(
        f"calls {name} as weights never do, and nothing was executed; "
        "use a file from a source you trust, or save only the state dict"
    )

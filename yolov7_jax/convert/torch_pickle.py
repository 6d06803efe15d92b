"""Reads the pickle inside a PyTorch file as inert data: nothing that it names is imported, nothing is called.

A pickle is a program for a small stack machine, and it may ask for any function to be called. This machine has no
functions: a name stays a `Name`, an object of a class stays an `Instance` that holds what the file says of it, and a
call is answered from the table `_CALLS` (what PyTorch and numpy write for plain data) or refused by name. It knows
the instructions that picklers of protocol 2 to 5 write, no others. Nothing is allocated on the word of the file:
what is declared must be there, and steps, objects and copied bytes are counted. Nothing recurses.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pickletools import opcodes
from typing import Any

import ml_dtypes
import numpy as np

MAX_STEPS = 3_000_000
MAX_OBJECTS = 800_000
"""Of one file. yolov7-e6e with its EMA and its optimizer needs a quarter; the worst that they allow is some 200 MB."""
_TOO_MANY = f"holds too many objects (above {MAX_OBJECTS}); expected the checkpoint of one network"
_MAX_NUMBERS = 2**48
_MAX_AXES = 32
_MAX_NAME = 300


class Refused(Exception):  # noqa: N818 - never leaves the reader, which makes it a WeightsError
    """Why a file is not read, in words that follow the file's name."""


def damaged(what: str) -> Refused:
    """The refusal of a file that no program would write like this."""
    return Refused(f"is damaged ({what}); download it or copy it again")


def shown(value: object) -> str:
    """Text from a file made fit for a message: one line, short, ASCII."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


class Budget:
    """How much a file may ask for: what would go beyond is refused before it is made."""

    def __init__(self, limit: int, refusal: str) -> None:
        self.left = limit
        self.refusal = refusal

    def spend(self, amount: int) -> None:
        """Takes an amount away.

        Raises:
            Refused: there is not so much left.
        """
        self.left -= amount
        if self.left < 0:
            raise Refused(self.refusal)


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


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """The memory of tensors: the member `data/<key>` of the archive, which holds at least `count` numbers."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A view that lies inside its storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False, slots=True)
class NumpyDtype:
    """The type of a numpy array; its byte order comes after it is made."""

    dtype: np.dtype[Any]


@dataclass(eq=False, slots=True)
class NumpyArray:
    """An array of numpy; its content comes after it is made."""

    value: np.ndarray | None = None


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
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "pathlib._local": "pathlib",
}
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


def _key(value: Any) -> Any:
    """A key of a dict: of a type whose hash neither recurses nor can be made to collide at will."""
    if type(value) not in _KEYS or (type(value) is int and not -(2**63) <= value < 2**64):
        raise Refused(f"has a dictionary key of type {type(value).__name__}; expected texts and numbers")
    return value


def _is_shape(sizes: tuple[Any, ...]) -> bool:
    whole = len(sizes) <= _MAX_AXES and all(type(size) is int and size >= 0 for size in sizes)
    return whole and math.prod(max(size, 1) for size in sizes) <= _MAX_NUMBERS


def _storage(reference: Any, sizes: Mapping[str, int]) -> Storage:
    match reference:
        case ("storage", Name() as kind, str(key), str(), int(count)):
            pass
        case _:
            raise damaged("the memory of a tensor is not described as PyTorch does")
    if str(kind) not in _STORAGES:
        raise Refused(
            f"holds tensors of kind {kind} (quantised or unknown); save a state dict of plain tensors instead"
        )
    dtype = np.dtype(_STORAGES[str(kind)])
    if key not in sizes:
        raise damaged(f"its member data/{shown(key)} with the numbers of a tensor is missing")
    if not 0 <= count * dtype.itemsize <= sizes[key]:
        raise damaged(f"its member data/{shown(key)} has {sizes[key]} bytes, not {shown(count)} numbers as declared")
    return Storage(key, dtype, count)


def _tensor(_: _Machine, args: tuple[Any, ...]) -> Tensor | None:
    match args:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            pass
        case _:
            return None
    known = _is_shape(shape) and len(shape) == len(strides)
    if not known or not all(type(step) is int and step >= 0 for step in (offset, *strides)):
        raise damaged("a tensor has an impossible shape, offset or stride")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise damaged(f"a tensor reaches beyond the {storage.count} numbers of its member data/{shown(storage.key)}")
    return Tensor(storage, offset, shape, strides)


def _parameter(_: _Machine, args: tuple[Any, ...]) -> Any:
    return args[0] if args and isinstance(args[0], Tensor) else None


def _typed_tensor(machine: _Machine, args: tuple[Any, ...]) -> Any:
    match args:
        case (Name() as function, _, tuple(inner), *_) if str(function) in _REBUILD:
            return _REBUILD[str(function)](machine, inner)
        case (Name() as function, *_):
            raise _call_refused(function)
    return None


def _set(machine: _Machine, args: tuple[Any, ...]) -> set[Any] | None:
    match args:
        case () | (list(),):
            machine.objects.spend(sum(map(len, args)))
            return {_key(element) for elements in args for element in elements}
    return None


def _dict(_: _Machine, args: tuple[Any, ...]) -> dict[Any, Any] | None:
    match args:  # OrderedDict(), defaultdict(list): the items come later
        case () | (None | Name(),):
            return {}
    return None


def _encoded(machine: _Machine, args: tuple[Any, ...]) -> bytes | None:
    match args:
        case (str(text), "latin1" | "latin-1"):
            machine.copies.spend(len(text))
            return text.encode("latin-1") if max(text, default="") <= "\xff" else None
    return None


def _numpy_dtype(_: _Machine, args: tuple[Any, ...]) -> NumpyDtype | None:
    match args:
        case (str(code), *_) if code in _NUMPY_CODES:
            return NumpyDtype(np.dtype(code))
        case (str(code), *_):
            raise Refused(f"holds a numpy array of type {shown(code)}; expected numbers, save the file without it")
    return None


def _numpy_array(_: _Machine, args: tuple[Any, ...]) -> NumpyArray | None:
    return NumpyArray() if args and args[0] == Name("numpy", "ndarray") else None


def _numpy_scalar(_: _Machine, args: tuple[Any, ...]) -> Any:
    match args:
        case (NumpyDtype(dtype=dtype), bytes(content)) if len(content) == dtype.itemsize:
            return np.frombuffer(content, dtype)[0].item()
    return None


def _object(machine: _Machine, args: tuple[Any, ...]) -> Instance | None:
    match args:
        case (Name() as kind, Name("builtins", "object"), None):
            return machine.instance(kind)
    return None


_Call = Callable[["_Machine", tuple[Any, ...]], Any]
_REBUILD: dict[str, _Call] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_CALLS: dict[str, _Call] = {
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
    **dict.fromkeys(_SILENT, lambda _machine, _args: Instance(Name("builtins", "object"))),
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy.core.multiarray.scalar": _numpy_scalar,
}


def _call_refused(function: Any) -> Refused:
    name = str(function) if isinstance(function, Name) else f"a {type(function).__name__}"
    if name.startswith(("torch._utils._rebuild", "torch.serialization._get_layout")):
        return Refused(f"holds a quantised, sparse or empty tensor (it calls {name}); save dense tensors instead")
    return Refused(
        f"calls {name}, which weights do not need, and nothing was executed; "
        "use a file from a source you trust, or save only the state dict"
    )


class _Machine:
    """A pickle that is being read: the values on the stack, and those kept by number in the memo."""

    def __init__(self, content: bytes, sizes: Mapping[str, int]) -> None:
        self.content = content
        self.sizes = sizes
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.objects = Budget(MAX_OBJECTS, _TOO_MANY)
        self.copies = Budget(len(content), "is damaged (one text is used many times over); download it again")

    def run(self) -> Any:
        """The value of the whole pickle."""
        for _ in range(MAX_STEPS):
            code = self.take(1)[0]
            if code == _STOP:
                return self.pop()
            if code not in _STEPS:
                name = _INSTRUCTIONS.get(code, f"0x{code:02x}")
                raise Refused(
                    f"uses the pickle instruction {name}, which plain weights do not need, and nothing was executed; "
                    "use a file from a source you trust, or save it with the usual protocol of torch.save"
                )
            _STEPS[code](self)
        raise Refused(_TOO_MANY)

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.content):
            raise damaged("its pickle ends too early")
        piece = self.content[self.position : end]
        self.position = end
        return piece

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, content: bytes) -> str:
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise damaged("a text is not UTF-8") from None

    def line(self) -> str:
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise damaged("its pickle ends too early")
        return self.text(self.take(end + 1 - self.position)[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def make(self, value: Any) -> None:
        """Pushes a value that takes memory of its own."""
        self.objects.spend(1)
        self.stack.append(value)

    def pop(self) -> Any:
        return self.pops(1)[0]

    def pops(self, count: int) -> list[Any]:
        """Removes the uppermost values, oldest first."""
        if len(self.stack) < count:
            raise damaged("its pickle takes more values than it gives")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise damaged("its pickle has no mark where one is needed")
        return self.pops(max(len(self.stack) - self.marks.pop(), 0))

    def top(self) -> Any:
        return self.stack[-1] if self.stack else None

    def put(self, index: int) -> None:
        self.objects.spend(1)
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise damaged("its pickle uses a value that it did not keep")
        self.push(self.memo[index])

    def extend(self, values: list[Any]) -> None:
        match self.top():
            case list(elements) | Instance(elements=elements):
                elements.extend(values)
            case other:
                raise damaged(f"it appends to a {type(other).__name__}")

    def update(self, pairs: list[Any]) -> None:
        match self.top():
            case dict(items) | Instance(items=items) if len(pairs) % 2 == 0:
                items.update(zip(map(_key, pairs[::2]), pairs[1::2], strict=True))
            case other:
                raise damaged(f"it sets items of a {type(other).__name__}")

    def add(self, values: list[Any]) -> None:
        match self.top():
            case set(elements):
                elements.update(map(_key, values))
            case other:
                raise damaged(f"it adds elements to a {type(other).__name__}")

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise damaged("a name is not text")
        plain = len(module) + len(name) <= _MAX_NAME and name.isidentifier()
        if not (plain and all(map(str.isidentifier, module.split(".")))):
            raise Refused(
                f"names '{shown(name)}' of '{shown(module)}', which is no function or class of a module, "
                "and nothing was executed; use a file from a source you trust"
            )
        self.make(Name(_RENAMED.get(module, module), name))

    def reduce(self) -> None:
        function, args = self.pops(2)
        call = _CALLS.get(str(function)) if isinstance(function, Name) else None
        if call is None:
            raise _call_refused(function)
        value = call(self, args) if isinstance(args, tuple) else None
        if value is None:
            raise damaged(f"it calls {function} with arguments that this does not take")
        self.make(value)

    def new(self, kind: Any, args: Any) -> None:
        if not isinstance(args, tuple):
            raise damaged(f"it makes an object with arguments of type {type(args).__name__}")
        self.make(self.instance(kind))

    def instance(self, kind: Any) -> Instance:
        """An object of a class, without anything in it."""
        known = isinstance(kind, Name) and (
            kind.module.split(".")[0] not in _CLOSED or kind.module.startswith("torch.nn.") or str(kind) in _OPEN
        )
        if not known:
            raise _call_refused(kind)
        return Instance(kind)

    def build(self) -> None:
        state = self.pop()
        match self.top(), state:
            case Instance() as target, _:  # a dict, with __slots__ a tuple of two; other states hold no weights
                for attributes in state[:2] if isinstance(state, tuple) else (state,):
                    if isinstance(attributes, dict):
                        self.set_attributes(target, attributes)
            case dict(), dict():
                pass  # the attributes of an OrderedDict
            case NumpyDtype() as target, (_, "<" | ">" | "=" | "|" as order, *_):
                target.dtype = target.dtype.newbyteorder(order)
            case NumpyArray() as target, (_, tuple(shape), NumpyDtype(dtype=dtype), int(fortran), bytes(content)):
                if not (_is_shape(shape) and math.prod(shape) * dtype.itemsize == len(content)):
                    raise damaged("a numpy array has an impossible shape")
                target.value = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
            case target, _:
                raise damaged(f"it sets the state of a {type(target).__name__}")

    def set_attributes(self, target: Instance, attributes: dict[Any, Any]) -> None:
        self.objects.spend(len(attributes))
        if not all(type(name) is str for name in attributes):
            raise damaged(f"an attribute of {target.kind} has a name that is not text")
        target.attributes.update(attributes)


_INSTRUCTIONS = {ord(opcode.code): opcode.name for opcode in opcodes}
_BY_NAME: dict[str, Callable[[_Machine], Any]] = {
    "PROTO": lambda m: m.take(1),
    "FRAME": lambda m: m.take(8),
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "BININT": lambda m: m.push(m.number("<i")),
    "BININT1": lambda m: m.push(m.number("<B")),
    "BININT2": lambda m: m.push(m.number("<H")),
    "LONG1": lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True)),
    "BINFLOAT": lambda m: m.push(m.number(">d")),
    "SHORT_BINUNICODE": lambda m: m.push(m.text(m.take(m.number("<B")))),
    "BINUNICODE": lambda m: m.push(m.text(m.take(m.number("<I")))),
    "BINUNICODE8": lambda m: m.push(m.text(m.take(m.number("<Q")))),
    "SHORT_BINBYTES": lambda m: m.push(m.take(m.number("<B"))),
    "BINBYTES": lambda m: m.push(m.take(m.number("<I"))),
    "BINBYTES8": lambda m: m.push(m.take(m.number("<Q"))),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "TUPLE1": lambda m: m.make(tuple(m.pops(1))),
    "TUPLE2": lambda m: m.make(tuple(m.pops(2))),
    "TUPLE3": lambda m: m.make(tuple(m.pops(3))),
    "TUPLE": lambda m: m.make(tuple(m.since_mark())),
    "EMPTY_LIST": lambda m: m.make([]),
    "APPEND": lambda m: m.extend(m.pops(1)),
    "APPENDS": lambda m: m.extend(m.since_mark()),
    "EMPTY_DICT": lambda m: m.make({}),
    "SETITEM": lambda m: m.update(m.pops(2)),
    "SETITEMS": lambda m: m.update(m.since_mark()),
    "EMPTY_SET": lambda m: m.make(set()),
    "ADDITEMS": lambda m: m.add(m.since_mark()),
    "FROZENSET": lambda m: m.make({_key(value) for value in m.since_mark()}),
    "MARK": lambda m: m.marks.append(len(m.stack)),
    "POP": lambda m: m.pop(),
    "POP_MARK": lambda m: m.since_mark(),
    "BINPUT": lambda m: m.put(m.number("<B")),
    "LONG_BINPUT": lambda m: m.put(m.number("<I")),
    "MEMOIZE": lambda m: m.put(len(m.memo)),
    "BINGET": lambda m: m.get(m.number("<B")),
    "LONG_BINGET": lambda m: m.get(m.number("<I")),
    "GLOBAL": lambda m: m.name(m.line(), m.line()),
    "STACK_GLOBAL": lambda m: m.name(*m.pops(2)),
    "BINPERSID": lambda m: m.make(_storage(m.pop(), m.sizes)),
    "REDUCE": lambda m: m.reduce(),
    "NEWOBJ": lambda m: m.new(*m.pops(2)),
    "NEWOBJ_EX": lambda m: m.new(*m.pops(3)[:2]),
    "BUILD": lambda m: m.build(),
}
_STEPS = {code: _BY_NAME[name] for code, name in _INSTRUCTIONS.items() if name in _BY_NAME}
_STOP = ord(".")


def read_pickle(content: bytes, storage_sizes: Mapping[str, int]) -> Any:
    """The value that a PyTorch pickle describes: plain Python values, and the classes of this module for the rest.

    storage_sizes: the bytes that the archive has for each storage key.

    Raises:
        Refused: the pickle is damaged, or asks for what weights do not need.
    """
    return _Machine(content, storage_sizes).run()

"""Reads the pickle inside a PyTorch file as inert data: nothing that it names is imported, nothing is called.

A pickle is a program for a small stack machine, and it may ask for any function to be called. This machine has no
functions: a name stays a `Name`, an object of a class stays an `Instance` that holds what the file says of it, and a
call is answered from the table `CALLS` (what PyTorch and numpy write for plain data) or refused by name. It knows
the instructions that picklers of protocol 2 to 5 write, no others; `pickletools` reads their arguments. Nothing is
allocated on the word of the file: what is declared must be there, and steps, objects and copied bytes are counted.
Nothing recurses.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pickletools import opcodes
from typing import Any

import numpy as np

from yolov7_jax.convert.torch_calls import CALLS, Limits, call_refused, instance, is_shape, key_of, storage
from yolov7_jax.convert.torch_values import Budget, Instance, Name, NumpyArray, NumpyDtype, Refused, damaged, shown

MAX_STEPS = 3_000_000
MAX_OBJECTS = 800_000
"""Of one file. yolov7-e6e with its EMA and its optimizer needs a quarter; the worst that they allow is some 200 MB."""
_TOO_MANY = f"holds too many objects (above {MAX_OBJECTS}); expected the checkpoint of one network"
_MAX_NAME = 300
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "pathlib._local": "pathlib",
}


class _Machine:
    """A pickle that is being read: the values on the stack, and those kept by number in the memo."""

    def __init__(self, content: bytes, sizes: Mapping[str, int]) -> None:
        self.stream = io.BytesIO(content)
        self.sizes = sizes
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        copies = Budget(len(content), "is damaged (one text is used many times over); download it again")
        self.limits = Limits(Budget(MAX_OBJECTS, _TOO_MANY), copies)

    def run(self) -> Any:
        """The value of the whole pickle."""
        for _ in range(MAX_STEPS):
            code = self.stream.read(1)
            if code == b".":
                return self.pop()
            if code == b"":
                raise damaged("its pickle ends too early")
            if code not in _STEPS:
                name = _OPCODES[code].name if code in _OPCODES else f"0x{code.hex()}"
                raise Refused(
                    f"uses the pickle instruction {name}, which plain weights do not need, and nothing was executed; "
                    "use a file from a source you trust, or save it with the usual protocol of torch.save"
                )
            _STEPS[code](self, self.argument(code))
        raise Refused(_TOO_MANY)

    def argument(self, code: bytes) -> Any:
        """What follows an instruction; a size that the file claims reads no more than there is."""
        try:
            if code == b"c":
                return _two_lines(self.stream)
            argument = _OPCODES[code].arg
            value = argument.reader(self.stream) if argument else None
            if isinstance(value, str):
                value.encode()  # pickletools lets lone surrogates pass
        except UnicodeError:
            raise damaged("a text is not UTF-8") from None
        except (ValueError, OverflowError):
            raise damaged("its pickle ends too early") from None
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def make(self, value: Any) -> None:
        """Pushes a value that takes memory of its own."""
        self.limits.objects.spend(1)
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
        self.limits.objects.spend(1)
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
                items.update(zip(map(key_of, pairs[::2]), pairs[1::2], strict=True))
            case other:
                raise damaged(f"it sets items of a {type(other).__name__}")

    def add(self, values: list[Any]) -> None:
        match self.top():
            case set(elements):
                elements.update(map(key_of, values))
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
        call = CALLS.get(str(function)) if isinstance(function, Name) else None
        if call is None:
            raise call_refused(function)
        value = call(self.limits, args) if isinstance(args, tuple) else None
        if value is None:
            raise damaged(f"it calls {function} with arguments that this does not take")
        self.make(value)

    def new(self, kind: Any, args: Any) -> None:
        if not isinstance(args, tuple):
            raise damaged(f"it makes an object with arguments of type {type(args).__name__}")
        self.make(instance(kind))

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
                if not (is_shape(shape) and math.prod(shape) * dtype.itemsize == len(content)):
                    raise damaged("a numpy array has an impossible shape")
                target.value = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
            case target, _:
                raise damaged(f"it sets the state of a {type(target).__name__}")

    def set_attributes(self, target: Instance, attributes: dict[Any, Any]) -> None:
        self.limits.objects.spend(len(attributes))
        if not all(type(name) is str for name in attributes):
            raise damaged(f"an attribute of {target.kind} has a name that is not text")
        target.attributes.update(attributes)


def _two_lines(stream: io.BytesIO) -> tuple[str, str]:
    """The module and the name of a GLOBAL; the reader of pickletools would undo escapes in them."""
    lines = stream.readline(), stream.readline()
    if not all(line.endswith(b"\n") for line in lines):
        raise ValueError("no end of line")
    return lines[0][:-1].decode(), lines[1][:-1].decode()


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in opcodes}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
_BY_NAME: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda _m, _: None),
    **dict.fromkeys((*_NUMBERS, *_TEXTS), _Machine.push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.make(tuple(m.pops(1))),
    "TUPLE2": lambda m, _: m.make(tuple(m.pops(2))),
    "TUPLE3": lambda m, _: m.make(tuple(m.pops(3))),
    "TUPLE": lambda m, _: m.make(tuple(m.since_mark())),
    "EMPTY_LIST": lambda m, _: m.make([]),
    "APPEND": lambda m, _: m.extend(m.pops(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "EMPTY_DICT": lambda m, _: m.make({}),
    "SETITEM": lambda m, _: m.update(m.pops(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "EMPTY_SET": lambda m, _: m.make(set()),
    "ADDITEMS": lambda m, _: m.add(m.since_mark()),
    "FROZENSET": lambda m, _: m.make({key_of(value) for value in m.since_mark()}),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": lambda m, names: m.name(*names),
    "STACK_GLOBAL": lambda m, _: m.name(*m.pops(2)),
    "BINPERSID": lambda m, _: m.make(storage(m.pop(), m.sizes)),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new(*m.pops(2)),
    "NEWOBJ_EX": lambda m, _: m.new(*m.pops(3)[:2]),
    "BUILD": lambda m, _: m.build(),
}
_STEPS = {code: _BY_NAME[opcode.name] for code, opcode in _OPCODES.items() if opcode.name in _BY_NAME}


def read_pickle(content: bytes, storage_sizes: Mapping[str, int]) -> Any:
    """The value that a PyTorch pickle describes: plain Python values, and the classes of this module for the rest.

    storage_sizes: the bytes that the archive has for each storage key.

    Raises:
        Refused: the pickle is damaged, or asks for what weights do not need.
    """
    return _Machine(content, storage_sizes).run()

"""Reads the pickle inside a PyTorch file as inert data: nothing that it names is imported, nothing is called.

A pickle is a program for a small stack machine, and it may ask for any function to be called. The standard library's
machine runs it here, without functions: a name stays a `Name`, an object of a class stays an `Instance` that holds
what the file says of it, and a call is answered from a short list (`torch_values.called`) or refused by name. Only the
instructions that picklers of protocol 2 to 5 write are there, and each is counted.

The machine is `pickle._Unpickler`, the one in Python. The one in C lets nobody between its instructions: it hashes
keys of any depth, makes room for a memo of the size that the file claims, and sets the state of whatever is there.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from functools import cache
from typing import Any

from yolov7_jax.convert.torch_archive import Budget, damaged, shown
from yolov7_jax.convert.torch_values import Name, Storage, called, check_key, new_instance, set_state, storage_of
from yolov7_jax.errors import WeightsError

MAX_WORK = 4_000_000
"""Of one file. yolov7-e6e with its EMA and its optimizer needs a third; the worst that it allows is some 200 MB."""
_MOVES = """
PROTO FRAME STOP POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT EMPTY_TUPLE
SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BINGET LONG_BINGET
APPEND APPENDS SETITEM SETITEMS ADDITEMS BUILD
"""
_MAKES = """
MARK EMPTY_LIST EMPTY_DICT EMPTY_SET FROZENSET TUPLE TUPLE1 TUPLE2 TUPLE3 MEMOIZE BINPUT LONG_BINPUT
GLOBAL STACK_GLOBAL BINPERSID NEWOBJ NEWOBJ_EX
"""
_WORK = {**dict.fromkeys(_MOVES.split(), 1), **dict.fromkeys(_MAKES.split(), 4), "REDUCE": 12}
"""The instructions that weights need, with what each takes of `MAX_WORK`: as it takes memory and time."""
_HASHED = {
    "SETITEM": slice(-2, -1),
    "SETITEMS": slice(None, None, 2),
    "ADDITEMS": slice(None),
    "FROZENSET": slice(None),
}
"""Where on the stack the values are that an instruction hashes."""
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_MAX_NAME = 300
_RENAMED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "pathlib._local": "pathlib",
}


def read_pickle(content: bytes, storage: Callable[[str], bytes]) -> Any:
    """The value that a PyTorch pickle describes: plain Python values, and those of `torch_values` for the rest.

    Tensors are read-only views of the bytes that are theirs, checked to lie in them; they take no memory.

    Args:
        content: the pickle.
        storage: gives the bytes that the archive has for a storage key.

    Raises:
        WeightsError: the pickle is damaged, or asks for what weights do not need.
    """
    return _Reader(content, storage).load()


class _Stream(io.BytesIO):
    """The bytes of a pickle, of which there must be as many as are asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if size is not None and len(content) < size:
            raise damaged("its pickle ends too early")
        return content

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise damaged("its pickle ends too early")
        return line


class _Reader(pickle._Unpickler):
    """The standard library's reader; what would import, call or set anything is replaced here."""

    stack: list[Any]
    read: Callable[[int], bytes]

    def __init__(self, content: bytes, storage: Callable[[str], bytes]) -> None:
        super().__init__(_Stream(content))
        self.storage = cache(storage)
        self.work = Budget(MAX_WORK, "holds too many objects; expected the checkpoint of one network")
        self.copies = Budget(len(content), "is damaged (one value is used many times over); download it again")

    def find_class(self, module: str, name: str) -> Name:
        plain = len(module) + len(name) <= _MAX_NAME and name.isidentifier()
        if not (plain and all(map(str.isidentifier, module.split(".")))):
            raise WeightsError(
                f"names '{shown(name)}' of '{shown(module)}', which is no function or class of a module, "
                "and nothing was executed; use a file from a source you trust"
            )
        return Name(_RENAMED.get(module, module), name)

    def persistent_load(self, pid: Any) -> Storage:
        return storage_of(pid, self.storage)

    def load_frame(self) -> None:
        self.read(8)  # how many bytes could be read ahead

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = called(self.stack[-1], args, self.copies)

    def load_newobj(self) -> None:
        del self.stack[-1]  # its arguments: an object has here what BUILD gives it
        self.stack[-1] = new_instance(self.stack[-1])

    def load_newobj_ex(self) -> None:
        del self.stack[-1]
        self.load_newobj()

    def load_build(self) -> None:
        state = self.stack.pop()
        set_state(self.stack[-1], state, self.copies)


_NAMES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def _instruction(code: int) -> Callable[[Any], None]:
    """What a byte makes the reader do: counted, the values that are hashed looked at before, failures put in words."""
    name = _NAMES.get(code, f"{code:#04x}")
    run = getattr(_Reader, pickle._Unpickler.dispatch[code].__name__) if name in _WORK else None

    def step(reader: _Reader) -> None:
        if run is None:
            raise WeightsError(
                f"uses the pickle instruction {name}, which plain weights do not need, and nothing was executed; "
                "use a file from a source you trust, or save it with the usual protocol of torch.save"
            )
        reader.work.spend(_WORK[name])
        for key in reader.stack[_HASHED[name]] if name in _HASHED else ():
            check_key(key)
        try:
            run(reader)
            if name in _TEXTS:
                reader.stack[-1].encode()  # the pickle module lets lone surrogates pass
        except WeightsError:
            raise
        except UnicodeError:
            raise damaged("a text is not UTF-8") from None
        except (pickle.UnpicklingError, LookupError, AttributeError, TypeError, ValueError):
            raise damaged(f"its pickle instruction {name} finds nothing that fits it") from None

    return step


_Reader.dispatch = {code: _instruction(code) for code in range(256)}

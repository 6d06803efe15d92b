"""Writes PyTorch files by hand, instruction by instruction, without PyTorch and without the pickle module."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

REBUILD = ("torch._utils", "_rebuild_tensor_v2")


class Code(bytes):
    """Pickle instructions that leave one value on the stack."""


def code(value: Any) -> bytes:
    match value:
        case Code():
            return value
        case None | bool():
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}(" + b"".join(code(key) + code(item) for key, item in value.items()) + b"u"
    raise TypeError(value)


def name(module: str, attribute: str) -> Code:
    return Code(f"c{module}\n{attribute}\n".encode())


def call(module: str, attribute: str, *args: Any) -> Code:
    return Code(name(module, attribute) + code(args) + b"R")


def new(module: str, attribute: str, state: Any = None) -> Code:
    return Code(name(module, attribute) + b")\x81" + (b"" if state is None else code(state) + b"b"))


def storage(key: str, count: Any, kind: str = "FloatStorage") -> Code:
    return Code(code(("storage", name("torch", kind), key, "cpu", count)) + b"Q")


def tensor(
    key: str,
    shape: Any,
    strides: Any = None,
    *,
    offset: Any = 0,
    count: Any = None,
    kind: str = "FloatStorage",
    rebuild: tuple[str, str] = REBUILD,
) -> Code:
    """A tensor over the storage `key`; strides are those of a contiguous one and count its size unless given."""
    numbers = 1
    contiguous = []
    for size in reversed(shape):
        contiguous.insert(0, numbers)
        numbers *= size
    strides = tuple(contiguous) if strides is None else strides
    held = storage(key, numbers if count is None else count, kind)
    return call(*rebuild, held, offset, shape, strides, False, call("collections", "OrderedDict"))


def parameter(data: Code) -> Code:
    return call("torch._utils", "_rebuild_parameter", data, True, call("collections", "OrderedDict"))


def module(
    kind: tuple[str, str] = ("models.common", "Block"),
    *,
    parameters: dict[str, Any] | None = None,
    buffers: dict[str, Any] | None = None,
    modules: Any = None,
    hidden: list[str] | None = None,
    **attributes: Any,
) -> Code:
    state = {
        "training": False,
        "_parameters": parameters or {},
        "_buffers": buffers or {},
        "_non_persistent_buffers_set": call("__builtin__", "set", hidden or []),
        "_modules": {} if modules is None else modules,
        **attributes,
    }
    return new(*kind, state)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + code(value) + b"."


def write(path: Path, content: Any, members: dict[str, bytes] | None = None, *, root: str = "archive") -> Path:
    """A PyTorch file of a value, or of a pickle given as bytes, with more members (`data/0`, `byteorder` ...)."""
    pickle = content if type(content) is bytes else pickled(content)
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in {"data.pkl": pickle, **(members or {}), "version": b"3\n"}.items():
            archive.writestr(zipfile.ZipInfo(f"{root}/{member}"), data)
    return path

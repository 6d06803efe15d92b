from __future__ import annotations

import collections
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.convert.torch_zip import REBUILD, Code, call, code, module, name, new, pickled, storage, tensor, write
from yolov7_jax.convert import torch_pickle
from yolov7_jax.convert.torch_file import TorchCheckpoint, read_torch_file
from yolov7_jax.convert.torch_pickle import read_pickle
from yolov7_jax.convert.torch_values import Instance, Name
from yolov7_jax.errors import WeightsError

TERA = 2**40
MEBI = 2**20
DATA = {"data/0": np.arange(6, dtype="<f4").tobytes()}
STORAGE = {"0": DATA["data/0"]}.__getitem__
GOOD = tensor("0", (2, 3))


def measured(read: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives and the most bytes that it held; Python and numpy tell tracemalloc of all they allocate."""
    tracemalloc.start()
    try:
        return read(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refusal(path: Path, *, memory: int = MEBI) -> str:
    """The words of a refusal: one sentence that opens with the file, at a price of a few times the file."""

    def read() -> str:
        with pytest.raises(WeightsError) as caught:
            read_torch_file(path)
        return str(caught.value)

    message, peak = measured(read)
    assert message.startswith(f"{path}: ")
    words = message.removeprefix(f"{path}: ")
    assert words.isprintable()
    assert ". " not in words
    size = path.stat().st_size if path.is_file() else 0
    assert peak < memory + 12 * size
    return words


# Payloads that execute ------------------------------------------------------------------------------------------------


def system(marker: Path) -> Code:
    return call("os", "system", f"echo > '{marker}'")


PAYLOADS: dict[str, Callable[[Path], Code]] = {
    "os.system": system,
    "posix.system": lambda marker: call("posix", "system", f"echo > '{marker}'"),
    "builtins.eval": lambda marker: call("builtins", "eval", f"open({str(marker)!r}, 'w').close()"),
    "builtins.exec": lambda marker: call("__builtin__", "eval", f"exec(\"open({str(marker)!r}, 'w').close()\")"),
    "INST": lambda marker: Code(b"(" + code(f"echo > '{marker}'") + b"ios\nsystem\n"),
    "OBJ": lambda marker: Code(b"(" + name("subprocess", "getoutput") + code(f"echo > '{marker}'") + b"o"),
    "builtins.getattr": lambda marker: Code(
        call("builtins", "getattr", call("importlib", "import_module", "os"), "system")
        + code((f"echo > '{marker}'",))
        + b"R"
    ),
    "functools.partial": lambda marker: Code(
        call("functools", "partial", name("os", "system"), f"echo > '{marker}'") + b")R"
    ),
    "pickle.loads": lambda marker: call("pickle", "loads", pickled(system(marker))),
    "dotted": lambda marker: Code(
        b"\x80\x04" + code("shutil") + code("os.system") + b"\x93" + code((f"echo > '{marker}'",)) + b"R"
    ),
    "dotted module": lambda marker: Code(
        b"\x80\x04" + code("collections") + code("OrderedDict.__init__.__class__") + b"\x93" + b"0" + system(marker)
    ),
    "hidden in a set": lambda marker: Code(b"\x80\x04\x8f(" + system(marker) + b"\x90"),
    "hidden as a key": lambda marker: Code(b"}" + system(marker) + code(1) + b"s"),
    "hidden in the arguments of a class": lambda marker: Code(
        name("argparse", "Namespace") + b")" + code({"a": system(marker)}) + b"\x92"
    ),
    "hidden in a state": lambda marker: new("argparse", "Namespace", {"a": system(marker)}),
    "taken off the stack again": lambda marker: Code(system(marker) + b"0N"),
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_what_python_would_execute_is_refused(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "executed"
    payload = PAYLOADS[kind](marker)
    words = refusal(write(tmp_path / "a.pt", {"model": GOOD, "x": payload}, DATA))
    assert "nothing was executed" in words
    assert not marker.exists()
    pickle.loads(b"\x80\x02" + payload + b".")
    assert marker.exists(), "the payload is a dud, so that its refusal proves nothing"


DANGEROUS = [
    ("os", "system"),
    ("nt", "system"),
    ("__builtin__", "eval"),
    ("builtins", "__import__"),
    ("builtins", "getattr"),
    ("builtins", "bytearray"),
    ("subprocess", "Popen"),
    ("importlib", "import_module"),
    ("_pickle", "loads"),
    ("cPickle", "loads"),
    ("runpy", "run_path"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("copy_reg", "add_extension"),
    ("ctypes", "CDLL"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch._utils", "_import_dotted_name"),
    ("torch.nnx", "load"),
    ("numpy", "load"),
    ("numpy._core.multiarray", "fromfile"),
    ("models.common", "attempt_download"),
    ("torch.nn.modules.module", "os"),
    ("anyone", "anything"),
]
A_CLASS_FOR_ALL_WE_KNOW = {("models.common", "attempt_download"), ("torch.nn.modules.module", "os")}
A_CLASS_FOR_ALL_WE_KNOW |= {("anyone", "anything"), ("cPickle", "loads")}
FORMS: dict[str, Callable[[Code], Code]] = {
    "REDUCE": lambda target: Code(target + code(("x",)) + b"R"),
    "NEWOBJ": lambda target: Code(target + code(("x",)) + b"\x81"),
    "NEWOBJ_EX": lambda target: Code(target + code(("x",)) + code({"x": 1}) + b"\x92"),
    "_reconstructor": lambda target: call("copyreg", "_reconstructor", target, name("builtins", "object"), None),
    "_rebuild_from_type_v2": lambda target: call("torch._tensor", "_rebuild_from_type_v2", target, None, ("x",), None),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", DANGEROUS, ids=".".join)
def test_a_call_of_anything_unknown_is_refused_by_its_name(tmp_path: Path, target: tuple[str, str], form: str) -> None:
    path = write(tmp_path / "a.pt", {"model": {"w": GOOD}, "x": FORMS[form](name(*target))}, DATA)
    if form in ("REDUCE", "_rebuild_from_type_v2") or target not in A_CLASS_FOR_ALL_WE_KNOW:
        words = refusal(path)
        assert target[1] in words
        assert "nothing was executed" in words
    else:  # an object of an unknown class is an empty shell
        assert list(read_torch_file(path).state) == ["w"]


def test_a_name_alone_is_never_looked_up() -> None:
    assert read_pickle(pickled(name("os", "system")), STORAGE) == Name("os", "system")
    assert read_pickle(pickled(name("no.such.module", "thing")), STORAGE) == Name("no.such.module", "thing")


def test_the_state_of_an_object_is_held_beside_it_and_sets_nothing() -> None:
    poison = {"__class__": 1, "__dict__": {"a": 1}, "__setstate__": 2, "__slots__": 3, "attributes": 4, "kind": 5}
    shell = read_pickle(pickled(new("models.common", "Conv", poison)), STORAGE)
    assert type(shell) is Instance
    assert shell.kind == Name("models.common", "Conv")
    assert shell.attributes == poison
    slots = read_pickle(pickled(new("models.common", "Conv", ({"a": 1}, {"__class__": 2}))), STORAGE)
    assert slots.attributes == {"a": 1, "__class__": 2}


def test_what_an_object_is_said_to_have_is_not_asked_when_more_comes(tmp_path: Path) -> None:
    methods = ("__setstate__", "__setitem__", "__dict__", "append", "extend", "__iter__", "__call__")
    made = new("models.common", "Conv", {method: name("os", "system") for method in methods})
    more = code({"a": 1}) + b"b" + code("k") + code(2) + b"s" + code(3) + b"a(" + code(4) + b"e"
    shell = read_pickle(pickled(Code(made + more)), STORAGE)
    assert shell.attributes == {**dict.fromkeys(methods, Name("os", "system")), "a": 1}
    assert (shell.items, shell.elements) == ({"k": 2}, [3, 4])


def test_the_machinery_of_python_cannot_be_reached_through_a_name(tmp_path: Path) -> None:
    for target in (name("yolov7_jax.convert.torch_values", "_STORAGES"), name("builtins", "list")):
        assert isinstance(read_pickle(pickled(target), STORAGE), Name)
        for use in (code("a") + code(1) + b"s", code(1) + b"a", code({"a": 1}) + b"b", b"(" + code(1) + b"\x90"):
            with pytest.raises(WeightsError, match="is damaged"):
                read_pickle(pickled(Code(target + use)), STORAGE)


UNUSED = "INST OBJ EXT1 EXT2 EXT4 PERSID BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER DUP GET PUT LIST DICT"
UNUSED += " INT LONG LONG4 FLOAT STRING BINSTRING SHORT_BINSTRING UNICODE"


@pytest.mark.parametrize("instruction", UNUSED.split())
def test_instructions_that_weights_do_not_need_are_refused_by_their_names(tmp_path: Path, instruction: str) -> None:
    opcode = next(opcode for opcode in pickletools.opcodes if opcode.name == instruction)
    program = Code(b"N(" + name("os", "system") + opcode.code.encode("latin-1") + b"\1\0\0\0" * 4 + b"\n")
    words = refusal(write(tmp_path / "a.pt", {"model": {"w": GOOD}, "x": program}, DATA))
    assert f"uses the pickle instruction {instruction}, " in words
    assert "nothing was executed" in words


# Pickles that lie -----------------------------------------------------------------------------------------------------


def over(value: Any) -> Code:
    return Code(code(value) + b"Q")


def numpy_dtype(letters: str) -> Code:
    return call("numpy", "dtype", letters, False, True)


def numpy_array(shape: Any, letters: str, content: Any) -> Code:
    made = call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), (0,), b"b")
    return Code(made + code((1, shape, numpy_dtype(letters), False, content)) + b"b")


def nested(levels: int) -> Code:
    return Code(b"]" * levels + b"a" * (levels - 1))


def doubling(levels: int) -> Code:
    """A list of two times the same list of two times the same list ... without any copy."""
    return Code(
        b"]" + b"".join(b"q" + bytes([n]) + b"0](h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(levels))
    )


def doubling_modules(levels: int) -> Code:
    inner = bytes(module())
    for n in range(levels):
        twice = Code(b"}(" + code("a") + b"h" + bytes([n]) + code("b") + b"h" + bytes([n]) + b"u")
        inner += b"q" + bytes([n]) + b"0" + module(modules=twice)
    return Code(inner)


OWN_CHILD = Code(
    name("models.common", "Block")
    + b")\x81q\1"
    + code({"_modules": {"a": Code(b"h\1")}, "_parameters": {"w": GOOD}})
    + b"b"
)
TWICE_A_TEXT = Code(
    code("é" * 1000) + b"q\1" + b"".join(call("_codecs", "encode", Code(b"h\1"), "latin1") for _ in range(99))
)
MANY_SETS = Code(code(list(range(5000))) + b"q\1" + b"".join(call("builtins", "set", Code(b"h\1")) for _ in range(199)))

LIES: dict[str, tuple[Any, str]] = {
    "persistent id: a number": (over(7), "storage of a tensor is not described"),
    "persistent id: too short": (over(("storage", name("torch", "FloatStorage"), "0")), "not described"),
    "persistent id: another kind": (over(("module", name("torch", "FloatStorage"), "0", "cpu", 6)), "not described"),
    "persistent id: a text for the type": (over(("storage", "FloatStorage", "0", "cpu", 6)), "not described"),
    "persistent id: a text for the count": (
        over(("storage", name("torch", "FloatStorage"), "0", "cpu", "6")),
        "not desc",
    ),
    "persistent id: any class": (over(("storage", name("os", "system"), "0", "cpu", 6)), "kind os.system"),
    "quantized": (over(("storage", name("torch", "QInt8Storage"), "0", "cpu", 6)), "kind torch.QInt8Storage"),
    "storage not there": (tensor("1", (6,)), "its member data/1 is missing"),
    "storage outside": (tensor("../../etc/passwd", (6,)), "is missing"),
    "storage of terabytes": (tensor("0", (2,), count=TERA), "has 24 bytes, not 1099511627776 numbers"),
    "storage beyond integers": (tensor("0", (2,), count=2**2000), "has 24 bytes"),
    "storage of less than nothing": (tensor("0", (2,), count=-1), "has 24 bytes, not -1 numbers"),
    "offset outside": (tensor("0", (2,), offset=5, count=6), "reaches beyond the 6 numbers"),
    "offset negative": (tensor("0", (2,), offset=-1, count=6), "impossible shape, offset or stride"),
    "offset beyond integers": (tensor("0", (2,), offset=2**64, count=6), "reaches beyond"),
    "size outside": (tensor("0", (7,), count=6), "reaches beyond"),
    "size negative": (tensor("0", (-2,), (1,), count=6), "impossible shape"),
    "size not whole": (tensor("0", (2.0,), (1,), count=6), "impossible shape"),
    "size of terabytes": (tensor("0", (TERA,), (0,), count=6), "more than 4 times its own size"),
    "size beyond integers": (tensor("0", (2**70, 0), (0, 0), count=6), "impossible shape"),
    "stride negative": (tensor("0", (2,), (-1,), offset=1, count=6), "impossible shape"),
    "stride outside": (tensor("0", (2, 2), (5, 1), count=6), "reaches beyond"),
    "stride beyond integers": (tensor("0", (2,), (2**63,), count=6), "reaches beyond"),
    "more strides than sizes": (tensor("0", (2,), (1, 1), count=6), "impossible shape"),
    "too many axes": (tensor("0", (1,) * 33, count=6), "impossible shape"),
    "a view from everywhere": ({str(n): tensor("0", (2**16,), (0,), count=6) for n in range(9)}, "more than 4 times"),
    "arguments of another kind": (call(*REBUILD, "0", 0, (6,), (1,)), "_rebuild_tensor_v2 as weights never do"),
    "arguments that are a list": (Code(name(*REBUILD) + code([1]) + b"R"), "as weights never do"),
    "a parameter without a tensor": (call("torch._utils", "_rebuild_parameter", 1, True, None), "as weights never do"),
    "call of a number": (Code(code(1) + code(()) + b"R"), "calls a int"),
    "sparse": (call("torch._utils", "_rebuild_sparse_tensor", 1, ()), "quantized, sparse or empty tensor"),
    "bytes of terabytes": (Code(b"\x8e" + struct.pack("<Q", TERA)), "ends too early"),
    "text of terabytes": (Code(b"\x8d" + struct.pack("<Q", 2**63)), "instruction BINUNICODE8 finds nothing"),
    "frame at the end": (b"\x80\x04\x95\xff", "ends too early"),
    "number of gigabytes": (Code(b"\x8b" + struct.pack("<i", 2**30)), "instruction LONG4"),
    "extension code": (Code(b"\x82\x01"), "instruction EXT1"),
    "text persistent id": (Code(b"Pos.system\n"), "instruction PERSID"),
    "out of band buffer": (Code(b"\x97"), "instruction NEXT_BUFFER"),
    "old number": (Code(b"I1_000\n"), "instruction INT"),
    "no instruction": (Code(b"\xff"), "instruction 0xff"),
    "name without end": (b"\x80\x02cos", "ends too early"),
    "name that is no text": (
        Code(code([]) + code("x") + b"\x93"),
        "instruction STACK_GLOBAL finds nothing that fits it",
    ),
    "name with dots": (name("collections", "OrderedDict.__init__.__globals__"), "which is no function or class"),
    "module with dots alone": (name("..", "system"), "which is no function or class"),
    "name of many lines": (
        Code(b"\x80\x04" + code("os\nsystem") + code("a\nb") + b"\x93"),
        r"names 'a\nb' of 'os\nsystem'",
    ),
    "name of a million letters": (name("a." * MEBI + "a", "x"), "which is no function or class"),
    "text not in UTF-8": (Code(b"\x8c\x01\xff"), "not UTF-8"),
    "half of a surrogate pair": (Code(b"X" + struct.pack("<I", 3) + b"\xed\xa0\x80"), "not UTF-8"),
    "name with escapes": (Code(rb"c\x6fs" + b"\nsystem\n"), "which is no function or class"),
    "name with unknown escapes": (Code(rb"c\qos" + b"\nsystem\n"), "which is no function or class"),
    "bytes above the size of an address": (Code(b"\x8e" + b"\xff" * 8), "instruction BINBYTES8 finds nothing"),
    "number cut short": (b"\x80\x02\x8a\xff\x01", "ends too early"),
    "float cut short": (b"\x80\x02G\x00", "ends too early"),
    "value never given": (b"\x80\x020.", "instruction POP finds nothing that fits it"),
    "value never kept": (Code(b"j" + struct.pack("<I", 2**31)), "instruction LONG_BINGET finds nothing"),
    "no mark": (b"\x80\x02]e.", "instruction APPENDS finds nothing"),
    "append to a text": (Code(code("a") + code(1) + b"a"), "instruction APPEND finds nothing"),
    "append to a name": (Code(name("os", "environ") + code(1) + b"a"), "instruction APPEND finds nothing"),
    "items of a name": (
        Code(name("os", "environ") + code("a") + code("b") + b"s"),
        "instruction SETITEM finds nothing",
    ),
    "an item without a value": (Code(b"}(" + code("a") + b"u"), "instruction SETITEMS finds nothing"),
    "elements of a list": (Code(b"](" + code("a") + b"\x90"), "instruction ADDITEMS finds nothing"),
    "state of a class": (Code(name("collections", "OrderedDict") + code({"x": 1}) + b"b"), "sets the state of a Name"),
    "state of a function": (Code(name(*REBUILD) + code((None, {"x": 1})) + b"b"), "sets the state of a Name"),
    "state of a tensor": (Code(GOOD + code({"shape": 1}) + b"b"), "sets the state of a ndarray"),
    "state of a storage": (Code(storage("0", 6) + code((None, {"count": TERA})) + b"b"), "sets the state of a Storage"),
    "state of a type": (Code(numpy_dtype("f8") + code({"value": 1}) + b"b"), "sets the state of a Numpy"),
    "item of a tensor": (Code(GOOD + code(0) + code(1.0) + b"s"), "instruction SETITEM finds nothing"),
    "item of a storage": (Code(storage("0", 6) + code("count") + code(TERA) + b"s"), "instruction SETITEM finds"),
    "elements of an object": (Code(new("models.common", "Conv") + b"(" + code(1) + b"\x90"), "instruction ADDITEMS"),
    "call of an object": (Code(new("models.common", "Conv") + code(()) + b"R"), "calls a Instance as weights never do"),
    "call of a tensor": (Code(GOOD + code(()) + b"R"), "calls a ndarray"),
    "object of an object": (Code(new("models.common", "Conv") + b")\x81"), "calls a Instance"),
    "object of a text": (Code(code("builtins.eval") + b")" + code({}) + b"\x92"), "calls a str"),
    "a tensor for a storage": (call(*REBUILD, GOOD, 0, (6,), (1,)), "_rebuild_tensor_v2 as weights never do"),
    "one state set often": (
        Code(code({str(n): n for n in range(999)}) + b"q\1" + (name("a", "B") + b")\x81h\1b") * 99),
        "one value is used many times",
    ),
    "state of a number": (Code(code(1) + code({"x": 1}) + b"b"), "sets the state of a int"),
    "attribute that is no text": (
        new("models.common", "Conv", {1: 2}),
        "models.common.Conv has a name that is not text",
    ),
    "key that recurses": (Code(b"}" + b")" + b"\x85" * 9999 + b"Ns"), "dictionary key of type tuple"),
    "key that cannot be one": ({"a": Code(b"}]Ns")}, "dictionary key of type list"),
    "key that collides": (Code(b"}" + code((2**61 - 1) * 2**60) + b"Ns"), "dictionary key of type int"),
    "set of lists": (call("builtins", "set", [[]]), "dictionary key of type list"),
    "objects in an array": (numpy_array((1,), "O8", [1]), "numpy array of type O8"),
    "array of terabytes": (numpy_array((TERA,), "f8", b""), "sets the state of a Numpy that has none such"),
    "array of less than nothing": (numpy_array((-1,), "f8", b""), "sets the state of a Numpy"),
    "array without type": (
        Code(numpy_array((0,), "f8", b"") + code((1, (0,), "f8", False, b"")) + b"b"),
        "sets the state of a Numpy",
    ),
    "number without content": (
        call("numpy.core.multiarray", "scalar", numpy_dtype("f8"), b"1"),
        "instruction REDUCE finds",
    ),
    "one text copied often": (TWICE_A_TEXT, "one value is used many times"),
    "one list copied often": (MANY_SETS, "one value is used many times"),
    "encoded as something": (call("_codecs", "encode", "a", "punycode"), "_codecs.encode as weights never do"),
    "settings without end": (module(parameters={"w": GOOD}, yaml={"a": doubling(60)}), "nested too deep, too many"),
    "settings as deep as the sea": (module(parameters={"w": GOOD}, yaml={"a": nested(9999)}), "nested too deep"),
    "settings that hold themselves": (module(parameters={"w": GOOD}, hyp={"a": Code(b"]q\1h\1a")}), "hold themselves"),
    "settings that are a thing": (
        module(parameters={"w": GOOD}, hyp={"a": call("builtins", "slice")}),
        "type builtins.obj",
    ),
    "modules without end": (doubling_modules(60), "more than 100000 tensors and modules"),
    "a module that holds itself": (OWN_CHILD, "modules that hold themselves"),
    "a tensor with a long name": (module(parameters={"w" * 301: GOOD}), "names above 300 characters"),
    "a rebuilding rebuilt": (
        call("torch._tensor", "_rebuild_from_type_v2", name("torch._tensor", "_rebuild_from_type_v2"), None, (), None),
        "calls torch._tensor._rebuild_from_type_v2",
    ),
    "modules as a list": (module(modules=[1, 2]), "holds no tensors"),
    "nothing at all": (None, "holds no tensors"),
    "numbers alone": ({"epoch": 1, "model": {}}, "holds no tensors"),
}


COSTLY = {"settings without end": 64 * MEBI, "modules without end": 64 * MEBI, "one list copied often": 4 * MEBI}
"""What is met only after some 100 000 objects."""


@pytest.mark.parametrize("kind", LIES)
def test_a_pickle_that_lies_is_refused_at_a_small_price(tmp_path: Path, kind: str) -> None:
    content, expected = LIES[kind]
    path = write(tmp_path / "a.pt", {"w": content} if isinstance(content, Code) else content, DATA)
    assert expected in refusal(path, memory=COSTLY.get(kind, MEBI))
    assert not hasattr(collections.OrderedDict, "x")


def test_what_could_be_costly_and_is_not_asked_for_costs_nothing(tmp_path: Path) -> None:
    content = {
        "model": {"w": GOOD},
        "memo": Code(b"Nr\xff\xff\xff\x7f"),  # the pickle module would make room for 2**31 values
        "frame": Code(b"\x95" + struct.pack("<Q", TERA) + b"N"),
        "view": tensor("0", (TERA,), (0,), count=6),
        "list": nested(20_000),
        "tuple": Code(b")" + b"\x85" * 20_000),
        "dict": Code(b"}" + b"K\1}" * 20_000 + b"s" * 20_000),
        "doubling": doubling(60),
    }
    path = write(tmp_path / "a.pt", content, DATA)
    checkpoint, peak = measured(lambda: read_torch_file(path))
    assert checkpoint.state["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert peak < 20 * MEBI  # 60 000 objects of some 200 bytes


@pytest.mark.parametrize("filling", [b"\x8f", b"]", b"}", b"N\x94", b"ca\na\n", b")\x85", GOOD, b"(", b"N0", b"N"])
def test_instructions_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filling: bytes) -> None:
    monkeypatch.setattr(torch_pickle, "MAX_WORK", 1000)
    assert "too many objects" in refusal(write(tmp_path / "a.pt", b"\x80\x02N" + filling * 2000 + b".", DATA))


# Zips that lie --------------------------------------------------------------------------------------------------------


def good(path: Path) -> Path:
    return write(path, {"w": GOOD}, DATA)


def with_directory(path: Path, change: Callable[[zipfile.ZipFile], object]) -> Path:
    """A good file of which the list of members is changed before it is written."""
    with zipfile.ZipFile(good(path), "a") as archive:
        archive.writestr("archive/last", b"")
        change(archive)
    return path


def with_members(path: Path, *members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def changed(path: Path, offset_from_end: int, layout: str, value: int) -> Path:
    content = bytearray(good(path).read_bytes())
    struct.pack_into(layout, content, len(content) - offset_from_end, value)
    path.write_bytes(content)
    return path


def overlap(archive: zipfile.ZipFile) -> None:
    first, second = archive.infolist()[:2]
    second.header_offset = first.header_offset


def encrypt(archive: zipfile.ZipFile) -> None:
    archive.infolist()[1].flag_bits |= 1


def deflate(archive: zipfile.ZipFile) -> None:
    archive.infolist()[1].compress_type = zipfile.ZIP_DEFLATED


def grow(archive: zipfile.ZipFile) -> None:
    archive.infolist()[-1].file_size = archive.infolist()[-1].compress_size = TERA


PICKLE = ("archive/data.pkl", pickled({"w": GOOD}))
NUMBERS = ("archive/data/0", DATA["data/0"])
ZIPS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "bomb": (
        lambda path: with_members(path, PICKLE, ("archive/data/0", bytes(8 * MEBI)), compression=zipfile.ZIP_DEFLATED),
        "compressed or encrypted member archive/data",
    ),
    "deflated": (lambda path: with_directory(path, deflate), "compressed or encrypted member archive/data/0"),
    "encrypted": (lambda path: with_directory(path, encrypt), "compressed or encrypted member archive/data/0"),
    "overlapping members": (lambda path: with_directory(path, overlap), "overlaps another"),
    "member of terabytes": (lambda path: with_directory(path, grow), "last member is cut short"),
    "way out": (lambda path: with_members(path, PICKLE, NUMBERS, ("../evil", b"")), "../evil that leads out"),
    "way out within": (lambda path: with_members(path, PICKLE, ("archive/../../evil", b"")), "that leads out"),
    "absolute": (lambda path: with_members(path, PICKLE, ("/etc/passwd", b"")), "/etc/passwd that leads out"),
    "drive": (lambda path: with_members(path, PICKLE, ("C:evil", b"")), "that leads out"),
    "no pickle": (lambda path: with_members(path, NUMBERS), "0 members data.pkl"),
    "pickle too deep": (lambda path: with_members(path, ("a/b/data.pkl", b"")), "0 members data.pkl"),
    "two pickles": (lambda path: with_members(path, PICKLE, ("b/data.pkl", b"")), "2 members data.pkl"),
    "empty pickle": (lambda path: with_members(path, ("archive/data.pkl", b"")), "ends too early"),
    "TorchScript": (
        lambda path: with_members(path, PICKLE, ("archive/constants.pkl", b""), ("archive/code/m.py", b"")),
        "is a TorchScript archive",
    ),
    "big-endian": (lambda path: with_members(path, PICKLE, ("archive/byteorder", b"big")), "byte order big"),
    "list of members of gigabytes": (lambda path: changed(path, 10, "<L", 2**31), "cut short or overwritten"),
    "list of members elsewhere": (lambda path: changed(path, 6, "<L", 2**31), "is damaged"),
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_that_lies_is_refused(tmp_path: Path, kind: str) -> None:
    make, expected = ZIPS[kind]
    assert expected in refusal(make(tmp_path / "a.pt"))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = with_members(tmp_path / "a.pt", PICKLE, NUMBERS, NUMBERS)
    assert "two of its members have one name" in refusal(path)


@pytest.mark.parametrize(("member", "part"), [("data/0", 3), ("data/0", 30), ("data.pkl", 33)])
def test_a_damaged_member_is_refused_by_its_name(tmp_path: Path, member: str, part: int) -> None:
    path = good(tmp_path / "a.pt")
    header = zipfile.ZipFile(path).getinfo(f"archive/{member}").header_offset
    content = bytearray(path.read_bytes())
    content[header + part + (len(f"archive/{member}") if part >= 30 else 0)] ^= 0x10
    path.write_bytes(content)
    assert f"its member {member}" in refusal(path)


def test_a_very_long_list_of_members_is_not_read(tmp_path: Path) -> None:
    path = with_members(tmp_path / "a.pt", PICKLE, *((f"archive/{n}{'x' * 60_000}", b"") for n in range(80)))
    assert "cut short or overwritten" in refusal(path, memory=8 * MEBI)


# Files that are something else ----------------------------------------------------------------------------------------

LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e80024de903")
HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OTHERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"the quick brown fox", "is a text file"),
    "web page": (b"\n <!DOCTYPE html><html>404</html>", "is a web page"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    "PyTorch before 1.6": (LEGACY, "torch.save(torch.load(path), path)"),
    "the same in protocol 4": (b"\x80\x04\x95\x0d" + bytes(7) + LEGACY[2:], "format of PyTorch before 1.6"),
    "tar": (bytes(257) + b"ustar\0" + bytes(300), "is a tar archive"),
    "safetensors": (struct.pack("<Q", len(HEADER)) + HEADER + bytes(4), "is a safetensors file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a PyTorch file"),
    "bare pickle": (pickle.dumps({"w": 1}), "is not a PyTorch file"),
    "beginning of a zip": (b"PK\3\4" + bytes(100), "cut short"),
    "end of a zip": (b"PK\5\6" + bytes(18), "is not a PyTorch file"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_told_apart(tmp_path: Path, kind: str) -> None:
    content, expected = OTHERS[kind]
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert expected in refusal(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "missing.pt")
    assert "is not a file" in refusal(tmp_path)


# Anything whatever ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("anything")


def rich(path: Path) -> bytes:
    """A small file that has something of everything."""
    model = module(
        buffers={"half": tensor("0", (2,), kind="HalfStorage", count=12)},
        modules={"0": module(parameters={"w": GOOD}, hidden=["a"])},
        yaml={"nc": 1, "x": numpy_array((1,), "f8", bytes(8))},
        names={0: "ant"},
    )
    return write(path, {"model": model, "epoch": 3, "s": [1.5, b"a"]}, DATA).read_bytes()


def test_a_file_cut_anywhere_is_refused(folder: Path) -> None:
    path = folder / "cut.pt"
    content = rich(path)
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError, match=r"cut\.pt: "):
            read_torch_file(path)


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


def with_changes(content: bytes, changes: list[tuple[float, int]]) -> bytes:
    edited = bytearray(content)
    for place, value in changes:
        edited[int(place * len(edited))] = value
    return bytes(edited)


def outcome(read: Callable[[], Any]) -> Any:
    """What a call gives, or the words of its refusal; every other error is the test's."""
    try:
        return read()
    except WeightsError as error:
        return str(error)


def assert_read_or_refused(path: Path) -> None:
    found = outcome(lambda: read_torch_file(path))
    assert isinstance(found, TorchCheckpoint) or found.isprintable()


@settings(max_examples=250)
@given(CHANGES)
def test_changed_bytes_of_a_file_never_surprise(folder: Path, changes: list[tuple[float, int]]) -> None:
    path = folder / "file.pt"
    path.write_bytes(with_changes(rich(path), changes))
    assert_read_or_refused(path)


@settings(max_examples=600)
@given(CHANGES)
def test_changed_bytes_of_a_pickle_never_surprise(folder: Path, changes: list[tuple[float, int]]) -> None:
    path = folder / "pickle.pt"
    rich(path)
    with zipfile.ZipFile(path) as archive:
        content = archive.read("archive/data.pkl")
    assert_read_or_refused(write(path, with_changes(content, changes), DATA))


INSTRUCTIONS = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
PIECES = [name("torch._utils", "_rebuild_parameter"), name("models.common", "Conv"), name("os", "system"), GOOD]
PIECES += [storage("0", 6), numpy_dtype("f4"), name("copyreg", "_reconstructor"), name("builtins", "set"), code("a")]
PROGRAMS = st.lists(INSTRUCTIONS | st.sampled_from(PIECES) | st.binary(max_size=2), max_size=30).map(b"".join)


@settings(max_examples=600)
@given(PROGRAMS, st.sampled_from([b".", b"", b"(((" * 9]))
def test_any_program_ends_in_a_value_or_a_refusal(program: bytes, end: bytes) -> None:
    found = outcome(lambda: [read_pickle(b"\x80\x02" + program + end, STORAGE)])
    assert isinstance(found, list) or found.isprintable()


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", b"\x80\x02", b"<html>"]))
def test_any_bytes_are_refused(folder: Path, content: bytes, start: bytes) -> None:
    path = folder / "bytes.pt"
    path.write_bytes(start + content)
    with pytest.raises(WeightsError, match=r"bytes\.pt: "):
        read_torch_file(path)

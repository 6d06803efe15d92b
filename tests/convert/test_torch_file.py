from __future__ import annotations

import importlib.util
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.convert.torch_zip import Code, call, code, module, name, new, parameter, tensor, write
from yolov7_jax.convert.torch_file import TorchCheckpoint, read_torch_file
from yolov7_jax.convert.torch_pickle import read_pickle
from yolov7_jax.errors import WeightsError

SIX = np.arange(6, dtype="<f4")
MEMBERS = {"data/0": SIX.tobytes(), "data/1": np.arange(10, 12, dtype="<f4").tobytes()}
SIX_TENSOR = tensor("0", (6,))
TWO_TENSOR = tensor("1", (2,))
NO_STORAGE = dict[str, bytes]().__getitem__


def listed(checkpoint: TorchCheckpoint) -> dict[str, list]:
    return {name: array.tolist() for name, array in checkpoint.state.items()}


def test_views_of_one_storage_keep_their_offsets_and_strides_and_get_memory_of_their_own(tmp_path: Path) -> None:
    content = {
        "whole": tensor("0", (2, 3)),
        "turned": tensor("0", (3, 2), (1, 3)),
        "tail": tensor("0", (2,), offset=4, count=6),
        "every_other": tensor("0", (3,), (2,), count=6),
        "scalar": tensor("0", (), offset=5, count=6),
        "repeated": tensor("0", (2, 2), (0, 1), count=6),
        "nothing": tensor("0", (0, 3), offset=6, count=6),
        "nothing_of_nothing": tensor("0", (3, 0), (1, 1), count=0),
        "odd_stride_of_one": tensor("0", (1, 2), (2**62, 1), count=6),
    }
    state = read_torch_file(write(tmp_path / "a.pt", content, MEMBERS)).state
    assert list(state) == list(content)
    assert state["whole"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert state["tail"].tolist() == [4, 5]
    assert state["every_other"].tolist() == [0, 2, 4]
    assert state["scalar"].shape == ()
    assert state["scalar"] == 5
    assert state["repeated"].tolist() == [[0, 1], [0, 1]]
    assert state["nothing"].shape == (0, 3)
    assert state["nothing_of_nothing"].shape == (3, 0)
    assert state["odd_stride_of_one"].tolist() == [[0, 1]]
    for array in state.values():
        assert array.flags.owndata
        assert array.flags.writeable
        assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "stored", "dtype", "values"),
    [
        ("DoubleStorage", struct.pack("<2d", 0.1, -2.0), np.float64, [0.1, -2.0]),
        ("FloatStorage", struct.pack("<2f", 0.5, -2.0), np.float32, [0.5, -2.0]),
        ("HalfStorage", struct.pack("<2e", 0.5, -2.0), np.float16, [0.5, -2.0]),
        ("BFloat16Storage", b"\xc0\x3f\x00\xc0", ml_dtypes.bfloat16, [1.5, -2.0]),  # the upper halves of float32
        ("LongStorage", struct.pack("<2q", 2**60, -1), np.int64, [2**60, -1]),
        ("IntStorage", struct.pack("<2i", 2**30, -1), np.int32, [2**30, -1]),
        ("ShortStorage", struct.pack("<2h", 2**14, -1), np.int16, [2**14, -1]),
        ("CharStorage", b"\x7f\xff", np.int8, [127, -1]),
        ("ByteStorage", b"\x7f\xff", np.uint8, [127, 255]),
        ("BoolStorage", b"\x00\x07", np.bool_, [False, True]),
        ("ComplexFloatStorage", struct.pack("<4f", 1, 2, 3, -4), np.complex64, [1 + 2j, 3 - 4j]),
    ],
)
def test_numbers_keep_their_type(tmp_path: Path, kind: str, stored: bytes, dtype: type, values: list) -> None:
    path = write(tmp_path / "a.pt", {"w": tensor("0", (2,), kind=kind)}, {"data/0": stored})
    array = read_torch_file(path).state["w"]
    assert array.dtype == dtype
    assert array.tolist() == values
    if dtype == np.bool_:
        assert array.tobytes() == b"\0\1"


def network(**attributes: object) -> Code:
    inner = module(
        ("torch.nn.modules.batchnorm", "BatchNorm2d"),
        parameters={"weight": parameter(TWO_TENSOR), "bias": None},
        buffers={"grid": SIX_TENSOR, "running_mean": SIX_TENSOR},
        hidden=["grid"],
    )
    own = {"scale": parameter(SIX_TENSOR)}
    return module(parameters=own, buffers={"anchors": TWO_TENSOR}, modules={"1": inner, "0": inner}, **attributes)


NETWORK_STATE = ["scale", "anchors", "1.weight", "1.running_mean", "0.weight", "0.running_mean"]


def test_the_state_of_a_module_is_its_parameters_its_lasting_buffers_then_its_modules(tmp_path: Path) -> None:
    checkpoint = read_torch_file(write(tmp_path / "a.pt", {"model": network()}, MEMBERS))
    assert checkpoint.source == "model"
    assert list(checkpoint.state) == NETWORK_STATE
    assert checkpoint.state["1.weight"].tolist() == [10, 11]
    assert checkpoint.config is checkpoint.names is checkpoint.hyperparameters is None


@pytest.mark.parametrize("names", [["ant", "bee"], ("ant", "bee"), {0: "ant", 1: "bee"}, {1: "bee", 0: "ant"}])
def test_a_model_brings_its_description(tmp_path: Path, names: object) -> None:
    model = network(
        yaml={"nc": 2, "anchors": [[10, 13.5], [16, 30]], "head": [[-1, 1, "Conv", [64, None, True]]]},
        names=names,
        hyp=new("argparse", "Namespace", {"lr0": 0.01}),
    )
    checkpoint = read_torch_file(write(tmp_path / "a.pt", model, MEMBERS))
    assert checkpoint.config == {
        "nc": 2,
        "anchors": [[10, 13.5], [16, 30]],
        "head": [[-1, 1, "Conv", [64, None, True]]],
    }
    assert checkpoint.names == ("ant", "bee")
    assert checkpoint.hyperparameters == {"lr0": 0.01}


def test_the_ema_is_taken_where_there_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", {"model": network(names=["a"]), "ema": {"w": TWO_TENSOR}}, MEMBERS)
    checkpoint = read_torch_file(path)
    assert (checkpoint.source, listed(checkpoint)) == ("ema", {"w": [10, 11]})
    without = {"model": network(names=None), "ema": None, "names": ["ant"]}
    assert read_torch_file(write(path, without, MEMBERS)).source == "model"
    assert read_torch_file(path).names == ("ant",)


@pytest.mark.parametrize("source", ["ema", "model", "state_dict", "model_state_dict", "net", "file"])
def test_state_dicts_are_found_at_the_top_and_under_their_usual_names(tmp_path: Path, source: str) -> None:
    ordered = Code(call("collections", "OrderedDict") + b"(X\1\0\0\0w" + TWO_TENSOR + b"u}X\x09\0\0\0_metadata}sb")
    checkpoint = read_torch_file(write(tmp_path / "a.pt", ordered if source == "file" else {source: ordered}, MEMBERS))
    assert (checkpoint.source, listed(checkpoint)) == (source, {"w": [10, 11]})


def test_the_prefix_of_data_parallel_goes_only_if_every_name_has_it(tmp_path: Path) -> None:
    all_of_them = {"module.a": TWO_TENSOR, "module.module.b": TWO_TENSOR}
    assert list(read_torch_file(write(tmp_path / "a.pt", all_of_them, MEMBERS)).state) == ["a", "module.b"]
    some = {"module.a": TWO_TENSOR, "b": TWO_TENSOR}
    assert list(read_torch_file(write(tmp_path / "a.pt", some, MEMBERS)).state) == ["module.a", "b"]
    wrapper = module(("torch.nn.parallel.data_parallel", "DataParallel"), modules={"module": network(names=["ant"])})
    wrapped = read_torch_file(write(tmp_path / "a.pt", {"model": wrapper}, MEMBERS))
    assert (list(wrapped.state), wrapped.names) == (NETWORK_STATE, ("ant",))


def test_the_members_of_newer_files_and_a_left_out_checksum_are_fine(tmp_path: Path) -> None:
    newer = {
        ".format_version": b"1",
        ".storage_alignment": b"64",
        "byteorder": b"little",
        ".data/serialization_id": b"7",
    }
    path = write(tmp_path / "a.pt", {"w": SIX_TENSOR}, {**MEMBERS, **newer}, root="best")
    assert listed(read_torch_file(path)) == {"w": SIX.tolist()}
    checksum = struct.pack("<L", zipfile.ZipFile(path).getinfo("best/data/0").CRC)
    path.write_bytes(path.read_bytes().replace(checksum, bytes(4)))
    assert listed(read_torch_file(path)) == {"w": SIX.tolist()}


NUMPY_FLOAT = call("numpy", "dtype", "f8", False, True)
NUMPY_FLOAT = Code(NUMPY_FLOAT + b"(K\x03X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb")


def numpy_array(package: str, shape: tuple[int, ...], *numbers: float, fortran: bool = False) -> Code:
    content = struct.pack(f"<{len(numbers)}d", *numbers).decode("latin-1")
    made = call(package, "_reconstruct", name("numpy", "ndarray"), (0,), call("_codecs", "encode", "b", "latin1"))
    state = b"(K\x01" + b"(" + b"".join(b"K" + bytes([size]) for size in shape) + b"t"
    encoded = call("_codecs", "encode", content, "latin1")
    return Code(made + state + NUMPY_FLOAT + code(fortran) + encoded + b"tb")


def test_numbers_and_short_texts_beside_the_model_are_told_and_all_else_is_inert(tmp_path: Path) -> None:
    by_columns = numpy_array("numpy.core.multiarray", (2, 2), *range(4), fortran=True)
    eighth = call("_codecs", "encode", struct.pack("<d", 0.125).decode("latin-1"), "latin1")
    content = {
        "model": network(
            yaml={"rows": numpy_array("numpy._core.multiarray", (2, 2), *range(4)), "columns": by_columns}
        ),
        "epoch": 12,
        "best_fitness": numpy_array("numpy.core.multiarray", (1,), 0.25),
        "fitness": call("numpy.core.multiarray", "scalar", NUMPY_FLOAT, eighth),
        "date": "2024-01-01",
        "resumed": True,
        "ema": None,
        "training_results": "long " * 1000,
        "opt": new("argparse", "Namespace", {"weights": call("pathlib", "PosixPath", "/", "weights")}),
        "when": call("datetime", "datetime", call("_codecs", "encode", "0123456789", "latin1")),
        "device": call("torch", "device", "cpu"),
        "size": call("torch", "Size", (1, 2)),
        "loss": new("custom.losses", "Focal", {"gamma": 2.0}),
        "activation": name("torch.nn.functional", "silu"),
        "groups": call("collections", "defaultdict", name("builtins", "list")),
    }
    checkpoint = read_torch_file(write(tmp_path / "a.pt", content, MEMBERS))
    assert checkpoint.meta == {
        "epoch": 12,
        "best_fitness": 0.25,
        "fitness": 0.125,
        "date": "2024-01-01",
        "resumed": True,
        "device": "cpu",
    }
    assert checkpoint.config == {"rows": [[0, 1], [2, 3]], "columns": [[0, 2], [1, 3]]}


def test_parameters_and_tensors_with_attributes_are_read(tmp_path: Path) -> None:
    empty = call("collections", "OrderedDict")
    inner = TWO_TENSOR.removeprefix(name("torch._utils", "_rebuild_tensor_v2")).removesuffix(b"R")
    typed = (name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor"), Code(inner), {"extra": 1})
    content = {
        "parameter": call("torch._utils", "_rebuild_parameter_with_state", TWO_TENSOR, True, empty, {"extra": 1}),
        "tensor": call("torch._tensor", "_rebuild_from_type_v2", *typed),
        "old": tensor("1", (2,), rebuild=("torch._utils", "_rebuild_tensor")),
    }
    checkpoint = read_torch_file(write(tmp_path / "a.pt", content, MEMBERS))
    assert listed(checkpoint) == {key: [10, 11] for key in content}


@pytest.mark.parametrize("names", ["ant", {1: "ant", 2: "bee"}, [["ant"]], {"ant": 0}])
def test_class_names_of_no_known_form_are_refused(tmp_path: Path, names: object) -> None:
    path = write(tmp_path / "a.pt", network(names=names), MEMBERS)
    with pytest.raises(WeightsError, match=r"a\.pt: has class names that are not a list of texts"):
        read_torch_file(path)


KEYS = st.text() | st.integers(-(2**63), 2**63) | st.booleans() | st.none() | st.binary(max_size=300)
LEAVES = KEYS | st.floats(allow_nan=False) | st.integers(-(2**500), 2**500) | st.frozensets(KEYS) | st.sets(KEYS)
VALUES = st.recursive(
    LEAVES, lambda x: st.lists(x) | st.tuples(x) | st.tuples(x, x, x, x) | st.dictionaries(KEYS, x), max_leaves=20
)


@given(VALUES, st.integers(2, 5))
def test_plain_values_are_read_as_python_writes_them_in_every_protocol(value: object, protocol: int) -> None:
    twice = [value, value, [value]]
    assert read_pickle(pickle.dumps(twice, protocol), NO_STORAGE) == twice


def test_a_value_that_holds_itself_is_read_as_it_is() -> None:
    loop: list = []
    loop.append((loop, loop))
    for protocol in range(2, 6):
        read = read_pickle(pickle.dumps(loop, protocol), NO_STORAGE)
        assert read[0][0] is read
        assert read[0][1] is read


@pytest.fixture(scope="module")
def recipe(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe", shared / "goldens" / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def recorded(shared: Path, model: str) -> dict:
    return json.loads((shared / "goldens" / "forward" / f"{model}.json").read_text())


@pytest.mark.shared
def test_a_published_checkpoint_of_yolov5(shared: Path) -> None:
    checkpoint = read_torch_file(shared / "weights" / "yolov5n.pt")
    facts = recorded(shared, "yolov5n")
    shapes = {name: list(array.shape) for name, array in checkpoint.state.items()}
    assert shapes.pop("model.24.anchor_grid") == [3, 1, 3, 1, 1, 2]  # a buffer that only older files have
    assert list(shapes.items()) == [tuple(entry) for entry in facts["state"]]
    assert {array.dtype.name for array in checkpoint.state.values()} == {"float16", "int64"}
    anchors = checkpoint.state["model.24.anchors"].astype(np.float32)  # in cells: exact in half precision
    assert_array_equal(anchors * np.float32(facts["strides"])[:, None, None], facts["anchors_pixels"])
    assert (checkpoint.source, checkpoint.meta["epoch"]) == ("model", -1)
    assert checkpoint.names is not None
    assert (len(checkpoint.names), checkpoint.names[0], checkpoint.names[-1]) == (80, "person", "toothbrush")
    assert checkpoint.config is not None
    assert (checkpoint.config["nc"], checkpoint.config["backbone"][0]) == (80, [-1, 1, "Conv", [64, 6, 2, 2]])
    assert checkpoint.hyperparameters is not None
    assert checkpoint.hyperparameters["momentum"] == 0.937


@pytest.mark.shared
def test_a_checkpoint_as_yolov7_writes_it(shared: Path, recipe: ModuleType) -> None:
    checkpoint = read_torch_file(shared / "weights" / "yolov7-tiny_random_7_classes.pt")
    assert checkpoint.names == ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
    assert [name for name, _ in recorded(shared, "yolov7-tiny.train")["state"]] == list(checkpoint.state)
    filled = 0
    for tensor_name, array in checkpoint.state.items():
        expected = recipe.fill(tensor_name, array.shape)
        if expected is not None:
            assert_array_equal(array, expected.astype(np.float16), err_msg=tensor_name, strict=True)
            filled += 1
        elif tensor_name.endswith(("running_mean", "running_var")):
            assert_array_equal(array, np.full(array.shape, tensor_name.endswith("var"), np.float16), strict=True)
    assert filled > 150
    assert checkpoint.config is not None
    assert checkpoint.config["nc"] == 7
    assert checkpoint.hyperparameters == {"lr0": 0.01, "anchor_t": 4.0}
    assert checkpoint.meta == {"epoch": 299, "best_fitness": 0.5, "training_results": "x", "updates": 12345}


def test_pytorch_is_not_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", {"model": network()}, MEMBERS)
    program = """
import sys
sys.modules["torch"] = None
before = set(sys.modules)
from yolov7_jax.convert.torch_file import read_torch_file
assert len(read_torch_file(sys.argv[1]).state) == 6
loaded = {name.split(".")[0] for name in sys.modules}
assert not loaded & {"models", "pickle5", "jax"} and sys.modules["torch"] is None, loaded
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, cwd=root)

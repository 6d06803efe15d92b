import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from yolov7_jax.convert.load import load, load_with_report
from yolov7_jax.convert.torch_names import compare, from_torch_state, to_torch_state
from yolov7_jax.convert.weights_file import Weights, save
from yolov7_jax.errors import InputError, WeightsError
from yolov7_jax.graph.builder import Builder, with_anchors
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.nn.network import abstract_variables, init
from yolov7_jax.reparameterize import reparam


def small_graph(num_classes: int = 2) -> Graph:
    b = Builder()
    x = b.add("Conv", IMAGE, 8, 3, 2)
    c3 = b.add("C3", x, 8, 2)
    b.add("IDetect", [b.add("RepConv", c3, 8)])
    return b.build(anchors=(((10, 13), (16, 30)),), num_classes=num_classes)


@pytest.fixture
def weights() -> Weights:
    graph = with_anchors(small_graph(), (((11.5, 13), (16, 31.25)),))
    return Weights(graph, init(graph, jax.random.key(3)), ("cat", "Hündin"), {"epoch": 7})


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(dict(a)) == jax.tree.structure(dict(b))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, dict(a), dict(b))))


@pytest.mark.parametrize("naming", ["tree", "torch"])
def test_what_is_saved_is_loaded(tmp_path: Path, weights: Weights, naming: str) -> None:
    save(tmp_path / "w.safetensors", weights, naming=naming)
    back, report = load_with_report(tmp_path / "w.safetensors")
    assert (back.graph, back.names) == (weights.graph, weights.names)
    assert back.meta == {"epoch": 7, "input_size": 640}
    assert report.complete
    assert_same(back.variables, weights.variables)


def test_folded_weights_are_saved_and_loaded(tmp_path: Path, weights: Weights) -> None:
    graph, variables = reparam(weights.graph, weights.variables)
    save(tmp_path / "w.safetensors", Weights(graph, variables, weights.names))
    back = load(tmp_path / "w.safetensors")
    assert back.graph == graph
    assert_same(back.variables, variables)


def test_torch_naming_has_torch_names_and_layouts(tmp_path: Path, weights: Weights) -> None:
    save(tmp_path / "w.safetensors", weights, naming="torch")
    tensors = load_file(tmp_path / "w.safetensors")
    kernel = weights.variables["params"]["1"]["m"]["0"]["cv2"]["conv"]["kernel"]
    assert tensors["model.1.m.0.cv2.conv.weight"].shape == (4, 4, 3, 3)
    assert tensors["model.1.m.0.cv2.conv.weight"][1, 2, 0, 1] == kernel[0, 1, 2, 1]
    assert tensors["model.3.ia.0.implicit"].shape == (1, 8, 1, 1)
    assert tensors["model.0.bn.num_batches_tracked"].dtype == np.int64
    assert tensors["model.0.bn.num_batches_tracked"].shape == ()
    assert np.allclose(tensors["model.3.anchors"], [[[5.75, 6.5], [8, 15.625]]])  # in cells of 2 pixels


def test_foreign_safetensors_need_a_model_and_give_the_class_count(tmp_path: Path, weights: Weights) -> None:
    file = tmp_path / "theirs.safetensors"
    state = {
        key: np.asarray(value, order="C") for key, value in to_torch_state(weights.graph, weights.variables).items()
    }
    save_file(state, file)
    with pytest.raises(
        WeightsError, match=r"theirs.safetensors: holds weights but no model description; name the model"
    ):
        load(file)
    back = load(file, model=small_graph(num_classes=5))
    assert_same(back.variables, weights.variables)
    assert back.names == ("0", "1")
    assert back.graph == weights.graph


def test_state_dicts_without_normalization_are_taken_for_the_inference_form(tmp_path: Path, weights: Weights) -> None:
    graph, variables = reparam(weights.graph, weights.variables)
    save_file(to_torch_state(graph, variables), tmp_path / "fused.safetensors")
    back = load(tmp_path / "fused.safetensors", model=weights.graph)
    assert back.graph == graph
    assert_same(back.variables, variables)


def test_every_weight_is_accounted_for(weights: Weights) -> None:
    state = to_torch_state(weights.graph, weights.variables)
    state["model.0.bn.weight"] = state["model.0.bn.weight"][:3]
    state["model.9.conv.weight"] = np.zeros(2)
    del state["model.1.cv1.conv.weight"]
    report = compare(weights.graph, state)
    assert report.missing == ("model.1.cv1.conv.weight",)
    assert report.unexpected == ("model.9.conv.weight",)
    assert report.mismatched == (("model.0.bn.weight", (3,), (8,)),)
    assert len(report.matched) + 2 == len(jax.tree.leaves(abstract_variables(weights.graph)))
    assert "model.3.anchors" in report.buffers
    sentence = (
        r"1 missing: model.1.cv1.conv.weight; 1 unexpected: model.9.conv.weight; "
        r"1 mismatched: model.0.bn.weight \(file \(3,\), network \(8,\)\)"
    )
    with pytest.raises(WeightsError, match=sentence):
        from_torch_state(weights.graph, state)


def test_lenient_mapping_fills_up_from_initial_weights(weights: Weights) -> None:
    state = to_torch_state(weights.graph, weights.variables)
    del state["model.0.bn.weight"]
    initial = jax.tree.map(lambda leaf: np.full(leaf.shape, 5, np.float32), abstract_variables(weights.graph))
    mapped = from_torch_state(weights.graph, state, strict=False, initial=initial)
    assert np.array_equal(mapped["params"]["0"]["bn"]["scale"], np.full(8, 5))
    assert np.array_equal(mapped["params"]["0"]["bn"]["bias"], weights.variables["params"]["0"]["bn"]["bias"])


def test_broken_files_are_refused_in_one_sentence(tmp_path: Path, weights: Weights) -> None:
    file = tmp_path / "w.safetensors"
    save(file, weights)
    whole = file.read_bytes()
    for broken in (b"", whole[:50], whole[:-5], b"<html>" + whole):
        file.write_bytes(broken)
        with pytest.raises(WeightsError, match=r"w.safetensors: not a whole .safetensors file") as caught:
            load(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["graph", "names", "meta", "naming"])
def test_broken_metadata_is_refused(tmp_path: Path, weights: Weights, key: str) -> None:
    file = tmp_path / "w.safetensors"
    save(file, weights)
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    save_file(load_file(file), file, {name: value for name, value in metadata.items() if name != key})
    with pytest.raises(WeightsError, match=r"w.safetensors: its metadata cannot be read"):
        load(file)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("names", "5", "its metadata cannot be read"),
        ("names", '["cat"]', "has 1 class names but 2 classes"),
        ("names", '[["cat"], 2]', "its metadata cannot be read"),
        ("meta", "3", "its metadata cannot be read"),
        ("meta", "[]", "its metadata cannot be read"),
        ("naming", "garbage", "its metadata cannot be read"),
        ("meta", '{"input_size": "large"}', "its metadata cannot be read"),
        ("meta", '{"input_size": 63}', "the image size must be a multiple of 2, got 63"),
        ("graph", "Magic", r"layer 0 \(Magic\): layer kind 'Magic' is not known"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, weights: Weights, key: str, value: str, sentence: str) -> None:
    file = tmp_path / "w.safetensors"
    save(file, weights)
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    changed = metadata["graph"].replace('"op":"Conv"', '"op":"Magic"') if key == "graph" else value
    save_file(load_file(file), file, {**metadata, key: changed})
    with pytest.raises(WeightsError, match=rf"w\.safetensors: .*{sentence}") as caught:
        load(file)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"precious")

    def full_disk(part: Path, _: object) -> None:
        part.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match=r"w\.safetensors: cannot be written"):
        save(file, weights)
    assert file.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("naming", ["tree", "torch"])
def test_the_same_weights_are_the_same_bytes(tmp_path: Path, weights: Weights, naming: str) -> None:
    for number in range(6):  # the order of safetensors' own map changes from one to the next
        save(tmp_path / f"{number}.safetensors", weights, naming=naming)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_only_safetensors_are_written(tmp_path: Path, weights: Weights) -> None:
    with pytest.raises(WeightsError, match=r"written as .safetensors"):
        save(tmp_path / "w.pt", weights)


def test_metadata_is_readable_without_the_package(tmp_path: Path, weights: Weights) -> None:
    save(tmp_path / "w.safetensors", weights)
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        assert "params/0/conv/kernel" in file.keys()  # noqa: SIM118
    assert json.loads(metadata["names"]) == ["cat", "Hündin"]
    assert json.loads(metadata["graph"])["anchors"] == [[[11.5, 13], [16, 31.25]]]

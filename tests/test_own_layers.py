"""Layer kinds that a user registers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

import yolov7_jax as yolo
from tests.nn.test_layers import by_flax
from tests.test_reparameterize import trained
from yolov7_jax.graph.kinds import KINDS, REQUIRED, kind_of
from yolov7_jax.nn.conv import BatchNorm, Conv, Conv2d, Form
from yolov7_jax.nn.network import abstract_variables
from yolov7_jax.nn.rep import RepConv
from yolov7_jax.reparameterize import difference

MODEL: dict[str, Any] = {
    "nc": 2,
    "anchors": [[8, 8, 16, 16]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 2, "OwnBlock", [16, 2]]],
    "head": [[-1, 1, "own_scale", [{"factor": 3}]], [[2], 1, "Detect", ["nc", "anchors"]]],
}


class OwnBlock(nn.Module):
    channels: int
    stride: int = 1
    ratio: float = 0.5
    activation: str = "SiLU"
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        hidden = int(self.channels * self.ratio)
        y = Conv(hidden, 3, self.stride, activation=self.activation, form=self.form, name="reduce")(x, train=train)
        y = RepConv(hidden, activation=self.activation, form=self.form, name="rep")(y, train=train)
        y = BatchNorm(self.form, name="norm")(Conv2d(self.channels, form=self.form, name="raw")(y), train=train)
        gain = self.param("gain", nn.initializers.ones, (self.channels,), jnp.float32)
        return y * gain.astype(y.dtype).reshape(1, 1, 1, -1)


def own_scale(x: jax.Array, *, factor: int = 2) -> jax.Array:
    return x * factor


@pytest.fixture
def _own() -> Iterator[None]:
    yolo.register_layer("OwnBlock", OwnBlock)
    yolo.register_layer("own_scale")(own_scale)
    yield
    del KINDS["OwnBlock"], KINDS["own_scale"]


@pytest.mark.usefixtures("_own")
def test_arguments_and_defaults_are_those_of_the_definition() -> None:
    expected = {"channels": REQUIRED, "stride": 1, "ratio": 0.5, "activation": "SiLU"}
    assert kind_of("OwnBlock").positional == expected
    assert kind_of("own_scale").positional == {"factor": 2}
    node = yolo.parse({**MODEL, "activation": "nn.ReLU()"}).nodes[1]
    assert node.options == {"channels": 16, "stride": 2, "ratio": 0.5, "activation": "ReLU"}


@pytest.mark.usefixtures("_own")
def test_its_parameters_are_initialized_by_its_own_initializers() -> None:
    graph = yolo.parse(MODEL)
    variables = yolo.init(graph, jax.random.key(0))
    np.testing.assert_array_equal(variables["params"]["1"]["0"]["gain"], np.ones(16))
    kernel = variables["params"]["1"]["0"]["raw"]["kernel"]
    assert 0.9 / np.sqrt(8) < np.abs(kernel).max() <= 1 / np.sqrt(8)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract_variables(graph))
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables)
    expected, found = by_flax(graph, jax.random.key(0)), flatten_dict(variables)
    assert found.keys() == expected.keys()
    for path, values in found.items():
        np.testing.assert_array_equal(values, expected[path], err_msg="/".join(path))


@pytest.mark.usefixtures("_own")
def test_a_block_is_folded_and_written_for_pytorch_and_read_again(tmp_path: Path) -> None:
    graph = yolo.parse(MODEL)
    assert graph.strides == (8,)  # 2 · 2 · 2: the block stands twice
    assert yolo.Graph.from_json(graph.to_json()) == graph
    variables = trained(graph)
    folded_graph, folded = yolo.reparam(graph, variables)
    block = folded["params"]["1"]["0"]
    assert {key: set(block[key]) for key in ("reduce", "rep")} == {"reduce": {"conv"}, "rep": {"rbr_reparam"}}
    assert set(block["norm"]) == {"scale", "bias"}
    # In float64 only the float32 rounding of the folded weights is left.
    assert difference(graph, variables, folded_graph, folded) < 2e-6
    for name, form, weights in (("trained", graph, variables), ("folded", folded_graph, folded)):
        file = tmp_path / f"{name}.safetensors"
        yolo.save(file, yolo.Weights(form, weights, ("a", "b"), {}))
        back = yolo.load(file)
        assert back.graph == form
        jax.tree.map(np.testing.assert_array_equal, back.variables, weights)
        state = yolo.to_torch_state(form, weights)
        assert "model.1.0.gain" in state
        jax.tree.map(np.testing.assert_array_equal, yolo.from_torch_state(form, state), weights)


@pytest.mark.usefixtures("_own")
def test_a_block_that_the_usual_rule_does_not_fold_needs_its_own() -> None:
    class Pair(nn.Module):
        channels: int
        form: Form = Form()

        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
            x = Conv2d(self.channels, form=self.form, name="conv")(x)
            return BatchNorm(self.form, name="bn")(x, train=train)

    def fold(params: Any, stats: Any) -> Any:
        factor = params["bn"]["scale"] / np.sqrt(stats["bn"]["var"] + np.float32(1e-3))
        shift = params["bn"]["bias"] - stats["bn"]["mean"] * factor
        return {"conv": params["conv"], "bn": {"scale": factor, "bias": shift}}

    graph_of = {**MODEL, "backbone": [[-1, 1, "Conv", [8, 3, 8]], [-1, 1, "OwnBlock", [16]]]}
    yolo.register_layer("OwnBlock", Pair)
    graph = yolo.parse(graph_of)
    with pytest.raises(yolo.WeightsError, match=r"layer 1 \(OwnBlock\) is folded to .* give the kind a rule"):
        yolo.reparam(graph, trained(graph))
    yolo.register_layer("OwnBlock", Pair, fold=fold)
    yolo.reparam(graph, trained(graph))


@pytest.mark.usefixtures("_own")
def test_arguments_are_checked_by_name_and_by_the_kind() -> None:
    yolo.register_layer("own_scale", own_scale, checks={"factor": (lambda value: value in (2, 3), "2 or 3")})
    yolo.parse(MODEL)
    model = {**MODEL, "head": [[-1, 1, "own_scale", [{"factor": 5}]], [[2], 1, "Detect", ["nc", "anchors"]]]}
    with pytest.raises(yolo.GraphError, match="argument 'factor' of own_scale must be 2 or 3, got 5"):
        yolo.parse(model)


def test_built_in_kinds_keep_their_names() -> None:
    before = KINDS["Conv"]
    with pytest.raises(ValueError, match="'Conv' is a built-in layer kind"):
        yolo.register_layer("Conv", OwnBlock)
    assert KINDS["Conv"] is before


def test_a_module_without_form_is_refused() -> None:
    with pytest.raises(ValueError, match="Dense needs a field `form"):
        yolo.register_layer("OwnDense", nn.Dense)


def test_unknown_kinds_are_told_with_the_nearest() -> None:
    with pytest.raises(yolo.GraphError, match=r"'Convv' is not known \(did you mean 'Conv'.*expected one of Conv, "):
        yolo.parse({**MODEL, "backbone": [[-1, 1, "Convv", [8]]]})


def test_building_blocks_have_the_defaults_of_their_kinds() -> None:
    for op in ("Conv", "RepConv"):
        kind = KINDS[op]
        fields = {key: field.default for key, field in kind.load()[0].__dataclass_fields__.items()}
        for key, default in kind.arguments.items():
            assert default is REQUIRED or fields[key] == default


def test_model_files_are_read_without_jax() -> None:
    code = (
        "import sys, yolov7_jax as yolo; yolo.parse({'anchors': 1, 'backbone': [[-1, 1, 'Conv', [8]]], "
        "'head': [[[0], 1, 'Detect', []]]}); assert 'jax' not in sys.modules and 'flax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

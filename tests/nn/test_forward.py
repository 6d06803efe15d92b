"""Raw outputs and decoded predictions against the recordings of the reference implementations."""

import importlib.util
import json
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.convert.torch_names import from_torch_state, to_torch_state
from yolov7_jax.errors import GraphError
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.rewrite import inference_form, with_activation
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.network import Network
from yolov7_jax.ops.decode import decode, make_grid
from yolov7_jax.reparameterize import fold

MODELS = {
    "yolov7-tiny.train": "yolov7-tiny",
    "yolov7-tiny.deploy": "yolov7/deploy/yolov7-tiny.yaml",
    "yolov7.train": "yolov7",
    "yolov7.deploy": "yolov7/deploy/yolov7.yaml",
    "yolov5n": "yolov5n",
    "yolov7-w6.train": "yolov7-w6",
    "yolov7-w6.deploy": "yolov7/deploy/yolov7-w6.yaml",
    "yolov7-e6e.train": "yolov7-e6e",
    "yolov5s-LeakyReLU": "yolov5s-LeakyReLU",
    "yolov5s6": "yolov5s6",
    "yolov5-bifpn": "yolov5-bifpn",
    "yolor-csp": "yolor-csp",
    "yolor-p6": "yolor-p6",
    "yolov4-csp": "yolov4-csp",
    "r50-csp": "r50-csp",
    "yolov3-tiny": "yolov3-tiny",
}
"""Of the zoo, or parsed from a model file."""


RECORDED_LEAKY = "yolov5-bifpn"
"""Recorded after a network with this default activation, which the reference keeps for the whole process."""


def graph_of(model: str, shared: Path) -> Graph:
    source = MODELS[model]
    graph = parse(shared / "peer_configs" / source) if source.endswith(".yaml") else zoo(source)
    return with_activation(graph, "LeakyReLU(0.1)") if model == RECORDED_LEAKY else graph


class Golden:
    def __init__(self, shared: Path, model: str) -> None:
        folder = shared / "goldens" / "forward"
        spec = importlib.util.spec_from_file_location("recipe", shared / "goldens" / "recipe.py")
        assert spec is not None
        assert spec.loader is not None
        self.recipe: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.recipe)
        self.facts: dict[str, Any] = json.loads((folder / f"{model}.json").read_text())
        self.arrays = dict(np.load(folder / f"{model}.npz"))
        self.graph: Graph = graph_of(model, shared)

    @cached_property
    def filled(self) -> dict[str, np.ndarray]:
        made = {name: self.recipe.fill(name, tuple(shape)) for name, shape in self.facts["state"]}
        return {name: array for name, array in made.items() if array is not None}

    @cached_property
    def state(self) -> dict[str, np.ndarray]:
        recorded = {name: self.arrays.get(f"bn/{name}", np.zeros(shape)) for name, shape in self.facts["state"]}
        return recorded | self.filled

    @cached_property
    def variables(self) -> dict[str, Any]:
        return from_torch_state(self.graph, self.state)

    def image(self) -> np.ndarray:
        _, h, w, _ = self.facts["input"]
        return self.recipe.image(h, w)[:1]


@pytest.fixture(scope="module", params=MODELS)
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared, request.param)


def levels(graph: Graph, rows: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """[1, N, 5 + C] as the recordings have it: one (1, A, H, W, 5 + C) a level."""
    grid = make_grid(graph.anchors, graph.strides, size)
    out = []
    for level, stride in zip(grid.levels, graph.strides, strict=True):
        h, w = size[0] // stride, size[1] // stride
        out.append(rows[:, level].reshape(1, h, w, -1, rows.shape[-1]).transpose(0, 3, 1, 2, 4))
    return out


def run(golden: Golden, dtype: Any, *, folded: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
    """Raw outputs of each level, auxiliary ones at the end, and decoded predictions of the lead levels."""
    graph, variables = golden.graph, golden.variables
    if folded:
        graph, variables = inference_form(graph), fold(graph, variables)
    image = golden.image().astype(dtype)
    size = image.shape[1:3]
    lead, aux = jax.jit(Network(graph, dtype).apply)(variables, image)
    decoded = levels(graph, np.asarray(decode(lead, make_grid(graph.anchors, graph.strides, size))), size)
    flat = np.concatenate([level.reshape(1, -1, level.shape[-1]) for level in decoded], axis=1)
    return [level for head in (lead, aux) if head is not None for level in levels(graph, np.asarray(head), size)], flat


@pytest.mark.shared
def test_float64_heads_and_decoded_predictions_equal_the_reference(golden: Golden) -> None:
    with jax.enable_x64(True):
        heads, decoded = run(golden, jnp.float64)
    assert len(heads) == len(golden.graph.strides) * (1 + golden.graph.has_aux)
    # Both sides compute in float64 from the same float32 weights; recordings are float32, so 1e-6 is what is left.
    for i, head in enumerate(heads):
        expected = golden.arrays[f"train_head{i}" if golden.graph.has_aux else f"head{i}"]
        assert np.abs(head - expected).max() <= 1e-6 * np.abs(expected).max()
    expected = golden.arrays["decoded"]
    assert np.abs(decoded - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(decoded[..., 4:] - expected[..., 4:]).max() <= 1e-6


@pytest.mark.shared
def test_folded_networks_equal_the_reference_too(golden: Golden) -> None:
    with jax.enable_x64(True):
        heads, _ = run(golden, jnp.float64, folded=True)
    # In float64 folded weights keep it; recordings are float32.
    for i, head in enumerate(heads):
        expected = golden.arrays[f"head{i}"]
        assert np.abs(head - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.shared
def test_float32_scores_are_as_near_as_the_reference_itself(golden: Golden) -> None:
    _, decoded = run(golden, jnp.float32, folded=True)
    # Ten times what the reference loses in float32, at least 1e-4: the unit that its README names.
    tolerance = max(10 * golden.facts["float32_error_of_decoded_scores"], 1e-4)
    assert np.abs(decoded[..., 4:] - golden.arrays["decoded"][..., 4:]).max() <= tolerance


@pytest.mark.shared
def test_parameters_and_anchors_equal_the_reference(golden: Golden) -> None:
    assert sum(leaf.size for leaf in jax.tree.leaves(golden.variables["params"])) == golden.facts["parameters"]
    assert np.array_equal(golden.graph.anchors, golden.facts["anchors_pixels"])
    assert list(golden.graph.strides) == golden.facts["strides"]


@pytest.mark.shared
def test_state_dict_has_the_names_shapes_and_values_of_the_reference(golden: Golden) -> None:
    ours = to_torch_state(golden.graph, golden.variables)
    expected = dict(golden.facts["state"])
    grid = f"model.{golden.graph.detect.name}.anchor_grid"  # kept by yolov7 only; a graph does not say who runs it
    assert {name: list(array.shape) for name, array in ours.items() if name != grid} == {
        name: shape for name, shape in expected.items() if name != grid
    }
    for name, array in golden.filled.items():
        assert np.array_equal(ours[name], array)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((64, 64, 3), r"images must be \[B, H, W, 3\], got \[64, 64, 3\]; add an axis for the batch: images\[None\]"),
        ((2, 3, 64, 64), r"got \[2, 3, 64, 64\]; move the channels to the end: images.transpose\(0, 2, 3, 1\)"),
        ((2, 64, 64, 4), r"images must be \[B, H, W, 3\], got \[2, 64, 64, 4\]"),
        ((2, 65, 64, 3), "must be a multiple of 32, got 65"),
    ],
)
def test_images_of_other_axes_are_refused(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(GraphError, match=sentence):
        jax.eval_shape(Network(zoo("yolov7-tiny")).apply, {}, jnp.zeros(shape))

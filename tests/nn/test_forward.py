"""Raw outputs and decoded predictions against the recordings of the reference implementations."""

import importlib.util
import json
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.convert.torch_names import from_torch_state, to_torch_state
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.graph.spec import Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.network import Network, lead_outputs
from yolov7_jax.ops.decode import decode, make_grid
from yolov7_jax.reparameterize import fold

MODELS = {
    "yolov7-tiny.train": "yolov7-tiny",
    "yolov7-tiny.deploy": "yolov7/deploy/yolov7-tiny.yaml",
    "yolov7.train": "yolov7",
    "yolov7.deploy": "yolov7/deploy/yolov7.yaml",
    "yolov5n": "yolov5n",
    "yolov5s-LeakyReLU": "yolov5/yolov5s-LeakyReLU.yaml",
}
"""Of the zoo, or parsed from a model file."""


def graph_of(model: str, shared: Path) -> Graph:
    return parse(shared / "peer_configs" / model) if model.endswith(".yaml") else zoo(model)


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
        self.graph: Graph = graph_of(MODELS[model], shared)

    def state(self) -> dict[str, np.ndarray]:
        state = {}
        for name, shape in self.facts["state"]:
            filled = self.recipe.fill(name, tuple(shape))
            recorded = self.arrays.get(f"bn/{name}", np.zeros(shape))
            state[name] = recorded if filled is None else filled
        return state

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
    graph, variables = golden.graph, from_torch_state(golden.graph, golden.state())
    if folded:
        graph, variables = inference_form(graph), fold(graph, variables)
    image = golden.image().astype(dtype)
    grid = make_grid(graph.anchors, graph.strides, image.shape[1:3])
    raw = jax.jit(partial(lead_outputs, Network(graph, dtype)))(variables, image)
    decoded = levels(graph, np.asarray(decode(raw, grid)), image.shape[1:3])
    flat = np.concatenate([level.reshape(1, -1, level.shape[-1]) for level in decoded], axis=1)
    return levels(graph, np.asarray(raw), image.shape[1:3]), flat


@pytest.mark.shared
def test_float64_heads_and_decoded_predictions_equal_the_reference(golden: Golden) -> None:
    with jax.enable_x64(True):
        heads, decoded = run(golden, jnp.float64)
    # Both sides compute in float64 from the same float32 weights; recordings are float32, so 1e-6 is what is left.
    for i, head in enumerate(heads):
        expected = golden.arrays[f"head{i}"]
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
@pytest.mark.parametrize("folded", [False, True])
def test_float32_scores_are_as_near_as_the_reference_itself(golden: Golden, folded: bool) -> None:
    _, decoded = run(golden, jnp.float32, folded=folded)
    # Ten times what the reference loses in float32, at least 1e-4: the unit that its README names.
    tolerance = max(10 * golden.facts["float32_error_of_decoded_scores"], 1e-4)
    assert np.abs(decoded[..., 4:] - golden.arrays["decoded"][..., 4:]).max() <= tolerance


@pytest.mark.shared
def test_parameters_and_anchors_equal_the_reference(golden: Golden) -> None:
    variables = from_torch_state(golden.graph, golden.state())
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == golden.facts["parameters"]
    assert np.array_equal(golden.graph.anchors, golden.facts["anchors_pixels"])
    assert list(golden.graph.strides) == golden.facts["strides"]


@pytest.mark.shared
def test_state_dict_has_the_names_shapes_and_values_of_the_reference(golden: Golden) -> None:
    state = golden.state()
    ours = to_torch_state(golden.graph, from_torch_state(golden.graph, state))
    assert {name: list(array.shape) for name, array in ours.items()} == dict(golden.facts["state"])
    for name, array in state.items():
        if golden.recipe.fill(name, array.shape) is not None:
            assert np.array_equal(ours[name], array)

from dataclasses import replace

import jax
import numpy as np
import pytest

from yolov7_jax.convert.transfer import transfer
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import WeightsError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.rewrite import deploy_form, inference_form
from yolov7_jax.graph.spec import IMAGE
from yolov7_jax.nn.network import init

NAMES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def weights() -> Weights:
    b = Builder()
    x = b.add("Conv", IMAGE, 8, 3, 8)
    b.add("IAuxDetect", [x, x])
    graph = b.build(anchors=(((10, 13), (33, 23)),), num_classes=3)
    return Weights(graph, jax.tree.map(np.asarray, init(graph, jax.random.key(0))), NAMES)


def rows(weights: Weights, kind: str, leaf: str) -> np.ndarray:
    """A leaf of the detect layer as [..., anchor, row], split by plain loops."""
    array = weights.variables["params"]["1"][kind]["0"][leaf]
    width = 5 + len(weights.names)
    return np.stack([array[..., a * width : (a + 1) * width] for a in range(2)], axis=-2)


def test_classes_in_common_keep_their_rows_wherever_they_move(weights):
    moved, report = transfer(weights, ("cat", "dog", "ant", "elk"), jax.random.key(1))
    assert report == (
        "2 classes keep their weights (cat, ant), 2 are randomly initialized (dog, elk), "
        "1 of the file are not wanted (bee)"
    )
    assert moved.graph.num_classes == 4
    initial = Weights(moved.graph, jax.tree.map(np.asarray, init(moved.graph, jax.random.key(1))), moved.names)
    for kind, leaf in (("m", "kernel"), ("m", "bias"), ("im", "implicit"), ("m2", "kernel"), ("m2", "bias")):
        before, after, new = rows(weights, kind, leaf), rows(moved, kind, leaf), rows(initial, kind, leaf)
        np.testing.assert_array_equal(after[..., :5], before[..., :5])
        for place, source in ((0, 2), (2, 0)):
            np.testing.assert_array_equal(after[..., 5 + place], before[..., 5 + source])
        for place in (1, 3):
            np.testing.assert_array_equal(after[..., 5 + place], new[..., 5 + place])


def test_everything_else_stays(weights):
    moved, _ = transfer(weights, ("dog",), jax.random.key(1))
    for part in ("params", "batch_stats"):
        old, new = weights.variables[part]["0"], moved.variables[part]["0"]
        assert jax.tree.all(jax.tree.map(np.array_equal, old, new))
    implicit = (moved.variables["params"]["1"]["ia"], weights.variables["params"]["1"]["ia"])
    assert jax.tree.all(jax.tree.map(np.array_equal, *implicit))
    assert moved.graph.anchors == weights.graph.anchors


def test_the_same_names_in_another_order_are_put_in_order(weights):
    moved, report = transfer(weights, ("bee", "cat", "ant"), jax.random.key(1))
    assert report == "all 3 classes keep their weights"
    np.testing.assert_array_equal(rows(moved, "m", "kernel")[..., 5:], rows(weights, "m", "kernel")[..., [6, 7, 5]])


def test_deploy_weights_are_a_start_too(weights):
    graph = deploy_form(weights.graph)
    params = weights.variables["params"]
    variables = {**weights.variables, "params": {**params, "1": {"m": params["1"]["m"]}}}
    moved, _ = transfer(Weights(graph, variables, NAMES), ("cat",), jax.random.key(1))
    np.testing.assert_array_equal(rows(moved, "m", "bias")[..., 5], rows(weights, "m", "bias")[..., 7])


def test_the_same_names_change_nothing(weights):
    moved, report = transfer(weights, NAMES, jax.random.key(1))
    assert moved is weights
    assert report == "all 3 classes keep their weights"


def test_folded_weights_are_refused(weights):
    folded = replace(weights, graph=inference_form(weights.graph))
    with pytest.raises(WeightsError, match="inference form"):
        transfer(folded, NAMES, jax.random.key(0))

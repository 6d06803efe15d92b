import jax
import numpy as np
import pytest

import yolov7_jax as yolo
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.nn.network import NODE_OUTPUTS, node_scope


def tagged() -> Graph:
    b = Builder()
    x = b.add("Conv", b.add("Conv", IMAGE, 4, 3, 2, tag="stem"), 8, 3, 2, tag="stem")
    for channels in (17, 19):
        x = b.add("Conv", x, channels, 3, tag="late")
    b.add("Detect", [x])
    return b.build(anchors=1, num_classes=1)


def test_names_and_tags_give_what_the_layers_give() -> None:
    graph = tagged()
    network, variables = yolo.Network(graph), yolo.init(graph, jax.random.key(0))
    images = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)
    found = jax.jit(lambda v, x: yolo.features(network, v, x, ["0", "stem", "late"]))(variables, images)
    every = network.apply(variables, images, mutable=[NODE_OUTPUTS])[1][NODE_OUTPUTS]
    assert set(found) == {"0", "stem", "late"}
    for asked, name in (("0", "0"), ("stem", "1"), ("late", "3")):
        np.testing.assert_allclose(found[asked], every[node_scope(name)][0], atol=1e-5)  # float32, fused otherwise


def test_layers_after_the_last_one_are_not_computed() -> None:
    graph = tagged()
    network, variables = yolo.Network(graph), yolo.init(graph, jax.random.key(0))
    images = np.zeros((1, 16, 16, 3), np.float32)

    def compiled(*layers: str) -> str:
        run = jax.jit(lambda v, x: yolo.features(network, v, x, layers))
        return run.lower(variables, images).compile().as_text()

    assert "f32[1,4,4,17]" in compiled("2")  # [B, H, W, c] of layer 2
    assert "f32[1,4,4,17]" not in compiled("stem")
    assert "f32[1,4,4,19]" not in compiled("2")


def test_unknown_layers_are_named_with_the_nearest() -> None:
    graph = tagged()
    with pytest.raises(yolo.GraphError, match=r"no layer 'stm' \(did you mean 'stem'"):
        yolo.features(yolo.Network(graph), {}, np.zeros((1, 16, 16, 3), np.float32), ["stm"])


def test_networks_run_on_from_feature_maps_that_are_given() -> None:
    graph = tagged()
    network, variables = yolo.Network(graph), yolo.init(graph, jax.random.key(0))
    images = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)
    (feature_map,) = yolo.features(network, variables, images, ["2"]).values()
    run = jax.jit(lambda images, given: network.apply(variables, images, given={"2": given}).lead)
    expected = network.apply(variables, images).lead
    np.testing.assert_allclose(run(0 * images, feature_map), expected, atol=1e-5)  # the images are read no more
    assert np.abs(run(images, 2 * feature_map) - expected).max() > 1e-3
    compiled = run.lower(images, feature_map).compile().as_text()
    assert "f32[2,4,4,19]" in compiled  # layer 3
    assert "f32[2,8,8,4]" not in compiled  # layer 0

"""Detectors as ONNX models, run by onnxruntime, against JAX."""

import jax
import numpy as np
import pytest

from tests.artefacts.graphs import GRAPHS
from tests.small_networks import small_weights
from tools.export_zoo import compare, spread
from yolov7_jax.artefacts.onnx_model import onnx_model
from yolov7_jax.errors import GraphError, InputError
from yolov7_jax.graph.kinds import KINDS
from yolov7_jax.reparameterize import fold

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'yolov7-jax[onnx]'")
onnx = pytest.importorskip("onnx", reason="pip install 'yolov7-jax[onnx]'")

# Roundings of float32, blown up by some tens of layers; a wrong number shows at 1e-3 and more.
LIMIT = 2e-5


@pytest.mark.parametrize("name", GRAPHS)
def test_equals_jax(name: str) -> None:
    graph = GRAPHS[name]()
    size = max(64, graph.max_stride)
    weights = spread(graph, size=size)
    row = compare(weights, size=size)
    assert row.spread_scores > 0.05
    assert max(row.boxes, row.scores) < LIMIT
    folded = sum(leaf.size for leaf in jax.tree.leaves(fold(graph, weights.variables)))
    assert 4 * folded < 1e6 * row.megabytes < 4 * folded + 200_000  # nothing stands twice
    # One before the first convolution and one after the last of each level; a few in layers that reshape.
    reshaping = sum(node.op in ("Focus", "ReOrg", "Contract", "Expand", "C3TR") for node in graph)
    assert row.transposes <= 2 + len(graph.strides) + 3 * reshaping


def test_every_layer_kind_is_there() -> None:
    assert {node.op for make in GRAPHS.values() for node in make()} | {"Detect"} == set(KINDS)


def test_one_class() -> None:
    weights = small_weights(num_classes=1)
    row = compare(weights, size=64)
    assert max(row.boxes, row.scores) < LIMIT


def test_half_precision_is_that_of_the_network_alone() -> None:
    weights = spread(GRAPHS["csp"](), size=64)
    half, whole = (compare(weights, size=64, dtype=dtype) for dtype in ("float16", "float32"))
    assert half.megabytes < 0.6 * whole.megabytes
    assert half.operators == whole.operators + 2  # into the network and out of it
    assert LIMIT < max(half.boxes, half.scores) < 2e-2  # 11 bits, through some tens of layers
    model = onnx_model(weights, size=(64, 64), dtype="float16")
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT32,
    }


def test_weights_that_float16_has_no_room_for() -> None:
    weights = small_weights()
    weights.variables["params"]["2"]["m"]["0"]["bias"][0] = 1e6
    with pytest.raises(InputError, match="too large for float16"):
        onnx_model(weights, size=(64, 64), dtype="float16")


def test_a_size_that_no_network_takes() -> None:
    with pytest.raises(GraphError, match="60"):
        onnx_model(small_weights(), size=(64, 60))


def test_what_goes_in_and_comes_out() -> None:
    model = onnx_model(small_weights(), size=(64, 64))
    assert [value.name for value in model.graph.input] == [
        "images", "confidence", "iou", "multi_label", "agnostic", "max_detections", "class_mask",
    ]  # fmt: skip
    assert max(opset.version for opset in model.opset_import) >= 17
    assert np.prod([size.dim_value for size in model.graph.output[4].type.tensor_type.shape.dim[1:]]) == 2 * 8 * 8 * 4

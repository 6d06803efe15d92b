"""Detectors as ONNX models, run by onnxruntime, against JAX."""

from pathlib import Path

import pytest

from tests.small_networks import small_weights
from tools.export_zoo import compare, spread
from yolov7_jax.export.onnx_engine import OnnxEngine
from yolov7_jax.export.onnx_model import onnx_model
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.kinds import KINDS
from yolov7_jax.graph.rewrite import with_width
from yolov7_jax.graph.spec import IMAGE
from yolov7_jax.graph.zoo import zoo

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'yolov7-jax[onnx]'")
onnx = pytest.importorskip("onnx", reason="pip install 'yolov7-jax[onnx]'")

# Roundings of float32, blown up by some tens of layers; a wrong number shows at 1e-3 and more.
LIMIT = 2e-5
ANCHORS = (((10, 13), (33, 23)),)


def saved(folder: Path, weights, size=(64, 64), **options) -> Path:
    path = folder / "network.onnx"
    path.write_bytes(onnx_model(weights, size=size, **options).SerializeToString())
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> OnnxEngine:
    return OnnxEngine(saved(tmp_path_factory.mktemp("small"), small_weights(), metadata={"names": "ant bee cat"}))


CHAINS = {
    "csp": ("BottleneckCSP", "C3", "C3Ghost", "BottleneckCSPA", "BottleneckCSPB", "BottleneckCSPC"),
    "res": ("Res", "ResX", "ResCSPA", "ResCSPB", "ResCSPC", "ResXCSPA", "ResXCSPB", "ResXCSPC"),
    "rep": (
        "RepConv",
        "RepBottleneck",
        "RepBottleneckCSPA",
        "RepBottleneckCSPB",
        "RepBottleneckCSPC",
        "RepRes",
        "RepResX",
    ),
    "rep csp": ("RepResCSPA", "RepResCSPB", "RepResCSPC", "RepResXCSPA", "RepResXCSPB", "RepResXCSPC"),
    "others": ("Conv", "DWConv", "GhostConv", "GhostBottleneck", "Bottleneck", "SPP", "SPPF", "SPPCSPC", "C3TR"),
}
"""Kinds that keep the size of their input."""


def chain(kinds):
    b = Builder(activation="SiLU")
    x = b.add("Conv", IMAGE, 64, 3, 4)
    for kind in kinds:
        x = b.add(kind, x, 64)
    b.add("IAuxDetect", [x, b.add("Conv", x, 32)])
    return b.build(anchors=ANCHORS, num_classes=3)


def shapes_graph():
    """Kinds that change the size, and all that have no weights."""
    b = Builder(activation="Mish")
    fine = b.add("Focus", IMAGE, 16, 3)
    x = b.add("Concat", [b.add("Contract", b.add("ReOrg", IMAGE)), b.add("Stem", IMAGE, 16), b.add("DownC", fine, 16)])
    x = b.add("Conv", b.add("SP", x), 32)
    y = b.add("Chuncat", [b.add("Foldcut", x), b.add("Chunk", x)])
    x = b.add("Shortcut", [x, y])
    up = b.add(
        "Concat",
        [b.add("nn.Upsample", b.add("MP", x), None, 2, "nearest"), b.add("Expand", b.add("MP", b.add("MP", x)), 4)],
    )
    x = b.add("nn.MaxPool2d", b.add("nn.ZeroPad2d", b.add("Conv", up, 16), (0, 1, 0, 1)), 2, 1)
    b.add("AuxDetect", [b.add("Conv", x, 32, 3, 2), b.add("Conv", x, 16, 3, 2)])
    return b.build(anchors=ANCHORS, num_classes=3)


GRAPHS = {
    **{name: lambda kinds=kinds: chain(kinds) for name, kinds in CHAINS.items()},
    "shapes": shapes_graph,
    # Every layer kind that a network of the zoo has stands in one of these or above; narrow, to be quick.
    **{
        name: lambda name=name: with_width(zoo(name, num_classes=3), 0.125)
        for name in ("yolov5n", "yolov5s-v3", "yolov4-tiny", "yolov3-tiny", "yolov7-tiny")
    },
}


@pytest.mark.parametrize("name", GRAPHS)
def test_equals_jax(name: str) -> None:
    graph = GRAPHS[name]()
    size = max(64, graph.max_stride)
    row = compare(spread(graph, size=size), size=size)
    assert row.spread_scores > 0.05
    assert max(row.boxes, row.scores) < LIMIT
    # One before the first convolution and one after the last of each level; a few in layers that reshape.
    reshaping = sum(node.op in ("Focus", "ReOrg", "Contract", "Expand", "C3TR") for node in graph)
    assert row.transposes <= 2 + len(graph.strides) + 3 * reshaping


def test_every_layer_kind_is_there() -> None:
    assert {node.op for make in GRAPHS.values() for node in make()} | {"Detect"} == set(KINDS)

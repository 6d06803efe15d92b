import json
from pathlib import Path

import pytest

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.rewrite import deploy_form, inference_form
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn import summary
from yolov7_jax.nn.summary import summarize

RECORDED = (
    "r50-csp",
    "yolor-csp",
    "yolor-p6",
    "yolov3-tiny",
    "yolov4-csp",
    "yolov5-bifpn",
    "yolov5n",
    "yolov5s-LeakyReLU",
    "yolov5s6",
    "yolov7.deploy",
    "yolov7.train",
    "yolov7-e6e.train",
    "yolov7-tiny.deploy",
    "yolov7-tiny.train",
    "yolov7-w6.deploy",
    "yolov7-w6.train",
)


def small(b: Builder, last: str) -> Graph:
    b.add("Detect", [last])
    return b.build(anchors=(((1, 1),),), num_classes=1)


@pytest.mark.shared
@pytest.mark.parametrize("recording", RECORDED)
def test_parameters_are_those_of_the_reference(shared: Path, recording: str) -> None:
    name, _, form = recording.partition(".")
    graph = deploy_form(zoo(name)) if form == "deploy" else zoo(name)
    found = summarize(graph)
    expected = json.loads((shared / f"goldens/forward/{recording}.json").read_text())
    assert found.parameters == expected["parameters"]
    assert len(found.rows) == expected["layers"]


@pytest.mark.parametrize(
    ("name", "parameters_m", "gflops"),
    [
        ("yolov7", 36.9, 104.7),
        ("yolov7-tiny-silu", 6.2, 13.8),
        ("yolov5s", 7.2, 16.5),
        ("yolov7-w6", 70.4, 360.0),
        ("yolor-d6", 151.7, 935.6),
    ],
)
def test_inference_form_has_the_published_size(name: str, parameters_m: float, gflops: float) -> None:
    found = summarize(inference_form(zoo(name)))
    assert round(found.parameters / 1e6, 1) == parameters_m
    # The papers also count the bias of each convolution, or its normalization, up to 1 %.
    assert 0.99 * gflops < found.flops / 1e9 <= gflops


def test_counts_by_hand() -> None:
    rows = summarize(zoo("yolov5n"), image_size=(64, 96)).rows
    assert rows[0].shape == (32, 48, 16)
    assert rows[0].parameters == 6 * 6 * 3 * 16 + 2 * 16
    assert rows[0].flops == 2 * 32 * 48 * 16 * 6 * 6 * 3
    assert rows[-1].shape is None
    assert rows[-1].parameters == 255 * (64 + 128 + 256 + 3)
    assert rows[-1].flops == 2 * 255 * (8 * 12 * 64 + 4 * 6 * 128 + 2 * 3 * 256)


def test_counts_groups_by_hand() -> None:
    b = Builder()
    rows = summarize(small(b, b.add("Conv", b.add("Conv", IMAGE, 8), 12, 3, 1, None, 4)), image_size=(5, 7)).rows
    assert rows[1].flops == 2 * 5 * 7 * 12 * 3 * 3 * 2
    assert rows[1].parameters == 12 * 3 * 3 * 2 + 2 * 12


def test_counts_equal_and_repeated_layers_each_time() -> None:
    b = Builder()
    x = b.add("Conv", IMAGE, 4, 3)
    x = b.add("Conv", b.add("Conv", x, 4, 3), 4, 3, repeat=3)
    rows = summarize(small(b, x), image_size=(5, 7)).rows
    one = 4 * 3 * 3 * 4
    assert [row.parameters for row in rows[1:3]] == [one + 8, 3 * (one + 8)]
    assert [row.flops for row in rows[1:3]] == [2 * 5 * 7 * one, 3 * 2 * 5 * 7 * one]
    assert [row.repeat for row in rows] == [1, 1, 3, 1]


def test_counts_branches_and_what_folding_leaves_by_hand() -> None:
    b = Builder()
    graph = small(b, b.add("RepConv", b.add("Conv", IMAGE, 4), 4))
    branches, folded = (summarize(g, image_size=(5, 7)).rows[1] for g in (graph, inference_form(graph)))
    assert branches.parameters == 4 * 4 * (9 + 1) + 3 * 2 * 4
    assert branches.flops == 2 * 5 * 7 * 4 * 4 * (9 + 1)
    assert folded.parameters == 4 * 4 * 9 + 4
    assert folded.flops == 2 * 5 * 7 * 4 * 4 * 9


def test_counts_matrix_products_of_a_transformer_by_hand() -> None:
    b = Builder()
    row = summarize(small(b, b.add("C3TR", b.add("Conv", IMAGE, 8), 16, 2)), image_size=(3, 4)).rows[1]
    tokens, c = 12, 8
    around = tokens * (8 * c + 8 * c + 2 * c * 16)
    embedding = tokens * c * c
    layer = 3 * tokens * c * c + (3 + 1) * tokens * c * c + 2 * tokens * tokens * c + 2 * tokens * c * c
    assert row.flops == 2 * (around + embedding + 2 * layer)
    around = (8 * c + 2 * c) * 2 + 2 * c * 16 + 2 * 16
    layer = 3 * c * c + 3 * c * (c + 1) + c * (c + 1) + 2 * c * c
    assert row.parameters == around + c * (c + 1) + 2 * layer


def test_what_was_counted_before_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_known", {})
    graph = zoo("yolov7-tiny")
    first, folded = summarize(graph), summarize(inference_form(graph))
    smaller = summarize(graph, image_size=(320, 320))
    monkeypatch.setattr(summary, "_known", {})
    assert summarize(graph, image_size=(320, 320)) == smaller
    assert summarize(inference_form(graph)) == folded
    assert summarize(graph) == first
    assert folded.flops == first.flops == 4 * smaller.flops


def test_images_are_by_default_of_the_published_size() -> None:
    assert summarize(zoo("yolov5n")).rows[0].shape == (320, 320, 16)
    assert summarize(zoo("yolov5n6")).rows[0].shape == (640, 640, 16)
    with pytest.raises(GraphError, match="the image size must be a multiple of 64, got 416"):
        summarize(zoo("yolov5n6"), image_size=(640, 416))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5-p7", "yolov7-tiny", "yolov7", "yolov7-w6", "yolov3-tiny"])
def test_strides_of_the_graph_are_those_of_its_shapes(name: str) -> None:
    graph = zoo(name)
    side = 2 * graph.max_stride
    shapes = {row.name: row.shape for row in summarize(graph, image_size=(side, side)).rows}
    assert tuple(side // (shapes[name] or (0,))[0] for name in graph.detect.lead) == graph.strides

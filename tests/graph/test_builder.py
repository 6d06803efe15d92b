from collections.abc import Callable
from dataclasses import replace

import pytest

from yolov7_jax.errors import GraphError
from yolov7_jax.graph.builder import Builder, finish, with_anchors
from yolov7_jax.graph.spec import IMAGE, Anchors, Graph, Node

ANCHORS: Anchors = (((4, 5), (8, 9)),)


def nodes() -> list[Node]:
    b = Builder()
    b.add("Detect", [b.add("Conv", b.add("Conv", IMAGE, 8, 3, 2), 8)])
    return b.nodes


def test_what_fits_together_is_built() -> None:
    graph = finish(nodes(), anchors=ANCHORS, num_classes=2)
    assert (graph.strides, graph.max_stride, graph.default_size) == ((2,), 2, 640)
    assert graph.single_class_score == "objectness"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda n: [n[0], replace(n[1], name="0"), n[2]], r"layer 0 \(Conv\): this name is already taken"),
        (lambda n: [replace(n[0], src=("7",)), *n[1:]], r"layer 0 \(Conv\) reads layer 7, which does not stand before"),
        (lambda n: [n[0], replace(n[1], src=("0", "0")), n[2]], r"layer 1 \(Conv\): expected one input, got 2"),
        (lambda n: n[:2], "the last layer must be the detect layer"),
        (lambda n: n[:0], "the last layer must be the detect layer"),
        (lambda n: [replace(n[0], op="Magic"), *n[1:]], r"layer 0 \(Magic\): layer kind 'Magic' is not known"),
    ],
)
def test_what_does_not_is_refused_with_the_layer(change: Callable[[list[Node]], list[Node]], sentence: str) -> None:
    with pytest.raises(GraphError, match=sentence):
        finish(change(nodes()), anchors=ANCHORS, num_classes=2)


def test_levels_need_whole_strides_and_anchors_each() -> None:
    b = Builder()
    b.add("Detect", [b.add("nn.Upsample", IMAGE, None, 2, "nearest")])
    with pytest.raises(GraphError, match="reads strides 1/2; expected whole numbers"):
        b.build(anchors=ANCHORS, num_classes=2)
    with pytest.raises(GraphError, match="the number of classes must be at least 1, got 0"):
        finish(nodes(), anchors=ANCHORS, num_classes=0)
    with pytest.raises(GraphError, match="the detect layer has 1 levels; expected as many lists of anchors, got 2, 2"):
        with_anchors(finish(nodes(), anchors=ANCHORS, num_classes=2), ANCHORS * 2)


def test_arguments_are_checked_when_they_are_added() -> None:
    b = Builder()
    with pytest.raises(GraphError, match="Conv has no argument width; expected channels, kernel"):
        b.add("Conv", IMAGE, 8, width=3)
    with pytest.raises(GraphError, match="argument 'kernel' of Conv must be a positive integer, got '3'"):
        b.add("Conv", IMAGE, 8, "3")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": 3}', '{"nodes": [{"name": "0"}]}'])
def test_what_is_no_stored_graph_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="the stored graph cannot be read"):
        Graph.from_json(text)

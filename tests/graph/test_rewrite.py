import math

import pytest

from yolov7_jax.graph.layers import infer_shapes
from yolov7_jax.graph.rewrite import with_width
from yolov7_jax.graph.zoo import zoo


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov5n"])
def test_a_narrow_network_has_a_fraction_of_the_channels_everywhere(name):
    graph = zoo(name)
    narrow = with_width(graph, 0.25)
    wide, thin = infer_shapes(graph.nodes, 3), infer_shapes(narrow.nodes, 3)
    for node in graph.nodes[:-1]:
        if "channels" in node.options:
            assert thin[node.name].channels == math.ceil(wide[node.name].channels / 4 / 8) * 8
        assert thin[node.name].stride == wide[node.name].stride
    assert (narrow.anchors, narrow.strides) == (graph.anchors, graph.strides)


def test_the_same_width_is_the_same_graph():
    graph = zoo("yolov7-tiny")
    assert with_width(graph, 1.0) is graph

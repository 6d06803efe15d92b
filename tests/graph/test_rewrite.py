import math
from dataclasses import replace

import pytest

from yolov7_jax.graph.layers import infer_shapes
from yolov7_jax.graph.rewrite import deploy_form, with_activation, with_width, without_implicit
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.network import abstract_variables


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


@pytest.mark.parametrize(
    ("name", "op", "levels"), [("yolov7", "Detect", 3), ("yolov7-w6", "AuxDetect", 4), ("yolov5n", "Detect", 3)]
)
def test_without_implicit_vectors_all_else_stays(name, op, levels):
    graph = zoo(name)
    plain = without_implicit(graph)
    assert (plain.detect.op, len(plain.detect.lead)) == (op, levels)
    assert plain.nodes[:-1] == graph.nodes[:-1]
    assert plain.detect.src == graph.detect.src
    assert not any(key in ("ia", "im") for key in abstract_variables(plain)["params"][plain.detect.name])


def test_another_activation_leaves_layers_without_one_alone():
    graph = zoo("yolov5s-ghost")
    changed = with_activation(graph, "nn.ReLU()")
    for before, after in zip(graph, changed, strict=True):
        if "activation" in before.options:
            assert after.options == before.options | {"activation": "ReLU"}
        else:
            assert after == before
    identity = replace(graph.nodes[0], args=tuple((graph.nodes[0].options | {"activation": "Identity"}).items()))
    kept = with_activation(replace(graph, nodes=(identity, *graph.nodes[1:])), "ReLU")
    assert kept.nodes[0] == identity


def test_deploy_form_numbers_layers_anew_and_is_a_fixed_point():
    graph = deploy_form(zoo("yolov7-w6"))
    assert [node.name for node in graph] == [str(number) for number in range(len(graph.nodes))]
    assert deploy_form(graph) == graph

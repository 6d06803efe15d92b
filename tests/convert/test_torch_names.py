from typing import Any

import jax
import numpy as np
import pytest

from yolov7_jax.convert.torch_names import compare, flatten, from_torch_state, to_torch_state, torch_name
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.nn.network import abstract_variables


def graph_of(op: str, *args: Any, head: str = "Detect", levels: int = 1, **named: Any) -> Graph:
    b = Builder()
    x = b.add(op, b.add("Conv", IMAGE, 8, 3, 8), *args, **named)
    b.add(head, [x] * levels)
    return b.build(anchors=2, num_classes=3)


def shapes(graph: Graph, start: str) -> dict[str, tuple[int, ...]]:
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_variables(graph))
    state = to_torch_state(graph, zeros)
    return {name.removeprefix(start): array.shape for name, array in state.items() if name.startswith(start)}


def normed(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    vectors = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{name}.{leaf}": shape for leaf, shape in vectors.items()} | {f"{name}.num_batches_tracked": ()}


def conv(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.conv.weight": shape} | normed(f"{name}.bn", shape[0])


def test_attention_has_the_names_and_shapes_of_pytorch() -> None:
    assert shapes(graph_of("C3TR", 16, 1), "model.1.") == {
        **conv("cv1", 8, 8, 1, 1),
        **conv("cv2", 8, 8, 1, 1),
        **conv("cv3", 16, 16, 1, 1),
        "m.linear.weight": (8, 8),
        "m.linear.bias": (8,),
        **{f"m.tr.0.{name}.weight": (8, 8) for name in ("q", "k", "v", "fc1", "fc2", "ma.out_proj")},
        "m.tr.0.ma.in_proj_weight": (24, 8),
        "m.tr.0.ma.in_proj_bias": (24,),
        "m.tr.0.ma.out_proj.bias": (8,),
    }


def test_linear_layers_are_turned_over_and_back() -> None:
    graph = graph_of("C3TR", 16, 1)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_variables(graph))
    state = to_torch_state(graph, variables)
    attention = variables["params"]["1"]["m"]["tr"]["0"]["ma"]
    assert state["model.1.m.tr.0.ma.in_proj_weight"][17, 3] == attention["in_proj"]["kernel"][3, 17]
    back = from_torch_state(graph, state)
    assert jax.tree.all(jax.tree.map(np.array_equal, back, dict(variables)))


def test_the_cross_stage_layer_of_old_yolov5_has_two_bare_convolutions_and_one_norm() -> None:
    assert shapes(graph_of("BottleneckCSP", 16, 1), "model.1.") == {
        **conv("cv1", 8, 8, 1, 1),
        "cv2.weight": (8, 8, 1, 1),
        "cv3.weight": (8, 8, 1, 1),
        **normed("bn", 16),
        **conv("cv4", 16, 16, 1, 1),
        **conv("m.0.cv1", 8, 8, 1, 1),
        **conv("m.0.cv2", 8, 8, 3, 3),
    }


def test_auxiliary_levels_have_rows_and_no_implicit_vectors() -> None:
    graph = graph_of("Conv", 16, head="IAuxDetect", levels=2)
    assert shapes(graph, "model.2.") == {
        "m.0.weight": (16, 16, 1, 1),
        "m.0.bias": (16,),
        "m2.0.weight": (16, 16, 1, 1),
        "m2.0.bias": (16,),
        "ia.0.implicit": (1, 16, 1, 1),
        "im.0.implicit": (1, 16, 1, 1),
        "anchors": (1, 2, 2),
        "anchor_grid": (1, 1, 2, 1, 1, 2),
    }


@pytest.mark.parametrize("op", ["C3TR", "C3Ghost", "BottleneckCSP", "ResCSPA", "RepConv", "SPPCSPC", "Stem", "DownC"])
def test_no_two_weights_have_one_name(op: str) -> None:
    graph = graph_of(op, 16)
    names = [torch_name(path) for path, _ in flatten(abstract_variables(graph))]
    assert len(set(names)) == len(names)
    assert compare(graph, {name: np.zeros(1) for name in names}).missing == ()

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from yolov7_jax.errors import GraphError, WeightsError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.kinds import KINDS
from yolov7_jax.graph.layers import infer_shapes
from yolov7_jax.graph.spec import IMAGE, Graph, Value
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.network import Network, abstract_variables
from yolov7_jax.reparameterize import TOLERANCE, difference, fold, reparam


def trained(graph: Graph, seed: int = 0) -> dict[str, Any]:
    """Weights as training leaves them: statistics, scales and implicit vectors all away from their start."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        kind = path[-1].key
        if kind == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        low, high = {"scale": (0.5, 1.5), "var": (0.2, 3.0)}.get(kind, (-0.5, 0.5))
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(graph))


def rep_network(*, groups: int, channels: int, stride: int, identity: bool) -> Graph:
    b = Builder()
    x = b.add("Conv", IMAGE, 8, 3, 2)
    rep = b.add("RepConv", x, channels, 3, stride, None, groups, identity=identity)
    b.add("Conv", x, 12)  # read by nothing
    b.add("IDetect", [rep])
    return b.build(anchors=(((10, 13), (16, 30)),), num_classes=2)


@settings(max_examples=12)  # each is two compilations
@given(
    groups=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([8, 16]),
    stride=st.sampled_from([1, 2]),
    identity=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rep_conv_folds_to_the_same_outputs(groups: int, channels: int, stride: int, identity: bool, seed: int) -> None:
    graph = rep_network(groups=groups, channels=channels, stride=stride, identity=identity)
    variables = trained(graph, seed)
    has_identity = "rbr_identity" in variables["params"]["1"]
    assert has_identity == (identity and channels == 8 and stride == 1)
    folded_graph, folded = reparam(graph, variables)
    assert set(folded["params"]["1"]) == {"rbr_reparam"}
    # In float64 only the float32 rounding of the folded weights is left, 6e-8 of each.
    assert difference(graph, variables, folded_graph, folded) < 2e-6


UNFOLDED = {"bn", "rbr_dense", "rbr_1x1", "rbr_identity", "ia", "im", "m2"}
ARGUMENTS: Mapping[str, tuple[Value, ...]] = {
    "DWConv": (16, 3),
    "Focus": (16, 3),
    "RepConv": (16, 3, 1),
    "GhostBottleneck": (16, 3, 2),
    "nn.MaxPool2d": (3, 1, 1),
    "nn.ZeroPad2d": ((1, 1, 2, 0),),
    "nn.Upsample": (None, 2, "nearest"),
    "Contract": (2,),
    "Expand": (2,),
    "SP": (3,),
}
"""Of kinds that take others than 16 channels, or no arguments at all."""


def added(b: Builder, op: str, xs: Sequence[str], **named: Value) -> str:
    """A layer of a kind with 16 channels, and 32 where its convolutions have 32 groups."""
    channels = (32, 1, True, 16) if "CSP" in op and "ResX" in op else (64, True, 32) if "ResX" in op else (16,)
    args = ARGUMENTS.get(op, channels if "channels" in KINDS[op].arguments else ())
    return b.add(op, xs if op in SEVERAL else xs[0], *args, **named)


SEVERAL = ("Concat", "Shortcut", "Chuncat")
DETECT_KINDS = tuple(op for op, kind in KINDS.items() if kind.head)
WEIGHTED = sorted(op for op in KINDS if "channels" in KINDS[op].arguments)
LAYERS = sorted(set(KINDS) - set(DETECT_KINDS) - {"nn.ZeroPad2d"})  # which changes sizes and has nothing to fold


def keys(tree: Mapping[str, Any]) -> set[str]:
    return {key.key for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0] for key in path}


@pytest.mark.parametrize("part", range(4))
def test_every_kind_of_layer_folds_to_the_same_outputs(part: int) -> None:
    b = Builder(activation="ReLU")
    outs = []
    for op in WEIGHTED[part::4]:
        wide = added(b, "Conv", [IMAGE])
        named = {"reversed": True} if "reversed" in KINDS[op].named and part % 2 else {}
        x = added(b, op, [wide], **named)
        stride = int(infer_shapes(b.nodes, 3)[x].stride)
        outs.append(b.add("Conv", x, 4, 3, 8 // stride))
    joined = b.add("Concat", outs)
    b.add("IAuxDetect", [joined, b.add("Conv", joined, 8)])
    graph = b.build(anchors=(((10, 13), (16, 30)),), num_classes=2)
    variables = trained(graph)
    folded_graph, folded = reparam(graph, variables)
    assert not keys(folded) & UNFOLDED
    assert jax.tree.structure(folded) == jax.tree.structure(abstract_variables(folded_graph))
    # In float64 only the float32 rounding of the folded weights is left, 6e-8 of each, over a dozen layers.
    assert difference(graph, variables, folded_graph, folded) < 2e-6


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Networks of any layers in any order; what does not fit together is left out."""
    b = Builder(activation=draw(st.sampled_from(["SiLU", "nn.LeakyReLU(0.1)", "nn.Hardswish()"])))
    tips = [b.add("Conv", IMAGE, 16, 3, 2)]
    for op in draw(st.lists(st.sampled_from(LAYERS), min_size=4, max_size=7)):
        named = {key: draw(st.booleans()) for key in ("reversed", "identity") if key in KINDS[op].named}
        xs = [draw(st.sampled_from(tips)), tips[-1]]
        before = len(b.nodes)
        try:
            tip = added(b, op, xs, **named)
            stride = infer_shapes(b.nodes, 3)[tip].stride
        except GraphError:
            stride = Fraction(0)
        if stride in (1, 2, 4, 8, 16):
            tips.append(tip)
        else:
            del b.nodes[before:]
    ends = [b.add("Conv", tip, 8, 3) for tip in tips[-2:]]
    head = draw(st.sampled_from(DETECT_KINDS))
    same = len({infer_shapes(b.nodes, 3)[end].stride for end in ends}) == 1
    b.add(head, ends if KINDS[head].head == "plain" or (same and len(ends) == 2) else [ends[0], ends[0]])
    return b.build(anchors=1, num_classes=draw(st.integers(1, 3)))


@settings(max_examples=8, phases=(Phase.generate,))  # each is two compilations: shrinking would take long
@given(graph=graphs(), seed=st.integers(0, 99))
def test_any_network_folds_to_the_same_outputs(graph: Graph, seed: int) -> None:
    variables = trained(graph, seed)
    folded_graph, folded = reparam(graph, variables)
    assert not keys(folded) & UNFOLDED
    assert set(folded["params"]) <= {node.name for node in folded_graph}
    # As above.
    assert difference(graph, variables, folded_graph, folded) < 2e-6


@pytest.mark.parametrize("name", ["yolov7-tiny", "yolov7", "yolov5n"])
def test_networks_fold_to_the_same_outputs(name: str) -> None:
    graph = zoo(name, num_classes=3)
    variables = trained(graph)
    folded_graph, folded = reparam(graph, variables)
    assert "batch_stats" not in folded
    assert jax.tree.structure(folded) == jax.tree.structure(abstract_variables(folded_graph))
    assert difference(graph, variables, folded_graph, folded) < 5e-6


def test_layers_that_nothing_reads_are_dropped() -> None:
    graph = rep_network(groups=1, channels=8, stride=1, identity=True)
    folded_graph, folded = reparam(graph, trained(graph))
    assert [node.name for node in folded_graph] == ["0", "1", "3"]
    assert set(folded["params"]) == {"0", "1", "3"}
    assert folded_graph.detect.op == "Detect"


def test_folded_convolution_has_the_values_by_hand() -> None:
    b = Builder(activation="Identity")
    b.add("Conv", IMAGE, 1, 1, 1)
    b.add("Detect", ["0"])
    graph = b.build(anchors=(((1, 1),),), num_classes=1)
    variables = trained(graph)
    variables["params"]["0"] = {
        "conv": {"kernel": np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1)},
        "bn": {"scale": np.float32([4]), "bias": np.float32([0.5])},
    }
    variables["batch_stats"]["0"] = {"bn": {"mean": np.float32([10]), "var": np.float32([4 - 1e-3])}}
    folded = fold(graph, variables)["params"]["0"]["conv"]
    # factor 4 / √4 = 2, shift 0.5 − 10 · 2
    assert np.allclose(folded["kernel"].ravel(), [2, 4, 6], rtol=1e-6)
    assert np.allclose(folded["bias"], [-19.5], rtol=1e-6)


def test_folding_a_folded_network_changes_nothing() -> None:
    graph = rep_network(groups=1, channels=8, stride=1, identity=True)
    once = reparam(graph, trained(graph))
    assert reparam(*once) == once


def test_a_result_that_differs_is_refused_and_says_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = rep_network(groups=1, channels=8, stride=1, identity=True)
    variables = trained(graph)
    monkeypatch.setattr("yolov7_jax.nn.fold.BATCH_NORM_EPSILON", 1.01e-3)  # the least that a fold can be wrong
    with pytest.raises(WeightsError, match=r"folding changed the outputs by \d\.?\d*e-05 of the largest, more than"):
        reparam(graph, variables)


def test_networks_that_float32_hardly_holds_are_folded_all_the_same() -> None:
    graph = rep_network(groups=1, channels=8, stride=1, identity=False)
    variables = trained(graph)
    # Layer 0 gives a constant; in layer 1 two numbers of 1e6 nearly cancel, so that rounding one to float32 shows.
    variables["params"]["0"]["bn"] = {"scale": np.zeros(8, np.float32), "bias": np.ones(8, np.float32)}
    dense = variables["params"]["1"]["rbr_dense"]
    dense["0"]["kernel"] = np.zeros_like(dense["0"]["kernel"])
    dense["0"]["kernel"][1, 1] = np.eye(8) * 1e6
    dense["1"]["scale"] = np.full(8, 1 / 3, np.float32)
    variables["batch_stats"]["1"]["rbr_dense"]["1"]["mean"] = np.full(8, 1e6 / (1 + np.exp(-1)), np.float32)
    folded_graph, folded = reparam(graph, variables)
    assert difference(graph, variables, folded_graph, folded) > TOLERANCE


def test_folding_in_float64_keeps_float64() -> None:
    graph = zoo("yolov7-tiny", num_classes=3)
    variables = trained(graph)
    with jax.enable_x64(True):
        folded_graph, folded = reparam(graph, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(folded)} == {np.dtype("float64")}
    # Nothing is rounded but in float64 itself, 1e-16 an operation.
    assert difference(graph, variables, folded_graph, folded) < 1e-12


def test_weights_that_are_not_finite_once_folded_are_refused() -> None:
    graph = rep_network(groups=1, channels=8, stride=1, identity=True)
    variables = trained(graph)
    variables["params"]["0"]["conv"]["kernel"] *= np.float32(1e38)
    variables["params"]["0"]["bn"]["scale"] *= np.float32(1e10)
    with pytest.raises(WeightsError, match=r"layer 0 \(Conv\) has weights that are not finite once folded"):
        reparam(graph, variables)


def test_float32_outputs_agree_too() -> None:
    graph = zoo("yolov7-tiny", num_classes=3)
    variables = trained(graph)
    folded_graph, folded = reparam(graph, variables)
    image = np.random.default_rng(1).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    before = jax.jit(Network(graph, jnp.float32).apply)(variables, image).lead
    after = jax.jit(Network(folded_graph, jnp.float32).apply)(folded, image).lead
    # 60 layers of float32 rounding, each about 1e-7 of its size.
    assert float(jnp.abs(before - after).max() / jnp.abs(before).max()) < 2e-5

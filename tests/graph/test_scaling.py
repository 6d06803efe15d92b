"""Compound scaling, E-ELAN, planned re-parameterization and partial auxiliary heads, as structure."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov7_jax.graph.blocks import conv, elan, extended
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.rewrite import deploy_form
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.graph.zoo.scaling import Scaling
from yolov7_jax.graph.zoo.yolov7 import yolov7
from yolov7_jax.graph.zoo.yolov7_p6 import yolov7_p6

ELANS = 8
CHAINS_OF_X = (6, 21, 36, 51, 66, 80, 95, 110)
"""The first 3×3 of every ELAN's chain in v7-X, from its published model file."""


def layers(graph: Graph) -> Counter:
    return Counter((node.op, node.args) for node in graph)


def light(scaling: Scaling) -> Graph:
    return yolov7(num_classes=80, stacked=True, scaling=scaling)


def channels(graph: Graph, names) -> tuple[int, ...]:
    by_name = {node.name: node for node in graph}
    return tuple(by_name[name].options["channels"] for name in names)


@pytest.mark.parametrize(("depth", "more"), [(1.5, 2), (2.0, 4)])
def test_depth_adds_nothing_but_links_of_chains(depth, more):
    base, deep = layers(light(Scaling())), layers(light(Scaling(depth=depth)))
    assert not base - deep
    added = deep - base
    assert all(op == "Conv" and dict(args)["kernel"] == 3 and dict(args)["stride"] == 1 for op, args in added)
    # stages of 64, 128, 256, 256 channels; the head's have 256, 128, 256, 512
    assert {dict(args)["channels"]: count for (_, args), count in added.items()} == {
        64: more,
        128: 2 * more,
        256: 4 * more,
        512: more,
    }


def test_width_and_block_width_part_the_layers_between_them():
    base, wide, inside = (light(scaling) for scaling in (Scaling(), Scaling(width=1.25), Scaling(block_width=1.25)))
    counts = Counter()
    for node, outer, inner in zip(base, wide, inside, strict=True):
        assert (node.op, node.src) == (outer.op, outer.src) == (inner.op, inner.src)
        if "channels" in node.options:
            size = node.options["channels"]
            ratios = (outer.options["channels"] / size, inner.options["channels"] / size)
            assert ratios in ((1.25, 1.0), (1.0, 1.25))
            counts[ratios] += 1
            assert {k: v for k, v in node.args if k != "channels"} == {k: v for k, v in outer.args if k != "channels"}
    assert counts[1.0, 1.25] == ELANS * (2 + 4)


def test_x_is_the_light_network_scaled_in_depth_and_width():
    assert light(Scaling(depth=1.5, width=1.25)) == zoo("yolov7x")
    assert light(Scaling()) == zoo("yolov7x-light")


@given(
    depth=st.floats(0.1, 4),
    width=st.floats(0.05, 3),
    block_width=st.floats(0.05, 3),
    narrow=st.booleans(),
)
@settings(max_examples=30)
def test_any_scaling_gives_a_network_of_three_levels(depth, width, block_width, narrow):
    graph = yolov7(num_classes=80, stacked=not narrow, scaling=Scaling(depth, width, block_width))
    assert graph.strides == (8, 16, 32)
    assert len(graph.nodes) == len(zoo("yolov7").nodes) + ELANS * (max(round(4 * depth), 1) - 4)
    assert all(node.options.get("channels", 8) % 8 == 0 for node in graph)


@pytest.mark.parametrize(
    ("name", "lead", "aux", "links", "downs"),
    [
        ("yolov7-w6", (256, 512, 768, 1024), (320, 640, 960, 1280), 4, 0),
        ("yolov7-e6", (320, 640, 960, 1280), (320, 640, 960, 1280), 6, 8),
        ("yolov7-d6", (384, 768, 1152, 1536), (384, 768, 1152, 1536), 8, 8),
        ("yolov7-e6e", (320, 640, 960, 1280), (320, 640, 960, 1280), 6, 8),
    ],
)
def test_the_networks_of_1280_pixels_are_w6_scaled(name, lead, aux, links, downs):
    graph = zoo(name)
    ops = Counter(node.op for node in graph)
    assert channels(graph, graph.detect.src) == lead + aux
    assert ops["DownC"] == downs
    blocks = 2 if name == "yolov7-e6e" else 1
    chained = Counter(
        node.options["channels"]
        for node in graph
        if node.op == "Conv" and node.options["kernel"] == 3 and node.options["stride"] == 1 and "c" in node.tag
    )
    # the insides of the five stages are as wide in all of them
    assert chained == {64: blocks * links, **dict.fromkeys((128, 256, 384, 512), blocks * links)}


def test_blocks_side_by_side_read_one_input_and_are_summed_newest_first():
    b = Builder()
    x = conv(b, IMAGE, 8)
    total, last = extended(b, x, lambda x: conv(b, x, 16, 3), 3)
    assert [(node.name, node.op, node.src) for node in b.nodes] == [
        ("0", "Conv", (IMAGE,)),
        ("1", "Conv", ("0",)),
        ("2", "Conv", ("0",)),
        ("3", "Shortcut", ("2", "1")),
        ("4", "Conv", ("0",)),
        ("5", "Shortcut", ("4", "3")),
    ]
    assert (total, last) == ("5", "4")
    assert extended(b, x, lambda x: conv(b, x, 16, 3), 1) == ("6", "6")


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("yolov7-e6e", ("186", "161", "136", "112")),  # the second ELANs; the coarsest level is SPPCSPC
        ("yolov7-e6e-aux-sum", ("187", "162", "137", "112")),  # the sums
        ("yolov7-e6", ("99", "85", "71", "57")),
    ],
)
def test_auxiliary_head_reads_the_top_down_pyramid(name, taps):
    graph = zoo(name)
    by_name = {node.name: node for node in graph}
    levels = len(graph.strides)
    assert tuple(by_name[name].src[0] for name in graph.detect.src[levels:]) == taps


@pytest.mark.parametrize("name", ["yolov7-e6", "yolov7-e6e"])
def test_without_auxiliary_head_the_deployed_network_is_the_same(name):
    bare = zoo(f"{name}-no-aux")
    assert bare.detect.op == "IDetect"
    assert len(zoo(name).nodes) - len(bare.nodes) == 4
    assert deploy_form(bare) == deploy_form(zoo(name))


def test_where_the_auxiliary_head_reads_does_not_change_the_deployed_network():
    assert deploy_form(zoo("yolov7-e6e-aux-sum")) == deploy_form(zoo("yolov7-e6e"))


def test_without_blocks_side_by_side_there_is_no_partial_auxiliary_head():
    assert yolov7_p6(num_classes=80, aux="sum") == yolov7_p6(num_classes=80, aux="partial")


@pytest.mark.parametrize(
    ("letter", "identity"),
    [
        ("a", {1: True, 3: True, 5: True}),
        ("b", {2: False, 4: False, 6: False}),
        ("c", {1: True, 2: False}),
        ("d", {5: True, 6: False}),
        ("e", {1: True, 2: False, 3: True, 4: False, 5: True, 6: False}),
    ],
)
def test_planned_repconv_has_no_identity_before_a_concatenation(letter, identity):
    graph, base = zoo(f"yolov7x-rep-{letter}"), zoo("yolov7x")
    expected = {str(start + link - 1): kept for start in CHAINS_OF_X for link, kept in identity.items()}
    assert {node.name: node.options["identity"] for node in graph if node.op == "RepConv"} == expected
    joined = {name for node in graph if node.op == "Concat" for name in node.src}
    assert all(kept == (name not in joined) for name, kept in expected.items())
    for node, plain in zip(graph, base, strict=True):
        assert node.src == plain.src
        assert {**node.options, "identity": None} == {**plain.options, "identity": None}
        assert (node.op, plain.op) == ("RepConv", "Conv") if node.name in expected else node.op == plain.op


def test_unplanned_repconv_keeps_its_identity():
    b = Builder()
    elan(b, IMAGE, branch=8, chain=8, out=16, rep=(1, 2), planned=False)
    assert [node.options["identity"] for node in b.nodes if node.op == "RepConv"] == [True, True]


@pytest.mark.parametrize(
    ("name", "base", "rep", "reverse", "blocks"),
    [
        ("yolor-w6-repcsp", "yolor-w6", True, False, 11),
        ("yolor-w6-rcsp", "yolor-w6", False, True, 11),
        ("yolor-w6-reprcsp", "yolor-w6", True, True, 11),
        ("yolor-csp-reprcsp", "yolor-csp", True, True, 9),
    ],
)
def test_residual_ablations_change_the_dark_block_alone(name, base, rep, reverse, blocks):
    changed = 0
    for node, plain in zip(zoo(name), zoo(base), strict=True):
        assert node.src == plain.src
        if plain.op.startswith("Bottleneck"):
            changed += 1
            assert node.op == ("Rep" if rep else "") + plain.op
            assert node.options == {**plain.options, "reversed": reverse, **({"identity": True} if rep else {})}
        else:
            assert node == plain
    assert changed == blocks

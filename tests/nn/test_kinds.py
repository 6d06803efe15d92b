"""Layer kinds that no recording holds, against their definitions written out in numpy."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import pytest

from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph, Value
from yolov7_jax.nn.network import NODE_OUTPUTS, Network, abstract_variables

CHANNELS = 8
SIDE = 4

Tree = Mapping[str, Any]
Array = np.ndarray


def layer_graph(op: str, args: tuple[Value, ...], named: Mapping[str, Value]) -> Graph:
    b = Builder(activation="LeakyReLU(0.25)")
    b.add("Detect", [b.add(op, IMAGE, *args, **named)])
    return b.build(anchors=(((1, 1),),), num_classes=1, channels=CHANNELS)


def drawn(graph: Graph) -> dict[str, Any]:
    """Weights in float64, none of them at its start; variances positive."""
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape), abstract_variables(graph))
    return {**weights, "batch_stats": jax.tree.map(lambda leaf: 0.2 + np.abs(leaf), weights.get("batch_stats", {}))}


def apply(graph: Graph, variables: Any, image: Array) -> Array:
    with jax.enable_x64(True):
        run = jax.jit(lambda v, x: Network(graph, np.float64).apply(v, x, mutable=[NODE_OUTPUTS])[1])
        return np.asarray(run(variables, image)[NODE_OUTPUTS]["node 0"][0])


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.25 * x)


def same(x: Array) -> Array:
    return x


def norm(x: Array, params: Tree, stats: Tree) -> Array:
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-3) * params["scale"] + params["bias"]


def convolve(x: Array, kernel: Array, stride: int = 1, groups: int = 1) -> Array:
    """One sum an output number, with padding k//2. [H, W, C]."""
    k, _, per_group, out = kernel.shape
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    rows, columns = ((side + 2 * (k // 2) - k) // stride + 1 for side in x.shape[:2])
    y = np.zeros((rows, columns, out))
    for i, j, channel in np.ndindex(rows, columns, out):
        first = channel // (out // groups) * per_group
        window = padded[i * stride : i * stride + k, j * stride : j * stride + k, first : first + per_group]
        y[i, j, channel] = (window * kernel[..., channel]).sum()
    return y


def conv(
    x: Array,
    params: Tree,
    stats: Tree,
    *,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[Array], Array] = leaky,
) -> Array:
    return act(norm(convolve(x, params["conv"]["kernel"], stride, groups), params["bn"], stats["bn"]))


def pool(x: Array, kernel: int, stride: int, padding: int) -> Array:
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0)), constant_values=-np.inf)
    rows, columns = (range(0, side - kernel + 1, stride) for side in padded.shape[:2])
    return np.array([[padded[i : i + kernel, j : j + kernel].max((0, 1)) for j in columns] for i in rows])


def join(*xs: Array) -> Array:
    return np.concatenate(xs, axis=-1)


def ghost_conv(x: Array, p: Tree, s: Tree, *, stride: int = 1, act: Callable[[Array], Array] = leaky) -> Array:
    half = conv(x, p["cv1"], s["cv1"], stride=stride, act=act)
    return join(half, conv(half, p["cv2"], s["cv2"], groups=half.shape[-1], act=act))


def ghost_bottleneck(x: Array, p: Tree, s: Tree) -> Array:
    y = ghost_conv(x, p["conv"]["0"], s["conv"]["0"])
    return x + ghost_conv(y, p["conv"]["2"], s["conv"]["2"], act=same)


def strided_ghost_bottleneck(x: Array, p: Tree, s: Tree) -> Array:
    y = ghost_conv(x, p["conv"]["0"], s["conv"]["0"])
    y = conv(y, p["conv"]["1"], s["conv"]["1"], stride=2, groups=y.shape[-1], act=same)
    y = ghost_conv(y, p["conv"]["2"], s["conv"]["2"], act=same)
    z = conv(x, p["shortcut"]["0"], s["shortcut"]["0"], stride=2, groups=x.shape[-1], act=same)
    return y + conv(z, p["shortcut"]["1"], s["shortcut"]["1"], act=same)


def dark(x: Array, p: Tree, s: Tree) -> Array:
    return x + conv(conv(x, p["cv1"], s["cv1"]), p["cv2"], s["cv2"])


def res(x: Array, p: Tree, s: Tree, *, groups: int = 1) -> Array:
    y = conv(conv(x, p["cv1"], s["cv1"]), p["cv2"], s["cv2"], groups=groups)
    return x + conv(y, p["cv3"], s["cv3"])


def rep(x: Array, p: Tree, s: Tree, *, identity: bool) -> Array:
    y = sum(norm(convolve(x, p[key]["0"]["kernel"]), p[key]["1"], s[key]["1"]) for key in ("rbr_dense", "rbr_1x1"))
    return leaky(y + norm(x, p["rbr_identity"], s["rbr_identity"]) if identity else y)


def rep_planned(x: Array, p: Tree, s: Tree) -> Array:
    return x + rep(conv(x, p["cv1"], s["cv1"]), p["cv2"], s["cv2"], identity=False)


def rep_reversed(x: Array, p: Tree, s: Tree) -> Array:
    return x + conv(rep(x, p["cv1"], s["cv1"], identity=True), p["cv2"], s["cv2"])


def csp(x: Array, p: Tree, s: Tree, block: Callable[..., Array], layout: str = "A") -> Array:
    reduced = conv(x, p["cv1"], s["cv1"])
    main = reduced
    for place in sorted(p["m"]):
        main = block(main, p["m"][place], s["m"][place])
    past = conv(reduced if layout == "B" else x, p["cv2"], s["cv2"])
    if layout == "C":
        return conv(join(conv(main, p["cv3"], s["cv3"]), past), p["cv4"], s["cv4"])
    return conv(join(main, past), p["cv3"], s["cv3"])


def bottleneck_csp(x: Array, p: Tree, s: Tree) -> Array:
    main = conv(x, p["cv1"], s["cv1"])
    for place in sorted(p["m"]):
        main = dark(main, p["m"][place], s["m"][place])
    joined = join(convolve(main, p["cv3"]["kernel"]), convolve(x, p["cv2"]["kernel"]))
    return conv(np.maximum(norm(joined, p["bn"], s["bn"]), 0), p["cv4"], s["cv4"])


def attention(x: Array, p: Tree) -> Array:
    """Row by row and head by head. [T, C]."""
    tokens, c = x.shape
    w, bias = p["ma"]["in_proj"]["kernel"], p["ma"]["in_proj"]["bias"]
    q, k, v = (
        x @ p[key]["kernel"] @ w[:, i * c : (i + 1) * c] + bias[i * c : (i + 1) * c] for i, key in enumerate("qkv")
    )
    mixed = np.zeros((tokens, c))
    size = c // 4
    for head in range(4):
        part = slice(head * size, (head + 1) * size)
        for i in range(tokens):
            scores = np.array([q[i, part] @ k[j, part] for j in range(tokens)]) / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            mixed[i, part] = (weights / weights.sum()) @ v[:, part]
    return mixed @ p["ma"]["out_proj"]["kernel"] + p["ma"]["out_proj"]["bias"]


def c3_transformer(x: Array, p: Tree, s: Tree) -> Array:
    main = conv(x, p["cv1"], s["cv1"])
    tokens = main.reshape(-1, main.shape[-1])
    tokens = tokens + tokens @ p["m"]["linear"]["kernel"] + p["m"]["linear"]["bias"]
    for place in sorted(p["m"]["tr"]):
        layer = p["m"]["tr"][place]
        tokens = tokens + attention(tokens, layer)
        tokens = tokens + tokens @ layer["fc1"]["kernel"] @ layer["fc2"]["kernel"]
    return conv(join(tokens.reshape(main.shape), conv(x, p["cv2"], s["cv2"])), p["cv3"], s["cv3"])


def space_to_depth(x: Array, blocks: list[tuple[int, int]]) -> Array:
    return join(*(x[row::2, column::2] for row, column in blocks))


BY_COLUMN = [(0, 0), (1, 0), (0, 1), (1, 1)]
BY_ROW = [(0, 0), (0, 1), (1, 0), (1, 1)]


def spread(x: Array) -> Array:
    y = np.zeros((2 * SIDE, 2 * SIDE, CHANNELS // 4))
    for place, (row, column) in enumerate(BY_ROW):
        y[row::2, column::2] = x[..., 2 * place : 2 * place + 2]
    return y


def spp(x: Array, p: Tree, s: Tree) -> Array:
    y = conv(x, p["cv1"], s["cv1"])
    return conv(join(y, pool(y, 3, 1, 1), pool(y, 5, 1, 2)), p["cv2"], s["cv2"])


DEFINITIONS: list[tuple[str, tuple[Value, ...], dict[str, Value], Callable[..., Array]]] = [
    ("DWConv", (16, 3), {}, lambda x, p, s: conv(x, p, s, groups=8)),
    ("DWConv", (12, 3, 2), {}, lambda x, p, s: conv(x, p, s, groups=4, stride=2)),
    ("GhostConv", (12, 3, 2), {}, lambda x, p, s: ghost_conv(x, p, s, stride=2)),
    ("GhostBottleneck", (8,), {}, ghost_bottleneck),
    ("GhostBottleneck", (12, 3, 2), {}, strided_ghost_bottleneck),
    ("C3Ghost", (16, 2, False), {}, lambda x, p, s: csp(x, p, s, ghost_bottleneck)),
    ("C3TR", (16, 2), {}, c3_transformer),
    ("Focus", (6, 3), {}, lambda x, p, s: conv(space_to_depth(x, BY_COLUMN), p["conv"], s["conv"])),
    ("SPP", (6, (3, 5)), {}, spp),
    ("BottleneckCSP", (8, 2), {"csp_activation": "nn.ReLU()"}, bottleneck_csp),
    ("Res", (8,), {}, res),
    ("Res", (8, True, 2), {}, lambda x, p, s: res(x, p, s, groups=2)),
    ("ResX", (8, True, 4), {}, lambda x, p, s: res(x, p, s, groups=4)),
    ("ResXCSPB", (8, 1, True, 2), {}, lambda x, p, s: csp(x, p, s, lambda *a: res(*a, groups=2), "B")),
    ("ResXCSPC", (16, 1, True, 4), {}, lambda x, p, s: csp(x, p, s, lambda *a: res(*a, groups=4), "C")),
    ("ResCSPA", (16,), {}, lambda x, p, s: csp(x, p, s, res)),
    ("RepBottleneck", (8, True, 1, 1.0), {"reversed": True}, rep_reversed),
    ("RepBottleneck", (8, True, 1, 1.0), {"identity": False}, rep_planned),
    ("RepBottleneckCSPC", (16, 2), {"reversed": True}, lambda x, p, s: csp(x, p, s, rep_reversed, "C")),
    ("BottleneckCSPB", (8, 1, True), {}, lambda x, p, s: csp(x, p, s, dark, "B")),
    ("ReOrg", (), {}, lambda x, *_: space_to_depth(x, BY_COLUMN)),
    ("Contract", (2,), {}, lambda x, *_: space_to_depth(x, BY_ROW)),
    ("Chuncat", (), {}, lambda x, *_: x),
    ("Foldcut", (), {}, lambda x, *_: x[..., :4] + x[..., 4:]),
    ("Chunk", (4, 2), {}, lambda x, *_: x[..., 4:6]),
    ("nn.MaxPool2d", (3, 2, 1), {}, lambda x, *_: pool(x, 3, 2, 1)),
    ("nn.MaxPool2d", (2,), {}, lambda x, *_: pool(x, 2, 2, 0)),
]


@pytest.mark.parametrize(("op", "args", "named", "definition"), DEFINITIONS)
def test_a_layer_equals_its_definition(
    op: str, args: tuple[Value, ...], named: dict[str, Value], definition: Callable[..., Array]
) -> None:
    graph = layer_graph(op, args, named)
    variables = drawn(graph)
    image = np.random.default_rng(1).normal(size=(1, SIDE, SIDE, CHANNELS))
    expected = definition(image[0], variables["params"].get("0", {}), variables["batch_stats"].get("0", {}))
    # Both in float64: sums of a few hundred products, a few layers deep.
    assert np.allclose(apply(graph, variables, image)[0], expected, rtol=1e-10, atol=1e-10)


def test_depth_to_space_spreads_channels_row_by_row_and_undoes_space_to_depth() -> None:
    b = Builder()
    expand = b.add("Expand", IMAGE, 2)
    b.add("Detect", [b.add("Contract", expand, 2)])
    graph = b.build(anchors=(((1, 1),),), num_classes=1, channels=CHANNELS)
    image = np.random.default_rng(1).normal(size=(1, SIDE, SIDE, CHANNELS))
    _, outputs = Network(graph, np.float64).apply(abstract_zeros(graph), image, mutable=[NODE_OUTPUTS])
    assert np.allclose(outputs[NODE_OUTPUTS]["node 0"][0][0], spread(image[0]))
    assert np.allclose(outputs[NODE_OUTPUTS]["node 1"][0], image)


def abstract_zeros(graph: Graph) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_variables(graph))


def test_several_inputs_are_joined_summed_and_interleaved_by_halves() -> None:
    b = Builder()
    first, second = b.add("Chunk", IMAGE, 2, 0), b.add("Chunk", IMAGE, 2, 1)
    b.add("Shortcut", [first, second])
    b.add("Detect", [b.add("Chuncat", [first, second])])
    graph = b.build(anchors=(((1, 1),),), num_classes=1, channels=CHANNELS)
    image = np.random.default_rng(1).normal(size=(1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    _, outputs = Network(graph).apply(abstract_zeros(graph), image, mutable=[NODE_OUTPUTS])
    assert np.array_equal(outputs[NODE_OUTPUTS]["node 2"][0], image[..., :4] + image[..., 4:])
    assert np.array_equal(outputs[NODE_OUTPUTS]["node 3"][0], image[..., [0, 1, 4, 5, 2, 3, 6, 7]])


def test_the_cheap_half_of_ghost_layers_is_depth_wise_of_5x5() -> None:
    params = abstract_variables(layer_graph("GhostConv", (12, 3), {}))["params"]["0"]
    assert params["cv1"]["conv"]["kernel"].shape == (3, 3, 8, 6)
    assert params["cv2"]["conv"]["kernel"].shape == (5, 5, 1, 6)


def test_zero_pad_takes_left_right_top_bottom() -> None:
    b = Builder()
    pad = b.add("nn.ZeroPad2d", IMAGE, (3, 1, 0, 2))
    b.add("Detect", [b.add("nn.MaxPool2d", pad, 2, 1, 0)])
    graph = b.build(anchors=(((1, 1),),), num_classes=1, channels=CHANNELS)
    image = np.random.default_rng(1).normal(size=(1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    _, outputs = Network(graph).apply(abstract_zeros(graph), image, mutable=[NODE_OUTPUTS])
    padded = np.pad(image[0], ((0, 2), (3, 1), (0, 0)))
    assert np.array_equal(outputs[NODE_OUTPUTS]["node 0"][0][0], padded)
    assert np.array_equal(outputs[NODE_OUTPUTS]["node 1"][0][0], pool(padded, 2, 1, 0))

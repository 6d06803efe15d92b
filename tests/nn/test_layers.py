from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamShapeError
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax import lax

from tests.artefacts.graphs import chain
from tests.small_networks import small_weights
from yolov7_jax.errors import GraphError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.nn.conv import BatchNorm, Conv2d, activate
from yolov7_jax.nn.cpu import by_image
from yolov7_jax.nn.functional import max_pool
from yolov7_jax.nn.heads import prior_bias
from yolov7_jax.nn.network import Network, abstract_variables, example_images, init, lead_outputs


def convolve_by_hand(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int, groups: int) -> np.ndarray:
    """The definition: one sum a pixel."""
    k, _, per_group, out = kernel.shape
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((side + 2 * padding - k) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((len(x), height, width, out))
    for row in range(height):
        for column in range(width):
            window = padded[:, row * stride : row * stride + k, column * stride : column * stride + k]
            for channel in range(out):
                first = channel // (out // groups) * per_group
                part = window[..., first : first + per_group]
                y[:, row, column, channel] = (part * kernel[..., channel]).sum((1, 2, 3))
    return y


@settings(max_examples=40)
@given(
    kernel=st.integers(1, 6),
    stride=st.integers(1, 2),
    padding=st.none() | st.integers(0, 3),
    channels=st.sampled_from([(3, 1), (4, 1), (4, 2), (6, 1), (6, 3)]),
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
)
def test_convolution_equals_its_definition(
    kernel: int, stride: int, padding: int | None, channels: tuple[int, int], size: tuple[int, int]
) -> None:
    c, groups = channels
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, c)).astype(np.float32)
    layer = Conv2d(6, kernel, stride, padding, groups)
    weights = rng.normal(size=(kernel, kernel, c // groups, 6)).astype(np.float32)
    y = layer.apply({"params": {"kernel": weights}}, x)
    expected = convolve_by_hand(x, weights, stride, kernel // 2 if padding is None else padding, groups)
    assert y.shape == expected.shape
    # Sums of up to 216 float32 products.
    assert np.allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 13])
def test_chained_pools_equal_one_window(kernel: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 11, 7, 3)).astype(np.float32)
    padding = ((0, 0), (kernel // 2, kernel // 2), (kernel // 2, kernel // 2), (0, 0))
    window = lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, 1, 1, 1), padding)
    assert np.array_equal(max_pool(jnp.asarray(x), kernel, 1, kernel // 2), window)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (3, 3), (5, 2), (5, 5)])
def test_sp_layer_is_the_maximum_around_each_cell(kernel: int, stride: int) -> None:
    b = Builder()
    b.add("Detect", [b.add("SP", IMAGE, kernel, stride)])
    graph = b.build(anchors=(((1, 1),),), num_classes=1)
    image = np.random.default_rng(0).normal(size=(1, 30, 15 * 4, 3)).astype(np.float32)
    outputs, values = Network(graph).apply(
        Network(graph).init(jax.random.key(0), image), image, mutable=["intermediates"]
    )
    padded = np.pad(image, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2, (0, 0)), constant_values=-np.inf)
    expected = [
        [padded[0, i : i + kernel, j : j + kernel].max((0, 1)) for j in range(0, 60, stride)]
        for i in range(0, 30, stride)
    ]
    assert np.array_equal(values["intermediates"]["node 0"][0][0], expected)
    assert outputs.lead.shape[1] == 30 // stride * 60 // stride


@given(arrays(np.float32, (1, 5, 7, 2), elements=st.floats(-9, 9, width=32, allow_subnormal=False)))
def test_tiled_pool_is_the_maximum_of_each_tile(x: np.ndarray) -> None:
    expected = [[x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(3)] for i in range(2)]
    assert np.array_equal(max_pool(jnp.asarray(x), 2, 2), np.moveaxis(np.array(expected), 2, 0))


def test_batch_norm_trains_with_the_batch_and_keeps_unbiased_statistics() -> None:
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 2)).astype(np.float32)
    layer = BatchNorm()
    start = layer.init(jax.random.key(0), x, train=True)
    assert float(start["batch_stats"]["mean"].sum()) == 0  # initializing must not count as a step
    y, after = layer.apply(start, x, train=True, mutable=["batch_stats"])
    mean, biased = x.mean((0, 1, 2)), x.var((0, 1, 2))
    unbiased = x.reshape(-1, 2).var(0, ddof=1)
    # Single precision sums of 120 numbers.
    assert np.allclose(y, (x - mean) / np.sqrt(biased + 1e-3), atol=1e-5)
    assert np.allclose(after["batch_stats"]["mean"], 0.03 * mean, rtol=1e-5)
    assert np.allclose(after["batch_stats"]["var"], 0.97 + 0.03 * unbiased, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SiLU", [-2 / (1 + np.exp(2)), 0, 3 / (1 + np.exp(-3))]),
        ("LeakyReLU(0.1)", [-0.2, 0, 3]),
        ("ReLU", [0, 0, 3]),
        ("Hardswish", [-1 / 3, 0, 3]),
        ("Mish", [-2 * np.tanh(np.log1p(np.exp(-2))), 0, 3 * np.tanh(np.log1p(np.exp(3)))]),
        ("Sigmoid", [1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-3))]),
        ("Identity", [-2, 0, 3]),
    ],
)
def test_activations_have_the_values_by_hand(name: str, expected: list[float]) -> None:
    assert np.allclose(activate(jnp.array([-2.0, 0.0, 3.0]), name), expected, atol=1e-6)


def test_prior_bias_has_the_values_by_hand() -> None:
    bias = prior_bias(2, 80, 32)(jax.random.key(0), (170,), jnp.float32)
    row = [0, 0, 0, 0, np.log(8 / 400)] + [np.log(0.6 / 79.01)] * 80
    assert np.allclose(bias, row + row, atol=1e-6)


def test_initial_weights_are_those_of_their_key_inside_transformations_too() -> None:
    graph, key = small_weights().graph, jax.random.key(3)
    ensemble = jax.vmap(partial(init, graph))(jnp.stack([jax.random.key(4), key]))
    inside = (
        jax.jit(partial(init, graph))(key),
        jax.jit(lambda: init(graph, key))(),
        jax.tree.map(lambda leaf: leaf[1], ensemble),
    )
    expected = jax.tree.leaves(init(graph, key))
    for found in inside:
        for ours, theirs in zip(jax.tree.leaves(found), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)  # another program rounds differently


def test_initial_kernels_spread_as_one_over_the_root_of_fan_in() -> None:
    kernel = np.asarray(init(zoo("yolov5n"), jax.random.key(0))["params"]["3"]["conv"]["kernel"])
    bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
    assert np.abs(kernel).max() <= bound
    assert np.isclose(kernel.std(), bound / np.sqrt(3), rtol=0.02)  # of a uniform draw; 18432 numbers


def by_flax(graph: Graph, key: jax.Array) -> dict[str, Any]:
    """What Flax's own `init` draws, in one program."""
    example = example_images(graph)
    images = jnp.zeros(example.shape, example.dtype)
    return flatten_dict(jax.jit(partial(Network(graph).init, images=images))(key))


def test_weights_are_those_that_flax_draws() -> None:
    graph = chain(("C3TR", "RepConv", "GhostConv"))
    expected, found = by_flax(graph, jax.random.key(5)), flatten_dict(init(graph, jax.random.key(5)))
    assert found.keys() == expected.keys()
    for path, values in found.items():
        assert values.dtype == expected[path].dtype
        # To the bit; implicit vectors are a product and a sum, which the compiler may round once for both.
        tolerance = 3e-7 if path[-1] == "implicit" else 0
        np.testing.assert_allclose(values, expected[path], rtol=tolerance, atol=0, err_msg="/".join(path))


def test_bfloat16_computes_with_float32_weights_and_gives_float32() -> None:
    graph = zoo("yolov5n", num_classes=2)
    image = np.random.default_rng(0).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    variables = init(graph, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    narrow: Any = jax.jit(Network(graph, jnp.bfloat16).apply)(variables, image)
    wide: Any = jax.jit(Network(graph).apply)(variables, image)
    assert narrow.lead.dtype == jnp.float32
    # bfloat16 has 8 bits: each layer rounds by 2⁻⁹ of its value.
    difference = np.abs(narrow.lead - wide.lead).max() / np.abs(wide.lead).max()
    assert 0 < difference < 0.02


def test_training_updates_every_running_statistic() -> None:
    graph = zoo("yolov7-tiny", num_classes=2)
    variables = init(graph, jax.random.key(0))
    image = np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 3)).astype(np.float32)
    step = jax.jit(partial(Network(graph).apply, train=True, mutable=["batch_stats"]))
    outputs, after = step(variables, image)
    assert outputs.lead.shape == (2, 3 * (64 + 16 + 4), 7)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), variables["batch_stats"], after["batch_stats"])
    assert all(jax.tree.leaves(changed))


def test_images_of_other_sides_are_refused() -> None:
    graph = zoo("yolov5n", num_classes=2)
    with pytest.raises(GraphError, match="the image size must be a multiple of 32, got 100; the nearest is 96"):
        jax.eval_shape(Network(graph).init, jax.random.key(0), np.zeros((1, 64, 100, 3), np.float32))


def test_weights_are_float32_in_float64_too() -> None:
    with jax.enable_x64(True):
        leaves = jax.tree.leaves(jax.eval_shape(partial(init, zoo("yolov7")), jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


def test_shapes_of_weights_need_no_computation() -> None:
    graph = zoo("yolov5n")
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract_variables(graph))
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), init(graph, jax.random.key(0)))


def test_images_in_turn_give_what_a_batch_gives() -> None:
    graph = zoo("yolov5n", num_classes=2)
    variables = init(graph, jax.random.key(0))
    images = np.random.default_rng(0).uniform(0, 1, (3, 64, 96, 3)).astype(np.float32)
    in_turn = jax.jit(partial(by_image, partial(lead_outputs, Network(graph), variables)))(images)
    together: Any = jax.jit(Network(graph).apply)(variables, images)
    # float32 sums in another order.
    assert np.allclose(in_turn, together.lead, atol=1e-5)


def test_a_parameter_of_another_shape_is_refused() -> None:
    layer, x = Conv2d(4, use_bias=True), jnp.zeros((1, 5, 5, 3))
    variables = layer.init(jax.random.key(0), x)
    assert layer.apply(variables, x).shape == (1, 5, 5, 4)
    kernel = variables["params"]["kernel"]
    with pytest.raises(ScopeParamShapeError, match="bias"):
        layer.apply({"params": {"kernel": kernel, "bias": jnp.zeros(1)}}, x)
    with pytest.raises(ScopeParamShapeError, match="kernel"):
        layer.apply({"params": {"kernel": kernel[..., :1], "bias": jnp.zeros(4)}}, x)

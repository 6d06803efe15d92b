"""Each operation that the ONNX export knows, run by onnxruntime, against JAX."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from yolov7_jax.artefacts.onnx_axes import AXES
from yolov7_jax.artefacts.onnx_elements import ELEMENTS
from yolov7_jax.artefacts.onnx_file import Port, model_of
from yolov7_jax.artefacts.onnx_graph import BATCH, Converter, Value, traced
from yolov7_jax.artefacts.onnx_steps import Steps
from yolov7_jax.artefacts.onnx_sums import SUMS
from yolov7_jax.errors import InputError
from yolov7_jax.nn import cpu, functional
from yolov7_jax.nn.conv import activate, convolve

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'yolov7-jax[onnx]'")
pytest.importorskip("onnx", reason="pip install 'yolov7-jax[onnx]'")

RULES = ELEMENTS | AXES | SUMS
KERNEL = np.random.default_rng(1).normal(0, 0.2, (3, 3, 8, 8)).astype(np.float32)
ONE_BY_ONE = KERNEL[:1, :1]
GROUPED = np.random.default_rng(2).normal(0, 0.2, (3, 3, 2, 8)).astype(np.float32)
MATRIX = KERNEL[0, 0]


def conv(x, kernel=ONE_BY_ONE, stride=1, padding=0, groups=1):
    return convolve(x, jnp.asarray(kernel), (stride, stride), ((padding, padding), (padding, padding)), groups)


def steps_of(function, shape):
    """The operators of a function of float32 [b, ...], and the name of its output."""
    with cpu.tuned(False):
        trace = traced(function, jax.ShapeDtypeStruct((BATCH, *shape), jnp.float32))
    steps = Steps()
    converter = Converter(steps, RULES, images="x")
    (found,) = converter.run(trace.jaxpr, trace.consts, [Value("x")])
    name = converter.whole(found, trace.out_avals[0].shape)
    steps.finish([name])
    return steps, name, trace.out_avals[0]


def run(function, x):
    steps, name, aval = steps_of(function, x.shape[1:])
    shape = tuple(size if size < BATCH else "b" for size in aval.shape)
    model = model_of(steps, {"x": Port(np.float32, ("b", *x.shape[1:]))}, {"y": (name, Port(aval.dtype, shape))})
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": x})[0]


def attention(x):
    q, k, v = (x.reshape(x.shape[0], -1, 2, 4) for _ in range(3))
    return jnp.einsum("bhij,bjhd->bihd", nn.softmax(jnp.einsum("bihd,bjhd->bhij", q, k)), v)


MAPS = {
    "convolution": lambda x: conv(x, KERNEL, 2, 1),
    "convolution of groups": lambda x: conv(x, GROUPED, 1, 1, 4),
    "convolution and bias": lambda x: conv(x) + jnp.arange(8.0).reshape(1, 1, 1, 8),
    "convolution of two uses and bias": lambda x: (y := conv(x)) * (y + jnp.arange(8.0).reshape(1, 1, 1, 8)),
    "dilated convolution": lambda x: lax.conv_general_dilated(
        x, jnp.asarray(KERNEL), (1, 1), "SAME", rhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "max pool": lambda x: functional.max_pool(conv(x), 5, 1, 2),
    "max pool of tiles": lambda x: functional.max_pool(conv(x), 2, 2),
    "mean pool": lambda x: lax.reduce_window(conv(x), 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME") / 9,
    "upsample": lambda x: conv(functional.upsample(conv(x), factor=2)),
    "upsample of images": lambda x: functional.upsample(x, factor=3),
    "rows repeated": lambda x: jnp.repeat(conv(x), 2, axis=1),
    "channels repeated": lambda x: jnp.repeat(x, 2, axis=3),
    "new axis broadcast": lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], 2, *x.shape[1:])),
    "space to depth": lambda x: conv(functional.space_to_depth(x), np.tile(ONE_BY_ONE, (1, 1, 4, 1))),
    "space to depth of maps": lambda x: functional.space_to_depth(conv(x), columns_first=True),
    "depth to space": lambda x: functional.depth_to_space(conv(x)),
    "zero pad": lambda x: functional.zero_pad(conv(x), margins=(0, 1, 2, 0)),
    "cut": lambda x: jnp.pad(conv(x), ((0, 0), (0, 0), (0, 0), (1, 0)), constant_values=3)[:, 1:, ::2, :5],
    "concat": lambda x: functional.concat(x, conv(x), jnp.ones_like(x)),
    "chuncat": lambda x: functional.chuncat(x, conv(x)),
    "foldcut": lambda x: functional.foldcut(conv(x)),
    "chunk": lambda x: functional.chunk(conv(x), groups=4, place=2),
    "dynamic slice": lambda x: lax.dynamic_slice(conv(x), (0, 3, 9, 0), (*x.shape[:1], 4, 4, 8)),
    "channel weights": lambda x: conv(x) * nn.sigmoid(conv(x).mean((1, 2), keepdims=True)),
    "means kept apart": lambda x: conv(x) * nn.sigmoid(conv(x).mean((1, 2)) @ MATRIX)[:, None, None],
    "over rows": lambda x: conv(x).sum(1),
    "over images": lambda x: conv(x).max(0),
    "over channels": lambda x: conv(x).max(3) + conv(x).min(3) + conv(x).sum(3),
    "over the batch": lambda x: conv(x) / conv(x).max(),
    "over all": lambda x: conv(x).sum((1, 2, 3)),
    "product": lambda x: jnp.prod(conv(x)[:, :2, :2], axis=(1, 2)),
    "transpose": lambda x: jnp.transpose(conv(x), (0, 3, 1, 2)),
    "transpose of axes": lambda x: jnp.transpose(conv(x), (0, 2, 3, 1)),
    "pixels as rows": lambda x: conv(x).reshape(x.shape[0], -1, 8) @ MATRIX,
    "attention": attention,
    "softmax": lambda x: nn.softmax(conv(x)),
    "one channel": lambda x: conv(x)[..., 2],
    "one row": lambda x: jnp.squeeze(conv(x)[:, 3:4], 1),
    "swapped": lambda x: conv(x) + jnp.swapaxes(conv(x), 1, 2),
    "constants": lambda x: x * jnp.sin(jnp.arange(8.0)).reshape(1, 1, 1, 8) + jnp.eye(8)[None, None, :],
    "constant output": lambda x: x * 0 + jnp.arange(8.0).reshape(1, 1, 1, 8),
    "checkpoint": jax.checkpoint(lambda x: jnp.tanh(conv(x))),
}


@pytest.mark.parametrize("name", MAPS)
def test_feature_maps(name):
    x = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 8)).astype(np.float32)
    with cpu.tuned(False):
        expected = np.asarray(MAPS[name](jnp.asarray(x)))
    found = run(MAPS[name], x)
    assert found.shape == expected.shape
    # Sums of up to 72 products of size 1, in another order.
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


ELEMENTWISE = {
    **{
        name: lambda x, name=name: activate(x, name) for name in ("SiLU", "ReLU", "Hardswish", "Mish", "LeakyReLU(0.1)")
    },
    "softplus": nn.softplus,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "exact gelu": lambda x: nn.gelu(x, approximate=False),
    "log1p": lambda x: jnp.log1p(x * x * 1e-6),
    "expm1": lambda x: jnp.expm1(x * 1e-3),
    "large expm1": lambda x: jnp.expm1(4 * x),
    "powers": lambda x: jnp.abs(x) ** 1.5 + x**3 + jnp.sqrt(x * x) + lax.rsqrt(x * x + 1) + jnp.square(x),
    "rounding": lambda x: jnp.floor(x) + 10 * jnp.ceil(x) + 100 * jnp.sign(x),
    "angles": lambda x: jnp.sin(x) + jnp.cos(2 * x) + jnp.tan(x / 4) + jnp.tanh(x),
    "logarithm": lambda x: jnp.log(jnp.abs(x) + 1) + lax.erf(x) - jnp.exp(-x),
    "choices": lambda x: jnp.where((x > 0) & (x < 1) | ~(x <= 2) ^ (x >= 3), x, -x) + jnp.clip(x, -0.5, 0.5),
    "equality": lambda x: ((x == x.max(3, keepdims=True)) | (x != x)).astype(jnp.float32),
    "integers": lambda x: (x * 10).astype(jnp.int32).astype(jnp.float32) / 3,
    "held": lambda x: lax.stop_gradient(x) + lax.optimization_barrier(x) + jnp.copy(x),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_element_by_element(name):
    x = np.random.default_rng(0).normal(0, 2, (2, 4, 4, 8)).astype(np.float32)

    def function(x):
        return ELEMENTWISE[name](functional.max_pool(x, 1, 1))  # so that it is a feature map

    expected = np.asarray(function(jnp.asarray(x)))
    # A few roundings of float32.
    np.testing.assert_allclose(run(function, x), expected, rtol=3e-6, atol=1e-6 * np.abs(expected).max())


def test_a_function_that_has_the_name_of_another_is_itself():
    def softplus(x):
        return 2 * x

    x = np.float32([[1, 2]])
    np.testing.assert_array_equal(run(jax.jit(softplus), x), 2 * x)


def operators(function):
    return Counter(step.op for step in steps_of(function, (8, 8, 8))[0].steps)


def test_pools_and_upsampling_are_single_operators():
    for function in ("max pool", "max pool of tiles"):
        assert operators(MAPS[function]) == {"Transpose": 2, "Conv": 1, "MaxPool": 1}
    assert operators(MAPS["upsample"]) == {"Transpose": 2, "Conv": 2, "Resize": 1}


def test_feature_maps_are_turned_at_the_ends_alone():
    def network(x):
        y = nn.silu(conv(x))
        y = jnp.concatenate([y, functional.max_pool(y, 3, 1, 1), functional.upsample(y[:, ::2, ::2], factor=2)], -1)
        first, second, _ = jnp.split(functional.zero_pad(y, margins=(1, 1, 1, 1)), 3, axis=-1)
        return conv(nn.leaky_relu(first) + jnp.arange(8.0).reshape(1, 1, 1, 8) * second, KERNEL)

    assert operators(network)["Transpose"] == 2


def test_bias_is_that_of_the_convolution():
    assert operators(MAPS["convolution and bias"]) == {"Transpose": 2, "Conv": 1}
    assert operators(MAPS["convolution of two uses and bias"])["Add"] == 1


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: jnp.sort(x, axis=1), "sort"),
        (lambda x: lax.fori_loop(0, 3, lambda _, y: 2 * y, x), "scan"),
        (
            lambda x: lax.conv_transpose(
                x, jnp.asarray(KERNEL), (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            "conv_general_dilated",
        ),
        (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "pad"),
    ],
)
def test_what_has_no_counterpart_is_named(function, named):
    with pytest.raises(InputError, match=named):
        steps_of(function, (8, 8, 8))

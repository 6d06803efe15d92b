"""What is computed in bfloat16 still sums the gradients of its weights in float32."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.nn.conv import BatchNorm, Form
from yolov7_jax.nn.network import Network, abstract_variables, example_images

SUM = re.compile(r"stablehlo\.reduce\(.*applies stablehlo\.add across dimensions = \[([\d, ]+)\] : \(tensor<\S*xbf16>")


def graph_of(head: str) -> Graph:
    """All layers that have a scale, a bias or an implicit vector."""
    b = Builder()
    x = b.add("RepConv", b.add("Conv", IMAGE, 8, 3, 2), 8)
    x = b.add("C3TR", b.add("BottleneckCSP", x, 8), 8)
    y = b.add("Conv", x, 8, 3, 2)
    b.add(head, [x, y, x, y] if "Aux" in head else [x, y])
    return b.build(anchors=2, num_classes=3)


@pytest.mark.parametrize("head", ["Detect", "IDetect", "IAuxDetect", "AuxDetect"])
def test_no_gradient_is_a_sum_over_images_or_pixels_in_bfloat16(head: str) -> None:
    graph = graph_of(head)
    network, variables = Network(graph, jnp.bfloat16), abstract_variables(graph)
    example = example_images(graph)
    images = jax.ShapeDtypeStruct((2, *example.shape[1:]), example.dtype)

    def gradient(variables: Any, images: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            outputs: Any = network.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])[
                0
            ]
            total: jax.Array = sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(outputs))  # type: ignore[assignment]
            return total

        return jax.grad(loss)(variables["params"])

    text = jax.jit(gradient).trace(variables, images).lower(lowering_platforms=("tpu",)).as_text()
    assert "bf16" in text
    assert not [found[0] for found in SUM.finditer(text) if "0" in found[1].split(", ")]


def test_gradients_of_a_normalization_are_those_of_float32() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 8, 80, 80, 32)).astype(jnp.bfloat16)
    x, seen = draws.astype(np.float32)  # as bfloat16 has them

    def gradient(dtype: Any) -> Any:
        layer = BatchNorm(Form(dtype))
        variables = layer.init(jax.random.key(0), x, train=False)

        def loss(params: Any) -> jax.Array:
            y = layer.apply({**variables, "params": params}, x.astype(dtype), train=False)
            return (y.astype(jnp.float32) * seen).sum()  # type: ignore[union-attr]

        return jax.jit(jax.grad(loss))(variables["params"])

    narrow, wide = gradient(jnp.bfloat16), gradient(jnp.float32)
    for key in ("scale", "bias"):
        np.testing.assert_allclose(narrow[key], wide[key], rtol=1e-4, atol=1e-3)  # float32 sums of 51,200 terms

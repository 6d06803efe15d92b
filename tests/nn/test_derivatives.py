"""Derivatives through whole networks, of every mode, tuned for CPUs and as the definitions have them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE, Graph
from yolov7_jax.nn import cpu
from yolov7_jax.nn.network import Network, init

Loss = Callable[[Any, jax.Array], jax.Array]


def small() -> Graph:
    """All that is tuned: a stem by pairs, strided and 1×1 convolutions, pools of tiles and of windows."""
    b = Builder()
    x = b.add("Conv", IMAGE, 4, 3, 2)
    x = b.add("Conv", x, 6, 3, 2)
    x = b.add("MP", b.add("Conv", x, 6, 1))
    x = b.add("SP", b.add("Conv", x, 6, 3), 5)
    b.add("Detect", [x])
    return b.build(anchors=(((10, 13),),), num_classes=1)


@pytest.fixture(scope="module")
def case() -> tuple[Any, dict[str, Any], jax.Array]:
    """Losses by tuning, weights and images, all float64."""
    graph = small()
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), init(graph, jax.random.key(0)))
    images = np.random.default_rng(0).uniform(0, 1, (2, 16, 32, 3))

    def loss(network: Network) -> Loss:
        def of_params(params: Any, images: jax.Array) -> jax.Array:
            outputs: Any = network.apply({**variables, "params": params}, images)
            return jnp.square(outputs.lead).sum()

        return of_params

    return {on: loss(Network(graph, jnp.float64, cpu_tuning=on)) for on in (True, False)}, variables["params"], images


def largest_difference(a: Any, b: Any) -> float:
    """Over all leaves, relative to each leaf's largest where that is above 1."""

    def of_leaf(a: Any, b: Any) -> float:
        return float(np.abs(np.asarray(a) - np.asarray(b)).max() / max(1, np.abs(b).max()))

    return max(jax.tree.leaves(jax.tree.map(of_leaf, a, b)))


def direction(params: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)


def test_outputs_and_gradients_are_those_of_the_definitions(case: Any) -> None:
    losses, params, images = case
    with jax.enable_x64(True):
        tuned, plain = (jax.jit(jax.value_and_grad(losses[on], argnums=(0, 1)))(params, images) for on in (True, False))
    assert largest_difference(tuned, plain) < 1e-10


def test_forward_mode_agrees_with_finite_differences_and_the_definitions(case: Any) -> None:
    losses, params, images = case
    step = direction(params)

    def pushed(loss: Loss) -> float:
        return float(jax.jit(lambda p, t: jax.jvp(lambda p: loss(p, images), (p,), (t,))[1])(params, step))

    def moved(eps: float) -> Any:
        return jax.tree.map(lambda p, t: p + eps * t, params, step)

    with jax.enable_x64(True):
        tuned, plain = pushed(losses[True]), pushed(losses[False])
        value = jax.jit(lambda p: losses[True](p, images))
        slope = float(value(moved(1e-6)) - value(moved(-1e-6))) / 2e-6
    assert tuned == pytest.approx(plain, rel=1e-10)
    assert tuned == pytest.approx(slope, rel=1e-5)


def test_products_with_the_hessian_agree_in_both_orders_of_modes(case: Any) -> None:
    losses, params, images = case
    step = direction(params)

    def dot(a: Any, b: Any) -> Any:
        return sum(jax.tree.leaves(jax.tree.map(lambda a, b: (a * b).sum(), a, b)))

    with jax.enable_x64(True):

        def forward_over_reverse(loss: Loss) -> Any:
            return jax.jit(lambda p, t: jax.jvp(jax.grad(lambda p: loss(p, images)), (p,), (t,))[1])(params, step)

        def reverse_over_reverse(loss: Loss) -> Any:
            return jax.jit(jax.grad(lambda p: dot(jax.grad(lambda p: loss(p, images))(p), step)))(params)

        expected = forward_over_reverse(losses[False])
        assert largest_difference(forward_over_reverse(losses[True]), expected) < 1e-10
        assert largest_difference(reverse_over_reverse(losses[True]), expected) < 1e-10


@pytest.mark.parametrize("on", [True, False])
def test_gradients_of_each_example_are_those_of_it_alone(case: Any, on: bool) -> None:
    losses, params, images = case

    def single(params: Any, image: jax.Array) -> Any:
        return jax.grad(losses[on])(params, image[None])

    with jax.enable_x64(True):
        together = jax.jit(jax.vmap(single, (None, 0)))(params, images)
        alone = [jax.jit(single)(params, image) for image in images]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    assert largest_difference(together, stacked) < 1e-10


def test_networks_keep_the_tuning_that_they_were_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small()
    images = np.zeros((1, 16, 32, 3), np.float32)

    def is_tuned(network: Network) -> bool:
        return "convolution[" in str(jax.make_jaxpr(network.apply)(init(graph, jax.random.key(0)), images))

    with cpu.tuned(False):
        plain = Network(graph)
    assert not is_tuned(plain)
    assert is_tuned(Network(graph))
    assert plain != Network(graph)
    with cpu.tuned(False):
        assert is_tuned(dataclasses.replace(plain, cpu_tuning=True))
    monkeypatch.setenv("YOLOV7_JAX_CPU_TUNING", "off")
    assert not Network(graph).cpu_tuning
    monkeypatch.setenv("YOLOV7_JAX_CPU_TUNING", "no")
    with pytest.raises(InputError, match="must be on or off, got 'no'"):
        Network(graph)

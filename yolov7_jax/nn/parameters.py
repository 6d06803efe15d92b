"""Parameters and running statistics of layers, and their first values, drawn without a program for every shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core.scope import LazyRng
from jax.typing import DTypeLike

Initializer = Callable[[Any, tuple[int, ...], DTypeLike], jax.Array]
Values = dict[tuple[str, ...], jax.Array]

_noted: ContextVar[Values | None] = ContextVar("first values", default=None)


@contextmanager
def first_values() -> Iterator[Values]:
    """Notes what `parameter` and `statistic` begin with, by collection and path, where a network is traced for shapes.

    In the trace itself they are zeros. Values are those that Flax would draw; only of a key that is no tracer.
    """
    values: Values = {}
    token = _noted.set(values)
    try:
        yield values
    finally:
        _noted.reset(token)


def parameter(layer: nn.Module, name: str, initializer: Initializer, shape: tuple[int, ...]) -> jax.Array:
    """The float32 parameter of a layer, as `layer.param` gives it, but quicker where it is there already.

    To check its shape Flax would trace the initializer each time: a quarter of what tracing a network takes.
    """
    if layer.has_variable("params", name):
        value: jax.Array = layer.get_variable("params", name)
        if value.shape == shape:
            return value
    elif (values := _noted.get()) is not None:
        _note(values, layer, name, initializer, shape)
        initializer = ZEROS
    return layer.param(name, initializer, shape, jnp.float32)


def statistic(layer: nn.Module, name: str, first: float, shape: tuple[int, ...]) -> nn.Variable[jax.Array]:
    """The float32 running statistic of a layer, which has one value at first."""
    if (values := _noted.get()) is not None:
        with jax.ensure_compile_time_eval():
            values["batch_stats", *layer.path, name] = Constant(first)(None, shape, jnp.float32)
    return layer.variable("batch_stats", name, jnp.full, shape, first, jnp.float32)


def _note(values: Values, layer: nn.Module, name: str, initializer: Initializer, shape: tuple[int, ...]) -> None:
    """Draws the value by the key that Flax would give it: the next one of the layer."""
    assert layer.scope is not None
    rng = LazyRng.create(layer.scope.rngs["params"], layer.scope.rng_counters["params"] + 1)
    if not isinstance(rng.rng, jax.core.Tracer):
        with jax.ensure_compile_time_eval():
            key = None if isinstance(initializer, Constant) else rng.as_jax_rng()
            values["params", *layer.path, name] = initializer(key, shape, jnp.float32)


@dataclass(frozen=True)
class Constant:
    """An initializer that needs no key, and no program."""

    value: float

    def __call__(self, _: jax.Array | None, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        """The value, everywhere."""
        return jnp.asarray(np.full(shape, self.value, dtype))


ZEROS, ONES = Constant(0.0), Constant(1.0)


def uniform_by_fan_in(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """U(-1/√fan_in, 1/√fan_in), PyTorch's default for kernels; fan_in is the product of all axes but the last."""
    bound = 1 / sqrt(prod(shape[:-1]))
    return drawn(jax.random.uniform, key, shape, dtype, -bound, bound)


_LEAST_ROOM = 4096


def drawn(draw: Callable[..., Any], key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike, *numbers: float) -> Any:
    """`draw(key, shape, dtype, *numbers)`, of jax.random, whose numbers do not depend on how many there are.

    Outside of a trace by few programs, each for all sizes up to a power of 2.
    """
    if isinstance(key, jax.core.Tracer):
        return draw(key, shape, dtype, *numbers)
    size = prod(shape)
    room = _LEAST_ROOM
    while room < size:
        room *= 2
    many = _flat_draw(jax.default_backend())(draw, room, dtype, key, *numbers)
    return jnp.asarray(np.asarray(many)[:size].reshape(shape))


@cache
def _flat_draw(platform: str) -> Callable[..., jax.Array]:
    """On CPUs unoptimized: such a program runs a few times, and making it takes longer."""

    def flat(draw: Callable[..., jax.Array], room: int, dtype: DTypeLike, key: jax.Array, *numbers: Any) -> jax.Array:
        return draw(key, (room,), dtype, *numbers)

    options = {"xla_backend_optimization_level": 0} if platform == "cpu" else None
    return jax.jit(flat, static_argnums=(0, 1, 2), compiler_options=options)

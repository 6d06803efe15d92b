"""Picks from arrays, with static shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def valid_first(valid: jax.Array, block: int) -> jax.Array:
    """The places int32 of what is valid [n], in order, then all others, then n itself, until blocks are whole.

    One sort of numbers that are all different, which is quick on every device.
    """
    n = len(valid)
    order = lax.sort(jnp.where(valid, 0, n) + jnp.arange(n, dtype=jnp.int32), is_stable=False)
    return jnp.pad(jnp.where(order < n, order, order - n), (0, -n % block), constant_values=n)

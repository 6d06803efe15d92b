"""Every candidate answers for its box (YOLOv5)."""

from __future__ import annotations

import jax.numpy as jnp

from yolov7_jax.types import Assignment, Candidates


def assign(candidates: Candidates) -> Assignment:
    """The assignment of one image without a cost: all its candidates [M, K] are positive, so P is M·K."""
    M, K = candidates.index.shape
    truth = jnp.arange(M * K, dtype=jnp.int32) // K
    return Assignment(jnp.reshape(candidates.index, -1), truth, jnp.reshape(candidates.valid, -1))

"""Every candidate is assigned to its box (YOLOv5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from yolov7_jax.config import LossConfig
from yolov7_jax.contracts import Assigner
from yolov7_jax.registry import register_assigner
from yolov7_jax.types import Assignment, Candidates, Grid


def simple(
    _raw: jax.Array, _boxes: jax.Array, _ids: jax.Array, _valid: jax.Array, candidates: Candidates, _grid: Grid
) -> Assignment:
    """An `Assigner` without a cost: all candidates [M, K] are positives, so P is M·K."""
    M, K = candidates.index.shape
    truth = jnp.arange(M * K, dtype=jnp.int32) // K
    return Assignment(jnp.reshape(candidates.index, -1), truth, jnp.reshape(candidates.valid, -1))


@register_assigner("simple")
def _simple(_: LossConfig) -> Assigner:
    return simple

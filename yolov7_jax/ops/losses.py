"""Losses of single logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp

FOCAL_ALPHA = 0.25
"""weight of the positive class in the focal loss (arXiv:1708.02002)"""


def binary_cross_entropy(
    logits: jax.Array, targets: jax.Array, *, pos_weight: float = 1.0, focal_gamma: float = 0.0
) -> jax.Array:
    """Cross-entropy of sigmoid(logits) against targets in [0, 1], elementwise; both float of one shape.

    pos_weight multiplies what the target's own share costs. With focal_gamma over 0 it is the focal loss
    (arXiv:1708.02002) for soft targets: times α_t · (1 - p_t)^gamma with x_t = t · x + (1 - t) · (1 - x), α = 0.25.
    """
    rest = jnp.log1p(jnp.exp(jnp.minimum(logits, -logits)))  # softplus(±x) is this and max(±x, 0)
    loss = (1 - targets) * (rest + jnp.maximum(logits, 0)) + targets * pos_weight * (rest + jnp.maximum(-logits, 0))
    if focal_gamma == 0:
        return loss
    missing = targets * jax.nn.sigmoid(-logits) + (1 - targets) * jax.nn.sigmoid(logits)
    missing = jnp.maximum(missing, jnp.finfo(missing.dtype).tiny)  # a power below 1 has no finite slope at 0
    alpha = targets * FOCAL_ALPHA + (1 - targets) * (1 - FOCAL_ALPHA)
    return loss * alpha * missing**focal_gamma

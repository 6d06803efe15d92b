"""All that changes in a training run, as arrays: what is checkpointed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from yolov7_jax.config import Config
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import init
from yolov7_jax.training.loss import first_balance
from yolov7_jax.training.mesh import replicated
from yolov7_jax.training.optimizer import Rates, check_freeze, full_accumulation, optimizer, parameter_labels
from yolov7_jax.types import Array


class TrainState(NamedTuple):
    """What a step takes and gives.

    step: int32, batches seen. params, batch_stats: the network's. ema: {"params", "batch_stats"}, their moving
    averages: what is evaluated and published. opt_state: of the optimizer. gradients: summed since the last update,
    like params; None where every batch is an update. updates: int32, of the weights. nonfinite: int32, batches whose
    loss or gradient was not finite; they changed nothing. nonfinite_in_row: int32, how many of them came last. balance:
    float32 [L], weights of the levels' objectness; None where they stay as they begin.
    """

    step: Array
    params: Any
    batch_stats: Any
    ema: Any
    opt_state: Any
    gradients: Any
    updates: Array
    nonfinite: Array
    nonfinite_in_row: Array
    balance: Array | None = None


def init_state(graph: Graph, config: Config, mesh: Mesh, *, variables: Mapping[str, Any] | None = None) -> TrainState:
    """The state at the start of a run, on all devices of a mesh.

    variables: {"params", "batch_stats"} to start from; else fresh weights from train.seed.

    Raises:
        InputError: optim.freeze is wrong, or the network is not in its training form.
    """

    start = init(graph, jax.random.key(config.train.seed)) if variables is None else variables
    check_freeze(config.optim.freeze, start)
    labels = parameter_labels(start["params"], freeze=config.optim.freeze)
    batch_size = config.train.batch_size
    transform = optimizer(config.optim, Rates(0.0, 0.0, 0.0, 0.0), labels, batch_size=batch_size)
    accumulates = full_accumulation(config.optim, batch_size) > 1

    def make(start: Mapping[str, Any]) -> TrainState:
        params, batch_stats = _copy(start["params"]), _copy(start["batch_stats"])
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            ema={"params": _copy(params), "batch_stats": _copy(batch_stats)},  # its own memory: a step donates all
            opt_state=transform.init(params),
            gradients=jax.tree.map(jnp.zeros_like, params) if accumulates else None,
            updates=jnp.zeros((), jnp.int32),
            nonfinite=jnp.zeros((), jnp.int32),
            nonfinite_in_row=jnp.zeros((), jnp.int32),
            balance=jnp.asarray(first_balance(len(graph.strides))) if config.loss.autobalance else None,
        )

    # Under jit and from host memory: arrays put from one device onto a mesh over several hosts would be broken.
    return jax.jit(make, out_shardings=replicated(mesh))(jax.tree.map(np.asarray, dict(start)))


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), tree)

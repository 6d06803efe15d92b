"""All that changes in a training run, as arrays: what is checkpointed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from yolov7_jax.contracts import LossFn, OptimizerFactory
from yolov7_jax.nn.network import Network, abstract_variables
from yolov7_jax.ops.by_device import DATA
from yolov7_jax.training.mesh import data_mesh, replicated
from yolov7_jax.training.optimizer import Schedule, check_freeze, parameter_labels
from yolov7_jax.types import Rates


class TrainState(NamedTuple):
    """What a step takes and gives.

    step: int32, batches seen. params, batch_stats: the network's. ema: {"params", "batch_stats"}, their moving
    averages: what is evaluated and published. opt_state: of the optimizer. gradients: summed since the last update,
    like params; None where every batch is an update. updates: int32, of the weights. nonfinite: int32, batches whose
    loss or gradient was not finite; they changed nothing. nonfinite_in_row: int32, how many of them came last.
    loss_state: what the loss carries on; None where it has none.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    ema: Any
    opt_state: Any
    gradients: Any
    updates: jax.Array
    nonfinite: jax.Array
    nonfinite_in_row: jax.Array
    loss_state: Any = None


def init_state(
    network: Network,
    loss: LossFn,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    variables: Mapping[str, Any],
    *,
    mesh: Mesh | None = None,
    shard: bool = False,
) -> TrainState:
    """The state at the start of a run, on all devices of a mesh (by default all there are).

    variables: {"params", "batch_stats"} to start from, such as `init` gives. shard: see `state_shardings`.

    Raises:
        InputError: network.frozen is wrong, or the network is not in its training form.
    """
    check_freeze(network.frozen, variables)
    make = _initial(network, loss, optimizer, schedule)
    start = jax.tree.map(np.asarray, dict(variables))
    # Under jit and from host memory: arrays put from one device onto a mesh over several hosts would be broken.
    shardings = state_shardings(jax.eval_shape(make, start), mesh or data_mesh(), shard=shard)
    made: TrainState = jax.jit(make, out_shardings=shardings)(start)
    return made


def abstract_state(network: Network, loss: LossFn, optimizer: OptimizerFactory, schedule: Schedule) -> TrainState:
    """Shapes and dtypes of a run's state, without computing any.

    Raises:
        InputError: the network is not in its training form.
    """
    state: TrainState = jax.eval_shape(
        _initial(network, loss, optimizer, schedule), dict(abstract_variables(network.graph))
    )
    return state


def state_shardings(state: TrainState, mesh: Mesh, *, shard: bool = False) -> TrainState:
    """How a state lies on the devices of a mesh: a tree like it, which may be abstract.

    All of it is on each. With `shard`, each device has its part of the moving averages and of what the optimizer
    carries (ZeRO, arXiv 1910.02054, section 5.1): of each array along the first axis that divides by their number.
    """
    whole = replicated(mesh)

    def part(leaf: Any) -> NamedSharding:
        axis = next((axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0), None)
        return whole if axis is None else NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))

    shardings: TrainState = jax.tree.map(lambda _: whole, state)
    if not shard:
        return shardings
    return shardings._replace(ema=jax.tree.map(part, state.ema), opt_state=jax.tree.map(part, state.opt_state))


def _initial(
    network: Network, loss: LossFn, optimizer: OptimizerFactory, schedule: Schedule
) -> Callable[[Mapping[str, Any]], TrainState]:
    """(variables) → the state at the start."""
    begin = getattr(loss, "initial_state", None)

    def make(start: Mapping[str, Any]) -> TrainState:
        params, batch_stats = _copy(start["params"]), _copy(start["batch_stats"])
        labels = parameter_labels(params, freeze=network.frozen)
        transform = optimizer(Rates(0.0, 0.0, 0.0, 0.0), labels, schedule.update_config)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            ema={"params": _copy(params), "batch_stats": _copy(batch_stats)},  # its own memory: a step donates all
            opt_state=transform.init(params),
            gradients=jax.tree.map(jnp.zeros_like, params) if schedule.full_accumulation > 1 else None,
            updates=jnp.zeros((), jnp.int32),
            nonfinite=jnp.zeros((), jnp.int32),
            nonfinite_in_row=jnp.zeros((), jnp.int32),
            loss_state=None if begin is None else jax.tree.map(jnp.asarray, begin()),
        )

    return make


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), tree)

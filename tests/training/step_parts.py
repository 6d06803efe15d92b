"""The parts of a step, from a configuration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from yolov7_jax.config import Config
from yolov7_jax.experiment.setup import loss_of, step_options
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import Network, init
from yolov7_jax.training.optimizer import Schedule, make_optimizer
from yolov7_jax.training.state import TrainState, init_state
from yolov7_jax.training.step import make_step


def step_parts(graph: Graph, config: Config, *, steps_per_epoch: int = 5) -> dict[str, Any]:
    return {
        "network": Network(graph, jnp.dtype(config.train.dtype), config.optim.freeze),
        "loss": loss_of(config, graph),
        "optimizer": make_optimizer(config.optim),
        "schedule": Schedule(config.optim, steps_per_epoch, config.train.epochs, config.train.batch_size),
    }


def step_of(graph: Graph, config: Config, *, mesh: Mesh, steps_per_epoch: int = 5) -> Any:
    parts = step_parts(graph, config, steps_per_epoch=steps_per_epoch)
    return make_step(**parts, mesh=mesh, **step_options(config.train)._asdict())


def state_of(graph: Graph, config: Config, mesh: Mesh, *, variables: Any = None) -> TrainState:
    start = init(graph, jax.random.key(config.train.seed)) if variables is None else variables
    return init_state(**step_parts(graph, config), variables=start, mesh=mesh)

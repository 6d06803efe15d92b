"""What a training run works with, put together before it begins: loader, step, plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from yolov7_jax.compilation_cache import compiling
from yolov7_jax.config import Config, TrainConfig
from yolov7_jax.contracts import Assigner, LossFn, LossSetup, OptimizerFactory, Transform
from yolov7_jax.data.loader import Loader
from yolov7_jax.data.transforms import named_transforms
from yolov7_jax.experiment.preparation import Data, GivenData, training_pipeline
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import Network
from yolov7_jax.registry import ASSIGNERS, LOSSES, OPTIMIZERS, look_up
from yolov7_jax.training.callbacks import Callback
from yolov7_jax.training.hosts import is_first, place
from yolov7_jax.training.loggers import LOGGERS
from yolov7_jax.training.loop import Plan
from yolov7_jax.training.loss import make_loss
from yolov7_jax.training.memory import MeasuredStep
from yolov7_jax.training.mesh import data_mesh, shard_batch
from yolov7_jax.training.optimizer import Schedule, make_optimizer
from yolov7_jax.training.state import TrainState
from yolov7_jax.training.step import Remat, make_step
from yolov7_jax.types import Batch

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Mapping[str, jax.Array]]]


class Given(TypedDict, total=False):
    """What a user gives to a run in place of what its configuration names; `resume` has to be given it again.

    data: labeled images to train on and, or None, to evaluate on, in place of data.path. assigner: in place of
    loss.assigner. loss: in place of loss.name. optimizer: in place of optim.name. transforms: in place of
    augment.transforms.
    """

    data: GivenData | None
    assigner: Assigner | None
    loss: LossFn | None
    optimizer: OptimizerFactory | None
    transforms: Sequence[Transform] | None


def kinds_of(given: Given) -> list[str]:
    """Which of them there are, in the order of `Given`.

    Raises:
        TypeError: something else is given.
    """
    kinds = list(Given.__annotations__)
    if unknown := sorted(given.keys() - kinds):
        raise TypeError(f"a run cannot be given {unknown[0]}; expected {', '.join(kinds)}")
    return [kind for kind in kinds if given.get(kind) is not None]


def check_names(config: Config) -> None:
    """Refuses names of parts that nobody registered.

    Raises:
        InputError: lists the known ones, and the nearest.
    """
    look_up(LOSSES, config.loss.name, where="loss.name")
    look_up(ASSIGNERS, config.loss.assigner, where="loss.assigner")
    look_up(OPTIMIZERS, config.optim.name, where="optim.name")
    named_transforms(config.augment.transforms)
    for name in config.train.loggers:
        look_up(LOGGERS, name, where="train.loggers")


def make_loggers(names: Sequence[str]) -> list[Callback]:
    """The loggers of these names, in the first process; in others there are none.

    Raises:
        InstallationError: the library of one is not installed.
    """
    return [look_up(LOGGERS, name, where="train.loggers")() for name in names] if is_first() else []


def loss_of(config: Config, graph: Graph, *, assigner: Assigner | None = None) -> LossFn:
    """The loss of a configuration for a network."""
    setup = LossSetup(graph.strides, graph.num_classes, graph.has_aux, config.train.size, assigner)
    return make_loss(config.loss, setup)


class Setup(NamedTuple):
    """What a run works with that leaves no trace on disk."""

    mesh: Mesh
    loader: Loader
    plan: Plan
    parts: StepParts
    step: MeasuredStep
    largest_shape: tuple[int, int]


class StepParts(NamedTuple):
    """What `make_step` takes."""

    network: Network
    loss: LossFn
    optimizer: OptimizerFactory
    schedule: Schedule


def set_up(config: Config, graph: Graph, data: Data, given: Given) -> Setup:
    """Puts loader and step together, and says whatever settings cannot be used."""
    graph.check_side(config.train.size)
    mesh = data_mesh()
    pipeline = training_pipeline(config, graph, data.train, transforms=given.get("transforms"))
    loader = Loader(pipeline, workers=config.data.workers, processes=config.data.processes, host=place())
    plan = Plan(
        pipeline.steps,
        config.train.epochs,
        config.train.val_every_epochs if data.val is not None else 0,
        config.train.checkpoint_every_steps,
        config.train.max_nonfinite,
        config.train.patience,
        config.train.save_period,
        renews_batches=config.data.sampling == "by_ap",
    )
    parts = step_parts(config, graph, pipeline.steps, given)
    return Setup(
        mesh,
        loader,
        plan,
        parts,
        _step(parts, mesh, config.train),
        pipeline.largest_shape,
    )


def step_parts(config: Config, graph: Graph, steps_per_epoch: int, given: Given) -> StepParts:
    """The parts of a configuration's step, but for those that are given."""
    return StepParts(
        Network(graph, jnp.dtype(config.train.dtype), config.optim.freeze),
        given.get("loss") or loss_of(config, graph, assigner=given.get("assigner")),
        given.get("optimizer") or make_optimizer(config.optim),
        Schedule(config.optim, steps_per_epoch, config.train.epochs, config.train.batch_size),
    )


def _step(parts: StepParts, mesh: Mesh, settings: TrainConfig) -> MeasuredStep:
    """The compiled step. The last one is kept: runs one after another that differ in the seed alone compile it once."""
    try:
        return _kept_step(parts, mesh, step_options(settings))
    except TypeError:  # a part of a user's that has no hash
        return _new_step(parts, mesh, step_options(settings))


class StepOptions(NamedTuple):
    """What else `make_step` takes."""

    remat: Remat
    clip: float
    deterministic: bool
    shard: bool


def step_options(settings: TrainConfig) -> StepOptions:
    """The options of a configuration's step."""
    return StepOptions(settings.remat, settings.clip_gradient, settings.deterministic, settings.shard_state)


def _new_step(parts: StepParts, mesh: Mesh, options: StepOptions) -> MeasuredStep:
    return MeasuredStep(make_step(*parts, mesh=mesh, **options._asdict()))


_kept_step = lru_cache(maxsize=1)(_new_step)


def reporting_step(setup: Setup, callbacks: Callback) -> TrainStep:
    """The step on batches in host memory; reports when it is compiled, and its memory before it runs at all."""
    reported = False

    def report_compilation(batch: Batch) -> None:
        if not setup.step.is_compiled_for(batch):
            height, width = batch.image.shape[1:3]
            callbacks.log(compiling("the training step", (height, width)))

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, Mapping[str, jax.Array]]:
        nonlocal reported
        batch = shard_batch(batch, setup.mesh)
        if not reported:
            reported = True
            largest = _with_shape(batch, setup.largest_shape)
            report_compilation(largest)
            memory = setup.step.prepare(state, largest)
            if memory is not None:
                callbacks.log(str(memory))
        report_compilation(batch)
        return setup.step(state, batch)

    return run


def _with_shape(batch: Batch, shape: tuple[int, int]) -> Batch:
    """A batch with images of another (h, w); they are abstract."""
    images: Any = batch.image
    abstract: Any = jax.ShapeDtypeStruct((len(images), *shape, images.shape[3]), images.dtype, sharding=images.sharding)
    return batch._replace(image=abstract)

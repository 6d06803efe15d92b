"""A training run: put together from a configuration, begun or gone on with, in a folder that describes itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from yolov7_jax.config import Config, DataConfig, yaml_text
from yolov7_jax.config_file import check_config, config_dict, read_config
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.loader import Loader
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.artifacts import Publisher, draw_curves, evaluator, shown_batches
from yolov7_jax.experiment.inference import ProgressBar, new_folder, no_progress
from yolov7_jax.experiment.preparation import Data, open_data, starting_weights, training_pipeline
from yolov7_jax.graph.spec import Graph
from yolov7_jax.source import SourceMixin as Source
from yolov7_jax.training.checkpoint import Checkpoints, RunStatus
from yolov7_jax.training.log import Log, Row, check_tensorboard
from yolov7_jax.training.loop import Parts, Plan, Watcher
from yolov7_jax.training.loop import train as run_loop
from yolov7_jax.training.memory import MeasuredStep
from yolov7_jax.training.mesh import data_mesh, shard_batch
from yolov7_jax.training.state import TrainState, init_state
from yolov7_jax.training.step import make_step
from yolov7_jax.training.stop import StopSignals
from yolov7_jax.types import Batch

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Mapping[str, jax.Array]]]

CONFIG, NETWORK, CHECKPOINTS = "config.yaml", "network.json", "checkpoints"
"""What a run folder holds beside its log, weights and pictures."""


class Silent:
    """A watcher that says nothing."""

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Says nothing."""

    def evaluated(self, row: Row, *, best: bool) -> None:
        """Says nothing."""

    def noted(self, text: str) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class TrainingRun:
    """What came of a run. finished: all epochs are done; else signal says what stopped it.

    folder: of the run. step: iterations done. best_score, best_step: of the best evaluation.
    """

    folder: Path
    step: int
    best_score: float | None
    best_step: int | None
    finished: bool
    signal: int | None


def train(
    config: Config, folder: Path | str, *, watcher: Watcher | None = None, progress: ProgressBar[Any] = no_progress
) -> TrainingRun:
    """Trains a network as a configuration says, in a new folder.

    The folder gets config.yaml, network.json, metrics.jsonl, checkpoints, weights.safetensors (averaged weights at the
    last checkpoint), best.safetensors (those of the best evaluation) and pictures. SIGTERM and Ctrl-C save and stop.

    Raises:
        InputError: a setting, the data or the weights to start from cannot be used, or too many losses in a row were
            not finite.
    """
    check_config(config, where="config")
    watcher = watcher or Silent()
    data = open_data(config, watcher, progress)
    weights, report = starting_weights(config, data.train.names)
    watcher.noted(report)
    machine = _assemble(config, weights.graph, data)
    folder = new_folder(Path(folder))
    network = {"graph": weights.graph.to_json(), "names": weights.names, "images": len(data.train)}
    _write(folder / NETWORK, json.dumps(network))
    _write(folder / CONFIG, yaml_text(config_dict(with_whole_paths(config))))
    return _run(config, weights, data, machine, folder, watcher, progress)


def resume(
    folder: Path | str, *, watcher: Watcher | None = None, progress: ProgressBar[Any] = no_progress
) -> TrainingRun:
    """Goes on with a run from its last checkpoint, to the same result as if it had never been interrupted.

    Raises:
        InputError: the folder is not that of a run, or its data or checkpoint cannot be used.
    """
    folder, watcher = Path(folder), watcher or Silent()
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: has no {CONFIG}; expected the folder of a training run")
    config = read_config(folder / CONFIG)
    data = open_data(config, watcher, progress)
    checkpoints = folder / CHECKPOINTS
    if checkpoints.is_dir() and any(step.name.isdecimal() for step in checkpoints.iterdir()):
        weights = _stored_network(folder / NETWORK, data.train)
    else:  # it was interrupted before its first checkpoint
        weights, _ = starting_weights(config, data.train.names)
    return _run(config, weights, data, _assemble(config, weights.graph, data), folder, watcher, progress)


def with_whole_paths(config: Config) -> Config:
    """The configuration with whole paths of files and folders, so that a run can be gone on with from anywhere."""

    def whole(section: Any, *keys: str) -> Any:
        texts = {key: getattr(section, key) for key in keys}
        there = {key: str(Path(text).absolute()) for key, text in texts.items() if text and Path(text).exists()}
        return replace(section, **there)

    data = whole(config.data, "path", "val_path", "images", "val_images")
    return replace(config, model=whole(config.model, "name", "weights"), data=data)


def _stored_network(file: Path, source: Source) -> Weights:
    """The network of a run that is gone on with, once its data are seen to be those that it began with."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        weights, images = Weights(Graph.from_json(content["graph"]), {}, tuple(content["names"])), content["images"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); the run cannot go on without its network") from error
    if (images, weights.names) != (len(source), source.names):
        raise InputError(
            f"{file.parent}: the run began with {images} training images and the classes {', '.join(weights.names)}; "
            f"now there are {len(source)} and {', '.join(source.names)}: bring back the data, or begin a new run from "
            f"its weights (model.weights={file.parent})"
        )
    return weights


class _Machine(NamedTuple):
    """What a run works with that leaves no trace on disk."""

    mesh: Mesh
    loader: Loader
    plan: Plan
    step: MeasuredStep
    largest_shape: tuple[int, int]


def _assemble(config: Config, graph: Graph, data: Data) -> _Machine:
    """Puts loader and step together; whatever settings cannot be used is said here."""
    graph.check_side(config.train.size)
    if config.train.tensorboard:
        check_tensorboard()
    mesh = data_mesh()
    pipeline = training_pipeline(config, graph, data.train)
    loader = Loader(
        pipeline,
        workers=config.data.workers,
        processes=config.data.processes,
    )
    plan = Plan(
        pipeline.steps,
        config.train.epochs,
        config.train.val_every_epochs if data.val is not None else 0,
        config.train.checkpoint_every_steps,
        config.train.max_nonfinite,
    )
    step = _step(graph, _of_step(config), pipeline.steps, mesh)
    return _Machine(mesh, loader, plan, step, pipeline.largest_shape)


@lru_cache(maxsize=1)
def _step(graph: Graph, config: Config, steps_per_epoch: int, mesh: Mesh) -> MeasuredStep:
    """The compiled step. The last one is kept: runs one after another that differ in the seed alone compile it once."""
    return MeasuredStep(make_step(graph, config, steps_per_epoch=steps_per_epoch, mesh=mesh))


def _of_step(config: Config) -> Config:
    """The settings that a step is made of, the others at their defaults."""
    data = DataConfig(max_boxes=config.data.max_boxes)
    return Config(data=data, loss=config.loss, optim=config.optim, train=replace(config.train, seed=0))


def _telling_memory(machine: _Machine, watcher: Watcher) -> TrainStep:
    """The step on batches in host memory; tells of its memory with the largest images before it runs at all."""
    told = False

    def run(state: TrainState, batch: Batch) -> tuple[TrainState, Mapping[str, jax.Array]]:
        nonlocal told
        batch = shard_batch(batch, machine.mesh)
        if not told:
            told = True
            memory = machine.step.prepare(state, _with_shape(batch, machine.largest_shape))
            if memory is not None:
                watcher.noted(str(memory))
        return machine.step(state, batch)

    return run


def _with_shape(batch: Batch, shape: tuple[int, int]) -> Batch:
    """A batch with images of another (h, w); they are abstract."""
    images = batch.image
    return batch._replace(
        image=jax.ShapeDtypeStruct((len(images), *shape, images.shape[3]), images.dtype, sharding=images.sharding)
    )


def _run(
    config: Config,
    weights: Weights,
    data: Data,
    machine: _Machine,
    folder: Path,
    watcher: Watcher,
    progress: ProgressBar[Any],
) -> TrainingRun:
    state = init_state(weights.graph, config, machine.mesh, variables=weights.variables or None)
    log = Log(folder, tensorboard=config.train.tensorboard)
    with StopSignals() as stop, Checkpoints(folder / CHECKPOINTS) as checkpoints:
        restored = checkpoints.restore(state)
        state, status = restored or (state, RunStatus())
        log.rewind(status.step, evaluated=status.evaluated)
        parts = Parts(
            plan=machine.plan,
            train_step=_telling_memory(machine, watcher),
            batches=partial(shown_batches, machine.loader, folder, weights.names, watcher),
            evaluate=evaluator(config, weights, data.val, folder, stop, progress),
            publish=Publisher(config, weights, data.train.category_ids, folder).write,
            checkpoints=checkpoints,
            log=log,
            stop=stop,
            watcher=watcher,
            folder=folder,
        )
        try:
            state, status = run_loop(state, status, parts)
        finally:
            log.close()
            draw_curves(folder)
    finished = status.step == machine.plan.steps
    return TrainingRun(folder, status.step, status.best_score, status.best_step, finished, stop.received)


def _write(file: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)

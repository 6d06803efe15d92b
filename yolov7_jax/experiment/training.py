"""A training run: put together from a configuration, begun or gone on with, in a folder that describes itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from yolov7_jax.config import Config, yaml_text
from yolov7_jax.config_file import check_config, config_dict, read_config
from yolov7_jax.convert.load import load, resolve
from yolov7_jax.convert.transfer import transfer
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.data.audit import audit, readable
from yolov7_jax.data.loader import Loader
from yolov7_jax.data.pipeline import Pipeline
from yolov7_jax.data.sources import Source, open_source
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.inference import Track, new_folder, untracked
from yolov7_jax.experiment.traces import Publisher, draw_curves, evaluator, shown_batches
from yolov7_jax.graph.rewrite import with_width
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn.network import init
from yolov7_jax.train.checkpoint import Checkpoints, Progress
from yolov7_jax.train.log import Log, Row, check_tensorboard
from yolov7_jax.train.loop import Parts, Plan, Watcher
from yolov7_jax.train.loop import train as run_loop
from yolov7_jax.train.mesh import data_mesh, shard_batch
from yolov7_jax.train.state import TrainState, init_state
from yolov7_jax.train.step import make_step
from yolov7_jax.train.stop import StopSignals
from yolov7_jax.types import Batch

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
    config: Config, folder: Path | str, *, watcher: Watcher | None = None, track: Track[Any] = untracked
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
    data = _open(config, watcher, track)
    weights, report = _start(config, data.train.names)
    watcher.noted(report)
    machine = _assemble(config, weights.graph, data)
    folder = new_folder(Path(folder))
    network = {"graph": weights.graph.to_json(), "names": weights.names, "images": len(data.train)}
    _write(folder / NETWORK, json.dumps(network))
    _write(folder / CONFIG, yaml_text(config_dict(_with_whole_paths(config))))
    return _run(config, weights, data, machine, folder, watcher, track)


def resume(folder: Path | str, *, watcher: Watcher | None = None, track: Track[Any] = untracked) -> TrainingRun:
    """Goes on with a run from its last checkpoint, to the same result as if it had never been interrupted.

    Raises:
        InputError: the folder is not that of a run, or its data or checkpoint cannot be used.
    """
    folder, watcher = Path(folder), watcher or Silent()
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: has no {CONFIG}; expected the folder of a training run")
    config = read_config(folder / CONFIG)
    data = _open(config, watcher, track)
    checkpoints = folder / CHECKPOINTS
    if checkpoints.is_dir() and any(step.name.isdecimal() for step in checkpoints.iterdir()):
        weights = _stored_network(folder / NETWORK, data.train)
    else:  # it was interrupted before its first checkpoint
        weights, _ = _start(config, data.train.names)
    return _run(config, weights, data, _assemble(config, weights.graph, data), folder, watcher, track)


class _Data(NamedTuple):
    train: Source
    val: Source | None


def _open(config: Config, watcher: Watcher, track: Track[Any]) -> _Data:
    """The training and validation images, looked over; tells of everything that is wrong."""
    settings = config.data
    if not settings.path:
        raise InputError(
            "data.path is not set; name a data YAML, a folder in VOC layout or a COCO JSON: data.path=FILE"
        )
    train = _look_over(settings.path, settings.train_split, settings.images, config, watcher, track)
    if not config.train.val_every:
        return _Data(train, None)
    path, images = (settings.val_path, settings.val_images) if settings.val_path else (settings.path, settings.images)
    val = _look_over(path, settings.val_split, images, config, watcher, track)
    if val.names != train.names:
        raise InputError(
            f"{path}: its classes ({', '.join(val.names[:8])} …) are not those of the training images "
            f"({', '.join(train.names[:8])} …); make them agree"
        )
    return _Data(train, val)


def _look_over(path: str, split: str, images: str, config: Config, watcher: Watcher, track: Track[Any]) -> Source:
    source = open_source(path, split, image_folder=Path(images) if images else None, faults="skip")
    found = audit(source, track=track)
    for line in found.lines():
        watcher.noted(f"{split}: {line}")
    if config.data.faults == "stop":
        found.stop_at_faults()
    return readable(source, found)


def _start(config: Config, names: tuple[str, ...]) -> tuple[Weights, str]:
    """The network with what it knows at the beginning, and how it came to it."""
    key = jax.random.key(config.train.seed)
    if config.model.weights:
        weights, report = transfer(load(config.model.weights), names, key)
        return weights, f"{config.model.weights}: {report}"
    graph = with_width(resolve(config.model.name, num_classes=len(names)), config.model.width)
    return Weights(graph, jax.tree.map(np.asarray, init(graph, key)), names), f"{config.model.name}: fresh weights"


def _with_whole_paths(config: Config) -> Config:
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
    step: Callable[[TrainState, Batch], tuple[TrainState, Mapping[str, jax.Array]]]


def _assemble(config: Config, graph: Graph, data: _Data) -> _Machine:
    """Puts loader and step together; whatever settings cannot be used is said here."""
    graph.check_side(config.train.size)
    if config.train.tensorboard:
        check_tensorboard()
    mesh = data_mesh()
    pipeline = _pipeline(config, graph, data.train)
    loader = Loader(
        pipeline,
        workers=config.data.workers,
        processes=config.data.processes,
    )
    plan = Plan(
        pipeline.steps,
        config.train.epochs,
        config.train.val_every if data.val is not None else 0,
        config.train.checkpoint_every,
        config.train.max_nonfinite,
    )
    return _Machine(mesh, loader, plan, make_step(graph, config, steps_per_epoch=pipeline.steps, mesh=mesh))


def _run(
    config: Config,
    weights: Weights,
    data: _Data,
    machine: _Machine,
    folder: Path,
    watcher: Watcher,
    track: Track[Any],
) -> TrainingRun:
    state = init_state(weights.graph, config, machine.mesh, variables=weights.variables or None)
    log = Log(folder, tensorboard=config.train.tensorboard)
    with StopSignals() as stop, Checkpoints(folder / CHECKPOINTS) as checkpoints:
        restored = checkpoints.restore(state)
        state, progress = restored or (state, Progress())
        log.rewind(progress.step, evaluated=progress.evaluated)
        parts = Parts(
            plan=machine.plan,
            train_step=lambda state, batch: machine.step(state, shard_batch(batch, machine.mesh)),
            batches=partial(shown_batches, machine.loader, folder, weights.names, watcher),
            evaluate=evaluator(config, weights, data.val, folder, stop, track),
            publish=Publisher(config, weights, folder).write,
            checkpoints=checkpoints,
            log=log,
            stop=stop,
            watcher=watcher,
            folder=folder,
        )
        try:
            state, progress = run_loop(state, progress, parts)
        finally:
            log.close()
            draw_curves(folder)
    finished = progress.step == machine.plan.steps
    return TrainingRun(folder, progress.step, progress.best_score, progress.best_step, finished, stop.received)


def _pipeline(config: Config, graph: Graph, source: Source) -> Pipeline:
    return Pipeline(
        source=source,
        augment=config.augment,
        size=config.train.size,
        anchors=graph.anchors,
        strides=graph.strides,
        anchor_t=config.loss.anchor_t,
        max_boxes=config.data.max_boxes,
        window=config.data.window,
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        coarse=graph.has_aux,
        on_fault=config.data.faults,
    )


def _write(file: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)

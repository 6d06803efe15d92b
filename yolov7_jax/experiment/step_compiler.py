"""A training step compiled before there is anything to train on: what it takes, and the largest batch that fits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from yolov7_jax.config import AUTO_BATCH, Config, TrainConfig
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.preparation import training_pipeline
from yolov7_jax.experiment.setup import Given, StepParts, step_options, step_parts
from yolov7_jax.graph.spec import Graph
from yolov7_jax.source import SourceMixin
from yolov7_jax.training import hosts
from yolov7_jax.training.memory import largest_batch, program_memory
from yolov7_jax.training.mesh import data_mesh, split
from yolov7_jax.training.planned import Compilation
from yolov7_jax.training.state import abstract_state, state_shardings
from yolov7_jax.training.step import make_step
from yolov7_jax.training.topology import LOCAL, cache_off, named_devices
from yolov7_jax.types import NO_LABELS, Batch, Labels, Sample

Report = Callable[[str], None]

_TICK_S = 30.0  # between two reports of one compilation
_GIB = 2**30
_OF_LIMIT = 0.9  # of what a device may allot; the rest is for what the compiler does not know of

FIRST_BATCH = 2
"""Images a device, or micro-batches, that the search for the largest batch begins with."""


def with_batch_size(config: Config, graph: Graph, *, images: int, given: Given, report: Report) -> Config:
    """The configuration with a number in place of train.batch_size=auto: the largest batch that fits.

    By the compiler's own figures of up to four steps, before anything runs; of several processes all call it, and take
    the least that one finds.

    Args:
        config: settings of the run.
        graph: of its network.
        images: how many there are to train on: a batch has no more.
        given: parts in place of those that the settings name.
        report: is told what is compiled, and what was found.

    Raises:
        InputError: how much memory there is is not known, or is too little for the smallest batch.
    """
    if config.train.batch_size != AUTO_BATCH:
        return config
    mesh = data_mesh()
    unit = config.optim.micro_batch or mesh.size
    most = max(images // unit, 1) * unit
    compiler = StepCompiler(config, graph, mesh, LOCAL[0], None, report, given)
    with hosts.all_or_none():
        limit = _memory_limit(config.train, mesh.devices.flat[0])
        found = _fitting(compiler, limit, unit, most)
    size = min(int(told) for told in hosts.gather(str(found).encode()))
    needed = next(one.needed or 0 for one in compiler.compilations if one.batch_size == found)
    report(
        f"train.batch_size: auto is {size} images: {needed / _GIB:.2f} of {limit / _GIB:.2f} GiB on each device"
        + ("; there are no more to train on" if size == most else "")
    )
    return replace(config, train=replace(config.train, batch_size=size))


def _fitting(compiler: StepCompiler, limit: float, unit: int, most: int) -> int:
    """The largest batch found whose step takes no more than so many bytes of a device."""
    first = min(FIRST_BATCH * unit, most)
    compiled = compiler.compile(first)
    memory = None if compiled is None else program_memory(compiled)
    found = None
    if memory is not None:
        empty = memory.arguments + memory.code
        found = largest_batch(compiler.needed, (first, memory.needed), empty, limit, unit, most)
    if found is None:
        needed = "more memory" if memory is None else f"{memory.needed / _GIB:.2f} GiB"
        raise InputError(
            f"train.batch_size: auto found no batch: a step of {first} images needs {needed} on each device, of "
            f"{limit / _GIB:.2f} GiB; save memory (docs/training.md, Memory), or set train.batch_size"
        )
    return found


def _memory_limit(settings: TrainConfig, device: Any) -> float:
    """Bytes of a device that a step may take."""
    if settings.memory_limit:
        return settings.memory_limit * _GIB
    known = (device.memory_stats() or {}).get("bytes_limit")
    if not known:
        raise InputError(
            f"train.batch_size: auto has to know how much memory there is, and {device.device_kind} does not tell; set "
            "train.memory_limit, in GiB a device, or train.batch_size"
        )
    return _OF_LIMIT * float(known)


@dataclass
class StepCompiler:
    """Compiles steps that differ in the batch alone.

    on: a topology, or a name of devices at hand. options: of the compiler. given: parts in place of those in config.
    """

    config: Config
    graph: Graph
    mesh: Mesh
    on: str
    options: dict[str, Any] | None
    report: Report
    given: Given = field(default_factory=Given)
    compilations: list[Compilation] = field(default_factory=list)

    def needed(self, batch_size: int) -> int | None:
        """Bytes of the step on each device; None if there is no room for it, or the compiler does not tell."""
        self.compile(batch_size)
        return self.compilations[-1].needed

    def compile(self, batch_size: int) -> jax.stages.Compiled | None:
        """The step; None if there is no room for it."""
        settings = replace(self.config.train, batch_size=batch_size)
        config = replace(self.config, train=settings)
        parts, sample = parts_and_sample(config, self.graph, self.given)
        step: Any = make_step(*parts, mesh=self.mesh, **step_options(settings)._asdict())
        state, batch = _abstract(parts, sample, config, self.mesh)
        height, width = sample.image.shape[:2]
        what = f"{batch_size} images of {width} × {height} pixels on {named_devices(self.mesh, self.on)}"
        with _reported(f"compiling the step of {what}", self.report) as seconds, _cache_for(self.on):
            compiled = _or_no_room(lambda: step.lower(state, batch).compile(self.options), self.report)
        memory = None if compiled is None else program_memory(compiled)
        self.compilations.append(
            Compilation(batch_size, None if memory is None else memory.needed, round(seconds(), 1))
        )
        return compiled


def _abstract(parts: StepParts, sample: Batch, config: Config, mesh: Mesh) -> tuple[Any, Batch]:
    """State and batch as shapes with shardings."""

    def laid(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def of_batch(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.train.batch_size, *leaf.shape), leaf.dtype, sharding=split(mesh))

    state = abstract_state(*parts)
    shardings = state_shardings(state, mesh, shard=config.train.shard_state)
    return jax.tree.map(laid, state, shardings), jax.tree.map(of_batch, sample)


class _Blank(SourceMixin):
    """One gray image without objects: what samples look like depends on settings alone."""

    def __init__(self, names: int, size: int) -> None:
        self.names = tuple(map(str, range(names)))
        self._size = size

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        labels = self.labels(index)
        boxes = labels.boxes_xyxy_px.astype(np.float32)
        return Sample(np.zeros((*labels.size, 3), np.uint8), boxes, labels.class_ids)

    def labels(self, index: int) -> Labels:  # noqa: ARG002
        return replace(NO_LABELS, size=(self._size, self._size))


def parts_and_sample(config: Config, graph: Graph, given: Given | None = None) -> tuple[StepParts, Batch]:
    """The parts of the step, but for those that are given, and one row of a batch as the run would make it.

    Of several shapes it has the largest.
    """
    data = replace(config.data, sampling="uniform")
    pipeline = training_pipeline(
        replace(config, data=data), graph, _Blank(graph.num_classes, config.train.size), transforms=()
    )
    largest = np.zeros((*pipeline.largest_shape, graph.channels), np.uint8)
    return step_parts(config, graph, pipeline.steps, given or Given()), pipeline.row(0, 0).sample._replace(
        image=largest
    )


def _cache_for(on: str) -> AbstractContextManager[None]:
    return nullcontext() if on in LOCAL else cache_off()


def _or_no_room(compilation: Callable[[], jax.stages.Compiled], report: Report) -> jax.stages.Compiled | None:
    """What is compiled, or None where it does not fit; reports by how much."""
    try:
        return compilation()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        report(str(error).splitlines()[0])
        return None


@contextmanager
def _reported(what: str, report: Report) -> Generator[Callable[[], float]]:
    """Says what is done, how long it has taken now and then, and at its end; gives what tells the seconds."""
    began, done = time.monotonic(), threading.Event()

    def seconds() -> float:
        return time.monotonic() - began

    def tick() -> None:
        while not done.wait(_TICK_S):
            report(f"{what}: {seconds():.0f} s so far")

    ticking = threading.Thread(target=tick, daemon=True)
    report(what)
    ticking.start()
    try:
        yield seconds
    finally:
        done.set()
        ticking.join()
    report(f"{what}: done in {seconds():.0f} s")

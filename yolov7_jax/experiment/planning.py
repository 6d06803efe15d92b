"""A training step compiled for chips that need not be there: what it takes, what it sends, how quick it can be."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from yolov7_jax.config import Config
from yolov7_jax.config_file import check_config
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.preparation import graph_of, training_pipeline
from yolov7_jax.experiment.setup import StepParts, check_names, step_options, step_parts
from yolov7_jax.graph.spec import Graph
from yolov7_jax.source import SourceMixin
from yolov7_jax.training.hlo import Collective, collectives, convolutions, padded_arrays, parse_hlo
from yolov7_jax.training.memory import largest_batch, program_memory
from yolov7_jax.training.mesh import data_mesh, split
from yolov7_jax.training.planned import Compilation, PlannedStep
from yolov7_jax.training.roofline import CHIP_COUNTS, chip_of, roofline, scaling
from yolov7_jax.training.state import abstract_state, state_shardings
from yolov7_jax.training.step import make_step
from yolov7_jax.training.topology import LOCAL, QUICKLY, cache_off, named_devices, planned_devices
from yolov7_jax.types import NO_LABELS, Batch, Labels, Sample

Report = Callable[[str], None]

_TICK_S = 30.0  # between two reports of one compilation


def plan(
    config: Config,
    on: str = "local",
    *,
    num_classes: int | None = None,
    fit: bool = False,
    thorough: bool = False,
    report: Report = lambda _: None,
) -> PlannedStep:
    """Compiles the training step of a configuration for devices that need not be there, and reads what came out.

    Neither data nor weights are needed; weights that the configuration names are read for their network.

    Args:
        config: settings of a run.
        on: a topology of TPUs such as "v5e:2x4", "local" for JAX's devices here, or "cpu". Topologies need libtpu, and
            keep it in this process from looking for TPUs: train in another one.
        num_classes: by default the network's own.
        fit: also look for the largest batch that fits, by up to three more compilations.
        thorough: compile as for a run; by default XLA searches less, for TPUs, and takes half the time.
        report: is told what is compiled, and how long it has taken so far.

    Raises:
        InputError: a setting or the topology cannot be used, or the step does not fit.
        InstallationError: a topology of TPUs is asked for, and libtpu is not installed.
    """
    check_config(config, where="config")
    check_names(config)
    graph = graph_of(config, num_classes=num_classes)
    graph.check_side(config.train.size)
    mesh = data_mesh(planned_devices(on))
    if fit and chip_of(mesh.devices.flat[0].device_kind) is None:
        raise InputError(f"--fit: how much memory {named_devices(mesh, on)} have is not known; name chips by --on")
    compiler = _Compiler(config, graph, mesh, on, dict(QUICKLY) if on not in LOCAL and not thorough else None, report)
    compiled = compiler.compile(config.train.batch_size)
    if compiled is None:
        raise InputError(
            f"train.batch_size: a step of {config.train.batch_size} images needs more memory than "
            f"{named_devices(mesh, on)} have; set it lower, or save memory (docs/training.md, Memory)"
        )
    planned = _read(compiler, compiled)
    if fit and planned.memory is not None and planned.capacity is not None:
        empty = planned.memory.arguments + planned.memory.code
        unit = config.optim.micro_batch or mesh.size
        largest = largest_batch(compiler.needed, compiler.compilations[0][:2], empty, planned.capacity, unit)
        planned = replace(planned, largest_batch=largest)
    return replace(planned, compilations=tuple(compiler.compilations))


@dataclass
class _Compiler:
    """Compiles steps that differ in the batch alone."""

    config: Config
    graph: Graph
    mesh: Mesh
    on: str
    options: dict[str, Any] | None
    report: Report
    compilations: list[Compilation] = field(default_factory=list)

    def needed(self, batch_size: int) -> int | None:
        """Bytes of the step on each device; None if there is no room for it, or the compiler does not tell."""
        self.compile(batch_size)
        return self.compilations[-1].needed

    def compile(self, batch_size: int) -> jax.stages.Compiled | None:
        """The step; None if there is no room for it."""
        settings = replace(self.config.train, batch_size=batch_size)
        config = replace(self.config, train=settings)
        parts, sample = _parts_and_sample(config, self.graph)
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


def _read(compiler: _Compiler, compiled: jax.stages.Compiled) -> PlannedStep:
    """All that is known of a compiled step."""
    config, mesh = compiler.config, compiler.mesh
    program, cost = parse_hlo(compiled.as_text() or ""), compiled.cost_analysis() or {}
    parts, sample = _parts_and_sample(config, compiler.graph)
    state_sizes = {leaf.size for leaf in jax.tree.leaves(abstract_state(*parts))}
    sent = tuple(collectives(program))
    turns = parts.schedule.micro_batches  # XLA counts once what is in a loop
    flops, moved = (turns * float(cost.get(key, 0)) for key in ("flops", "bytes accessed"))
    return PlannedStep(
        network=config.model.weights or config.model.name,
        image_size=(sample.image.shape[0], sample.image.shape[1]),
        batch_size=config.train.batch_size,
        dtype=config.train.dtype,
        on=compiler.on,
        device_kind=mesh.devices.flat[0].device_kind,
        devices=mesh.size,
        memory=program_memory(compiled),
        flops=flops,
        bytes_moved=moved,
        convolutions=convolutions(program),
        collectives=sent,
        foreign=tuple(one for one in sent if _is_foreign(one, state_sizes)),
        padded=tuple(padded_arrays(program)),
        **_on_known_chips(mesh, flops, moved, sent),
    )


def _on_known_chips(mesh: Mesh, flops: float, bytes_moved: float, sent: Sequence[Collective]) -> dict[str, Any]:
    """What follows from published figures, if there are any of these devices."""
    chip = chip_of(mesh.devices.flat[0].device_kind)
    if chip is None:
        return {}
    bound = roofline(chip, flops=flops, bytes_moved=bytes_moved)
    scaled = [scaling(chip, bound.step_s, sent, chips) for chips in CHIP_COUNTS if sent]
    return {"capacity": chip.memory, "roofline": bound, "scaling": tuple(scaled)}


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


def _parts_and_sample(config: Config, graph: Graph) -> tuple[StepParts, Batch]:
    """The parts of the step, and one row of a batch as the run would make it, of its largest shape."""
    data = replace(config.data, sampling="uniform")
    pipeline = training_pipeline(
        replace(config, data=data), graph, _Blank(graph.num_classes, config.train.size), transforms=()
    )
    largest = np.zeros((*pipeline.largest_shape, graph.channels), np.uint8)
    return step_parts(config, graph, pipeline.steps, {}), pipeline.row(0, 0).sample._replace(image=largest)


def _is_foreign(transfer: Collective, sizes: set[int]) -> bool:
    """Whether it moves anything but sums, and parts of the state, whose arrays have so many values."""
    return transfer.kind != "all-reduce" and any(math.prod(array.shape) not in sizes for array in transfer.arrays)


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

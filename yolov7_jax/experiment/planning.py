"""A training step compiled for chips that need not be there: what it takes, what it sends, how quick it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from yolov7_jax.config import AUTO_BATCH, Config
from yolov7_jax.config_file import check_config
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.preparation import graph_of
from yolov7_jax.experiment.setup import check_names
from yolov7_jax.experiment.step_compiler import FIRST_BATCH, Report, StepCompiler, parts_and_sample
from yolov7_jax.training.hlo import Collective, collectives, convolutions, padded_arrays, parse_hlo
from yolov7_jax.training.memory import largest_batch, program_memory
from yolov7_jax.training.mesh import data_mesh
from yolov7_jax.training.planned import PlannedStep
from yolov7_jax.training.roofline import CHIP_COUNTS, chip_of, roofline, scaling
from yolov7_jax.training.state import abstract_state
from yolov7_jax.training.topology import LOCAL, QUICKLY, named_devices, planned_devices


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
        config: settings of a run; where train.batch_size is auto, the largest batch that fits is looked for from a few
            images a device.
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
    if config.train.batch_size == AUTO_BATCH:
        unit, fit = config.optim.micro_batch or mesh.size, True
        config = replace(config, train=replace(config.train, batch_size=FIRST_BATCH * unit))
    if fit and chip_of(mesh.devices.flat[0].device_kind) is None:
        raise InputError(f"--fit: how much memory {named_devices(mesh, on)} have is not known; name chips by --on")
    compiler = StepCompiler(
        config, graph, mesh, on, dict(QUICKLY) if on not in LOCAL and not thorough else None, report
    )
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


def _read(compiler: StepCompiler, compiled: jax.stages.Compiled) -> PlannedStep:
    """All that is known of a compiled step."""
    config, mesh = compiler.config, compiler.mesh
    program, cost = parse_hlo(compiled.as_text() or ""), compiled.cost_analysis() or {}
    parts, sample = parts_and_sample(config, compiler.graph)
    state_sizes = _sizes(abstract_state(*parts), mesh.size if config.train.shard_state else 1)
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


def _sizes(state: Any, parts: int) -> set[int]:
    """How many values the arrays of a state have, and the parts of those that are shared by so many devices."""
    whole = {leaf.size for leaf in jax.tree.leaves(state)}
    return whole | {size // parts for size in whole if size % parts == 0}


def _is_foreign(transfer: Collective, sizes: set[int]) -> bool:
    """Whether it moves anything but sums, and parts of the state, whose arrays have so many values."""
    return transfer.kind != "all-reduce" and any(math.prod(array.shape) not in sizes for array in transfer.arrays)

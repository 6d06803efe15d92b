"""The devices that a step is compiled for: those at hand, or TPUs that need not be there."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.sharding import Mesh

from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.training.roofline import CHIPS, Chip, slice_sides

LOCAL = ("local", "cpu")
"""Names of the devices at hand: JAX's default ones, and CPUs."""

QUICKLY: Mapping[str, Any] = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
"""Options that have XLA compile for TPUs in half the time or less, with less search for speed and for room."""

_OFFLINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "none",
    "TPU_LOG_DIR": "disabled",
}
"""Environment in which libtpu looks for no TPU of a machine or a cloud, and does not complain that there is none."""


def planned_devices(on: str) -> list[Any]:
    """The devices of a name: "local", "cpu", or a topology such as "v5e:2x4", whose devices can be compiled for alone.

    Raises:
        InputError: there is no such topology. InstallationError: libtpu is not installed.
    """
    if on in LOCAL:
        return jax.devices() if on == "local" else jax.devices("cpu")
    named = re.fullmatch(r"([^:]+):(\d+(?:x\d+)*)", on)
    chip = next((chip for chip in CHIPS if named and chip.name == named[1]), None)
    if named is None or chip is None:
        raise InputError(
            f"--on {on}: expected local, cpu, or a chip ({', '.join(chip.name for chip in CHIPS)}) and how many along "
            f"each axis, such as {_example(CHIPS[1])}"
        )
    sides = [int(side) for side in named[2].split("x")]
    if len(sides) != chip.axes or 0 in sides:
        raise InputError(f"--on {on}: {chip.name} is wired along {chip.axes} axes; expected such as {_example(chip)}")
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise InstallationError(f"--on {on}: needs the compiler for TPUs; install it: pip install 'yolov7-jax[tpu]'")
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    host = [2 - side % 2 for side in sides[:2]] + [1] * (3 - len(sides[:2]))
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=on, chips_per_host_bounds=host)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--on {on}: libtpu cannot describe it ({reason}); choose another topology") from error
    devices: list[Any] = list(found.devices)
    if len({tuple(device.coords) for device in devices}) < len(devices):
        raise InputError(
            f"--on {on}: libtpu has two devices a chip there, which JAX makes no mesh of; choose v5e or later"
        )
    return devices


def named_devices(mesh: Mesh, on: str) -> str:
    """How many there are of which kind."""
    return f"{mesh.size} × {mesh.devices.flat[0].device_kind}" + ("" if on in LOCAL else f" ({on})")


@contextmanager
def cache_off() -> Generator[None]:
    """Programs are neither kept nor looked for: JAX keeps those for absent devices, but cannot read them."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # it asks once whether it is in use
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        reset_cache()


def _example(chip: Chip) -> str:
    return f"{chip.name}:{'x'.join(map(str, slice_sides(4, chip.axes)))}"

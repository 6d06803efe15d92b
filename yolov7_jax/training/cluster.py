"""How processes find each other: by HOST:PORT of the first one, by Slurm, or by whatever cluster JAX knows."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Literal, NamedTuple

import jax

from yolov7_jax.errors import InputError

Search = Literal["auto", "on", "off"]
"""Whether processes that are not named are looked for: where Slurm started several, always, never."""

_PATIENCE_S = 300  # that a process waits for the first one
_HEARTBEAT_S = 30  # one that is killed is missed after so many seconds, by default 100


class Address(NamedTuple):
    """Where a process stands among all: HOST:PORT of the first one, how many there are, the number of this one."""

    coordinator: str
    processes: int
    process_id: int


def connect(address: Address | None = None, search: Search = "auto") -> None:
    """Joins the processes that work together, before anything has touched a device.

    Args:
        address: where this process stands; else it is looked for.
        search: where to look; "on" asks every kind of cluster that `jax.distributed` knows.

    Raises:
        InputError: there is no cluster, or it cannot be joined.
    """
    if address is None and (search == "off" or (search == "auto" and place_in_slurm()[1] == 1)):
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    try:
        if address is None:
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_S)
        else:
            _await_first(address)
            jax.distributed.initialize(
                *address, cluster_detection_method="deactivate", heartbeat_timeout_seconds=_HEARTBEAT_S
            )
    except (ValueError, RuntimeError, IndexError) as error:  # the last: there is no port
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"the processes of this run cannot be joined ({reason}); name them: --coordinator HOST:PORT --processes N "
            "--process-id I"
        ) from error


def place_in_slurm() -> tuple[int, int]:
    """The number of this process, and of all that Slurm started with it; (0, 1) without Slurm."""
    processes = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) if "SLURM_STEP_NODELIST" in os.environ else 1
    return (int(os.environ["SLURM_PROCID"]), processes) if processes > 1 else (0, 1)


def _await_first(address: Address) -> None:
    """Returns when the first process listens: JAX, which waits as long, would abort without a sentence."""
    host, _, port = address.coordinator.rpartition(":")
    if address.process_id == 0 or not host or not port.isdecimal():
        return
    end = time.monotonic() + _PATIENCE_S
    while True:
        with suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return
        if time.monotonic() > end:
            raise InputError(
                f"nobody answers at {address.coordinator} after {_PATIENCE_S} seconds; start process 0 there, and give "
                "all the same --coordinator HOST:PORT"
            )
        time.sleep(0.5)


def refuse_several(what: str) -> None:
    """Refuses work that is for one process.

    Raises:
        InputError: this process has joined others.
    """
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        raise InputError(f"{what} is for one process, and {jax.process_count()} are joined; start it in one")

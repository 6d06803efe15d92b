"""Where a training step runs: batches are split over devices along one axis, everything else is on all of them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from yolov7_jax.errors import InputError
from yolov7_jax.ops.by_device import DATA
from yolov7_jax.types import Batch


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis `DATA` over some devices, or over all of all hosts."""
    devices = jax.devices() if devices is None else devices
    # Auto, said outright: the default is Explicit, which refuses the scatter in the gradient of the loss.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """How the training state lies: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """How a batch lies: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
        InputError: names the setting and the sizes that would do.
    """
    below = batch_size // mesh.size * mesh.size
    if batch_size != below or batch_size < 1:
        near = " or ".join(str(size) for size in (below, below + mesh.size) if size > 0)
        raise InputError(
            f"train.batch_size: {batch_size} images cannot be shared evenly by {mesh.size} devices; set it to {near}"
        )


def check_micro_batch(micro_batch: int, batch_size: int, devices: int) -> None:
    """Refuses micro-batches that do not divide a batch, or that the devices cannot share evenly; 0 is none.

    Raises:
        InputError: names the setting and the sizes that would do.
    """
    fitting = [size for size in range(devices, batch_size + 1, devices) if batch_size % size == 0]
    if micro_batch not in (0, *fitting):
        place = bisect(fitting, micro_batch)
        near = " or ".join(map(str, fitting[max(place - 1, 0) : place + 1]))
        raise InputError(
            f"optim.micro_batch: {micro_batch} images at a time do not divide a batch of {batch_size} into parts that "
            f"{devices} devices can share evenly; set it to {near}, or to 0 for all at once"
        )


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """The global batch on the devices from the images that this host made (all of them, where there is one host)."""
    sharding = split(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)

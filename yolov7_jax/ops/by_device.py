"""What every device computes of its own images alone, in a step that is split over a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

DATA = "data"
"""The axis of a mesh that the images of a batch are split over."""


def on_each_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of trees of arrays [B, ...], called by every device with its images where a mesh is in use.

    Left to itself, the compiler gathers the images of all devices where it cannot split an operation, in each turn of
    a loop if it stands in one. A mesh is in use within `jax.sharding.use_abstract_mesh`, as in `make_step`; without
    one, with one device, or where the devices cannot share B evenly, `function` is called as it is.

    function: gives a tree of arrays [B, ...], of each image what does not depend on the others; or of anything
    [1, ...], of which comes back [1, ...] of every device together. What it closes over is whole on every device.
    """

    def split(*batched: Any) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
        devices = mesh.shape[DATA] if types.get(DATA) == AxisType.Auto else 1
        if devices == 1 or len(jax.tree.leaves(batched)[0]) % devices:
            return function(*batched)
        rows = PartitionSpec(DATA)
        # Unchecked: loops would have to tell which of their first values differ between devices.
        each = jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, axis_names={DATA}, check_vma=False)
        return each(*batched)

    return split

"""A state of which each device keeps a part: what it equals, what memory it takes, what comes out of it."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from tests.training.step_parts import state_of, step_parts
from tests.training.test_step import AT_ONCE, SMALL, small_batch
from yolov7_jax.config import Config, TrainConfig
from yolov7_jax.training.checkpoint import Checkpoints, RunStatus
from yolov7_jax.training.loop import _averaged
from yolov7_jax.training.mesh import data_mesh, shard_batch
from yolov7_jax.training.state import TrainState, abstract_state, init_state, state_shardings
from yolov7_jax.training.step import make_step

GRAPH = SMALL.graph
CONFIG = Config(optim=AT_ONCE, train=TrainConfig(batch_size=4, size=64, epochs=3))
START = state_of(GRAPH, CONFIG, data_mesh(jax.devices()[:1]))
VARIABLES = jax.device_get({"params": START.params, "batch_stats": START.batch_stats})


def begin(mesh: jax.sharding.Mesh, *, shard: bool) -> TrainState:
    return init_state(**step_parts(GRAPH, CONFIG), variables=VARIABLES, mesh=mesh, shard=shard)


def bytes_on_a_device(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(leaf.addressable_data(0).nbytes for leaf in leaves)


@pytest.fixture(scope="module")
def after() -> dict[bool, TrainState]:
    """The state after three steps on all devices, whole on each or not."""
    mesh, found = data_mesh(), {}
    for shard in (False, True):
        state = begin(mesh, shard=shard)
        step: Any = make_step(**step_parts(GRAPH, CONFIG), mesh=mesh, shard=shard)
        program = step.lower(state, shard_batch(small_batch(0), mesh)).compile()
        for seed in range(3):
            state, _ = program(state, shard_batch(small_batch(seed), mesh))
        found[shard] = state
    return found


def test_steps_are_those_of_a_state_that_is_whole_on_every_device(after: dict[bool, TrainState]) -> None:
    whole, parts = jax.device_get(after[False]), jax.device_get(after[True])
    assert int(parts.updates) == 3
    for (path, expected), found in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        # float32: XLA may sum in another order where it sums over parts
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=jax.tree_util.keystr(path))


def test_each_device_keeps_its_part_of_averages_and_momenta(after: dict[bool, TrainState]) -> None:
    devices = jax.device_count()
    assert devices > 1
    for name in ("ema", "opt_state"):
        whole, part = (bytes_on_a_device(getattr(after[shard], name)) for shard in (False, True))
        assert whole / devices <= part < 1.1 * whole / devices  # a few small arrays do not divide
    for name in ("params", "batch_stats"):
        assert bytes_on_a_device(getattr(after[True], name)) == bytes_on_a_device(getattr(after[False], name))


def test_arrays_are_cut_along_the_first_axis_that_divides() -> None:
    mesh = data_mesh(jax.devices()[:4])
    state = abstract_state(**step_parts(GRAPH, CONFIG))
    shardings = state_shardings(state, mesh, shard=True)
    cut = 0
    for leaf, sharding in zip(jax.tree.leaves(state.ema), jax.tree.leaves(shardings.ema), strict=True):
        shape = sharding.shard_shape(leaf.shape)
        if any(size % 4 == 0 for size in leaf.shape):
            axis = next(axis for axis, size in enumerate(leaf.shape) if size % 4 == 0)
            assert shape == (*leaf.shape[:axis], leaf.shape[axis] // 4, *leaf.shape[axis + 1 :])
            cut += math.prod(leaf.shape)
        else:
            assert shape == leaf.shape
    assert cut > 0


def test_averages_come_whole_and_checkpoints_are_of_both_kinds(after: dict[bool, TrainState], tmp_path: Any) -> None:
    state = after[True]
    for found, expected in zip(
        jax.tree.leaves(_averaged(state)), jax.tree.leaves(jax.device_get(state.ema)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, RunStatus(3))
        checkpoints.wait()
        restored = checkpoints.restore(begin(data_mesh(jax.devices()[:2]), shard=False))
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored[0]), jax.device_get(state))

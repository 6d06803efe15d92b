"""Steps whose images go through the network in micro-batches: what they equal, on devices, what memory they take."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from tests.training.step_parts import state_of, step_parts
from tests.training.test_step import AT_ONCE, ONE, SMALL, assert_same, in_bytes, make_batch, small_batch, two_levels
from yolov7_jax.config import Config, LossConfig, TrainConfig
from yolov7_jax.errors import InputError
from yolov7_jax.graph.spec import Graph
from yolov7_jax.training.hlo import Collective, collectives, parse_hlo
from yolov7_jax.training.mesh import check_micro_batch, data_mesh, shard_batch
from yolov7_jax.training.state import TrainState
from yolov7_jax.training.step import make_step, pure_step
from yolov7_jax.types import Batch


def config_of(micro_batch: int, *, images: int = 8, **optim: Any) -> Config:
    """Of batches of so many images, each an update."""
    settings = {"nominal_batch_size": images, "weight_decay": 0.01, "micro_batch": micro_batch, **optim}
    return Config(optim=replace(AT_ONCE, **settings), train=TrainConfig(batch_size=images, size=64, epochs=3))


def images_of(count: int, graph: Graph = SMALL.graph) -> Batch:
    """So many images, in bytes, of which each leaves out others."""
    fours = [small_batch(seed) for seed in range(count // 4)]
    images, boxes, class_ids = (
        np.concatenate([getattr(four, name) for four in fours]) for name in ("image", "boxes_cxcywh_px", "class_ids")
    )
    overflow = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    return in_bytes(make_batch(graph, images, boxes, class_ids))._replace(overflow=overflow)


class Compiled:
    """A step of some shape."""

    def __init__(self, graph: Graph, config: Config, state: TrainState, batch: Batch, mesh: Mesh, **parts: Any) -> None:
        self.mesh = mesh
        step: Any = make_step(**step_parts(graph, config) | parts, mesh=mesh, remat=config.train.remat)
        self.program = step.lower(state, shard_batch(batch, mesh)).compile()

    def __call__(self, state: TrainState, batch: Batch) -> Any:
        return jax.device_get(self.program(state, shard_batch(batch, self.mesh)))

    def collectives(self) -> list[Collective]:
        """What devices send each other."""
        return collectives(parse_hlo(self.program.as_text() or ""))


def exact(config: Config, **train: Any) -> Config:
    return replace(config, train=replace(config.train, dtype="float64", **train))


def exact_state(graph: Graph, config: Config) -> TrainState:
    def wide(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(wide, state_of(graph, config, ONE()))


def test_a_step_is_as_many_steps_of_micro_batches_whose_gradients_are_summed() -> None:
    """In float64: weights, averages, running statistics, momenta, weights of the levels; losses and counts."""
    graph, batch = two_levels(), images_of(8, two_levels())
    parts: list[Batch] = [jax.tree.map(lambda leaf, i=i: leaf[i::4], batch) for i in range(4)]
    together = exact(replace(config_of(2), loss=LossConfig(autobalance=True)), remat="stage")
    apart = replace(exact(config_of(0, images=2, nominal_batch_size=8)), loss=together.loss)
    with jax.enable_x64(True):
        expected = exact_state(graph, apart)._replace(step=jnp.asarray(1, jnp.int32))  # an update is due after step 4
        step = Compiled(graph, apart, expected, parts[0], ONE())
        rows = []
        for part in parts:
            assert expected.updates == 0
            expected, metrics = step(expected, part)
            rows.append(metrics)
        start = exact_state(graph, together)
        ours, found = Compiled(graph, together, start, batch, ONE())(start, batch)
    assert_same(ours, expected._replace(step=np.int32(1), gradients=None), rtol=1e-12, atol=1e-14)
    assert (found["updates"], found["overflow_boxes"], found["overflow_candidates"]) == (1, 56, 64)
    assert np.ptp([row["balance_stride_8"] for row in rows]) > 1e-6
    assert found["positives"].dtype == np.int32
    for name in ("loss", "positives", "positives_stride_8", "positives_stride_16"):
        np.testing.assert_allclose(found[name], sum(row[name] for row in rows), rtol=1e-12)
    for name in ("box", "obj", "cls", "total", "positives_per_box", "objectness_stride_16", "balance_stride_8"):
        np.testing.assert_allclose(found[name], np.mean([row[name] for row in rows]), rtol=1e-12)


def test_without_batch_statistics_a_sum_over_images_is_that_of_the_whole_batch() -> None:
    batch, found = images_of(8), []
    with jax.enable_x64(True):
        for size in (0, 2):
            config = exact(config_of(size, freeze=r"\d+/bn/(mean|var)"))
            state = exact_state(SMALL.graph, config)
            step = Compiled(
                SMALL.graph, config, state, batch, ONE(), loss=lambda outputs, *_: (jnp.square(outputs.lead).sum(), {})
            )
            found.append(step(state, batch))
    (whole, expected), (micro, metrics) = found
    assert_same(micro, whole, rtol=1e-12, atol=1e-14)
    assert_same(metrics, expected, rtol=1e-12)


def test_devices_share_every_micro_batch_and_no_image_leaves_its_device() -> None:
    """Four devices do what one does, and send each other sums alone."""
    batch, meshes = images_of(8), (ONE(), data_mesh())
    config = config_of(4)
    states = [state_of(SMALL.graph, config, mesh) for mesh in meshes]
    one, four = (Compiled(SMALL.graph, config, *at) for at in zip(states, (batch, batch), meshes, strict=True))
    assert {one.kind for one in four.collectives()} == {"all-reduce"}
    (expected, metrics), (ours, found) = (step(state, batch) for step, state in zip((one, four), states, strict=True))
    assert_same(found, metrics, rtol=1e-5)
    assert_same(ours, expected, rtol=1e-5, atol=1e-6)  # sums over a batch in another order, in float32


@pytest.mark.parametrize("assigner", ["ota", "simple"])
def test_devices_send_each_other_sums_alone_and_none_within_a_loop(assigner: str) -> None:
    config = replace(config_of(0), loss=LossConfig(assigner=assigner))
    step = Compiled(two_levels(), config, state_of(two_levels(), config, data_mesh()), images_of(8), data_mesh())
    assert " while(" in step.program.as_text()  # there are loops: of class losses and convolutions at least
    assert {(one.kind, one.in_loop) for one in step.collectives()} == {("all-reduce", False)}


def test_a_micro_batch_that_is_not_finite_skips_the_step() -> None:
    batch, config = images_of(8), config_of(2)
    batch = batch._replace(image=batch.image.astype(np.float32))
    batch.image[5, 3] = np.inf
    state = state_of(SMALL.graph, config, ONE())
    before = jax.device_get(state)
    after, metrics = Compiled(SMALL.graph, config, state, batch, ONE())(state, batch)
    assert (metrics["finite"], metrics["nonfinite"], metrics["updates"]) == (0, 1, 0)
    expected = before._replace(step=np.int32(1), nonfinite=np.int32(1), nonfinite_in_row=np.int32(1))
    jax.tree.map(np.testing.assert_array_equal, after, expected)


def test_micro_batches_of_a_quarter_take_well_under_half_of_the_memory() -> None:
    def scratch(micro_batch: int) -> int:
        config = config_of(micro_batch, images=32)
        state = state_of(SMALL.graph, config, ONE())
        program = Compiled(SMALL.graph, config, state, images_of(32), ONE()).program
        size: int = program.memory_analysis().temp_size_in_bytes
        return size

    assert scratch(8) < 0.35 * scratch(0)


def test_micro_batches_that_do_not_fit_are_refused() -> None:
    for size in (0, 4, 8, 16):
        check_micro_batch(size, 16, 4)
    for size, near in ((2, "4"), (6, "4 or 8"), (12, "8 or 16"), (32, "16")):
        with pytest.raises(InputError, match=rf"optim\.micro_batch: {size} .* 16 .* 4 devices .* to {near}, or to 0"):
            check_micro_batch(size, 16, 4)
    parts = step_parts(SMALL.graph, config_of(3))
    for make in (make_step, pure_step):
        with pytest.raises(InputError, match=r"optim\.micro_batch: 3"):
            make(**parts)

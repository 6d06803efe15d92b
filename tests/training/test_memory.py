from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from tests.small_networks import small_weights
from tests.training.step_parts import state_of, step_of
from yolov7_jax.assign.candidates import candidates
from yolov7_jax.config import Config, DataConfig, OptimConfig, TrainConfig
from yolov7_jax.training.memory import MeasuredStep, ProgramMemory, StepMemory, largest_batch, step_memory
from yolov7_jax.training.mesh import data_mesh, shard_batch
from yolov7_jax.types import Batch, Candidates

SMALL, CAPACITY = small_weights(), 2000
CONFIG = Config(
    data=DataConfig(max_boxes=CAPACITY),
    optim=OptimConfig(nominal_batch_size=2),
    train=TrainConfig(batch_size=2, size=64),
)


def batch_of(count: int) -> Batch:
    """Two images with so many boxes, in room for 2,000."""
    rng = np.random.default_rng(count)
    valid = np.broadcast_to(np.arange(CAPACITY) < count, (2, CAPACITY))
    boxes = np.concatenate([rng.uniform(0, 64, (2, CAPACITY, 2)), rng.uniform(8, 40, (2, CAPACITY, 2))], -1)
    boxes = (boxes * valid[..., None]).astype(np.float32)
    layout: dict[str, Any] = {"anchors": SMALL.graph.anchors, "strides": SMALL.graph.strides, "image_size": (64, 64)}
    found = [
        candidates(*pair, **layout, anchor_t=4.0, neighbor_offset=0.5)[0] for pair in zip(boxes, valid, strict=True)
    ]
    fine = Candidates(*map(np.stack, zip(*found, strict=True)))
    images, zeros = rng.integers(0, 256, (2, 64, 64, 3), np.uint8), np.zeros((2, CAPACITY), np.int32)
    return Batch(images, boxes, zeros, valid, fine, None, zeros[:, :2], zeros[:, 0])


def test_memory_is_known_before_and_is_the_same_for_one_box_and_for_2000() -> None:
    mesh = data_mesh(jax.devices()[:2])
    state = state_of(SMALL.graph, CONFIG, mesh, variables=SMALL.variables)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    one, crowd = batch_of(1), batch_of(2000)
    step: Any = step_of(SMALL.graph, CONFIG, mesh=mesh)
    compiled = step.lower(state, shard_batch(one, mesh)).compile()
    memory = step_memory(compiled, state, shard_batch(one, mesh))
    assert memory is not None
    assert memory == step_memory(compiled, state, shard_batch(crowd, mesh))
    assert memory.state == held
    assert memory.batch * 2 == sum(leaf.nbytes for leaf in jax.tree.leaves(crowd))
    assert 1e6 < memory.scratch < 50e6  # boxes and a block of candidates, some times over: 2,000 x 256 floats

    compilations = list[int]()
    lowered = SimpleNamespace(compile=lambda: compilations.append(1) or compiled)
    run = MeasuredStep(SimpleNamespace(lower=lambda *_: lowered))
    for batch in (one, crowd):  # one program, which takes arrays of these shapes alone
        assert run.prepare(state, shard_batch(batch, mesh)) == memory
        state, metrics = run(state, shard_batch(batch, mesh))
        assert metrics["finite"]
        assert compilations == [1]
        assert float(metrics["positives_per_box"]) == pytest.approx(int(metrics["positives"]) / batch.valid.sum())


def test_each_shape_of_batches_is_compiled_once_and_an_abstract_batch_will_do() -> None:
    traced = []

    @jax.jit
    def step(state: Any, batch: Any) -> Any:
        traced.append(batch.shape)
        return state + batch.sum(), {}

    run = MeasuredStep(step)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state, small, large = (jax.device_put(np.ones(shape, np.float32), place) for shape in ((), (2, 3), (2, 400)))
    memory = run.prepare(state, jax.ShapeDtypeStruct((2, 400), np.float32, sharding=place))
    assert memory is not None
    assert (memory.state, memory.batch) == (4, 3200)
    total: Any = state
    for batch in (small, large, small, large):
        total, _ = run(total, batch)
    assert float(total) == 1 + 2 * (6 + 800)
    assert traced == [(2, 400), (2, 3)]


def test_what_is_said() -> None:
    memory = StepMemory(300 * 2**20, 5 * 2**20, 1000 * 2**20)
    assert str(memory) == (
        "memory of a step on each device: 1305 MB (300 weights and optimizer, 5 images and boxes, "
        "1000 intermediate results)"
    )


def test_what_a_device_has_to_have() -> None:
    memory = ProgramMemory(arguments=100, outputs=90, aliased=80, temporary=1000, code=5, peak=900)
    assert memory.needed == 100 + 10 + 1000 + 5


def test_within_a_tenth_of_what_fits_where_memory_is_bent_as_it_is_for_a_tpu() -> None:
    """MiB of a step of yolov7-tiny, 320 pixels, on a v5e, as its compiler told them; between them about lines."""
    sizes, needed = [0, 2, 112, 282, 453], [158, 417, 4305, 11501, 16775]

    def needs(size: int) -> int:
        return int(np.interp(size, sizes, needed))

    tried = list[int]()
    found = largest_batch(lambda size: tried.append(size) or needs(size), (2, 417), 158, 16384, 1)
    largest = max(size for size in range(453) if needs(size) <= 16384)
    assert found is not None
    assert 0.9 * largest <= found <= largest
    assert len(tried) <= 3


@pytest.mark.parametrize(
    ("needs", "capacity", "best", "measured"),
    [
        (lambda size: 1000 + 10 * size, 4000, 300, [276, 300]),  # a line: nine tenths of the way, then there
        (lambda size: 1000 + 10 * size + size**2 // 100, 4000, 240, [260, 232, 240]),  # bent: between them; 244 fit
        (lambda size: 1000 + 10 * size if size < 290 else None, 4000, 288, [276, 300, 288]),
        (lambda size: 1000 + 10 * size, 1650, 64, []),  # no room for one image more a device
        (lambda size: 1000 + 10 * size, 1600, None, []),
    ],
)
def test_the_largest_batch_is_one_that_was_measured(
    needs: Any, capacity: int, best: int | None, measured: list[int]
) -> None:
    tried = list[int]()

    def measure(size: int) -> int | None:
        tried.append(size)
        found: int | None = needs(size)
        return found

    found = largest_batch(measure, (64, needs(64)), 1000, capacity, 4)
    assert found in (best, *tried)
    assert found == best
    assert tried == measured

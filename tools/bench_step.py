"""Times a training step: milliseconds an image, where they go, compilation and memory.

    python tools/bench_step.py                                          # the cases of docs/benchmarks.md
    python tools/bench_step.py --model yolov5s --size 640 --batch 4

Each case runs in a process of its own. Four programs take turns: forward pass, forward pass with assignment and loss,
the same with gradients, and the whole step; the parts are medians of their differences in a turn. A program without
gradients keeps nothing for them, so "backward" holds this too. Boxes are random, of about as many sizes and
places as those of a mosaic.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench_infer import lively

import yolov7_jax as yolo
from yolov7_jax.assign.candidates import candidates
from yolov7_jax.config import Config, ModelConfig, OptimConfig, TrainConfig
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.training.mesh import data_mesh, shard_batch
from yolov7_jax.types import Batch, Candidates

CASES = (("yolov7-tiny", 320, 8), ("yolov7", 320, 4))
BOXES = (10, 50)  # real boxes of an image: least, most
SIDES = (0.01, 0.6)  # of a box, in sides of the image: log-uniform between


def random_batch(graph: yolo.Graph, config: Config) -> Batch:
    """Noise with random boxes."""
    rng = np.random.default_rng(0)
    size, M = config.train.size, config.data.max_boxes
    shape = (config.train.batch_size, M)
    valid = np.arange(M) < rng.integers(*BOXES, (shape[0], 1))
    least, most = np.log(SIDES)
    sides = size * np.exp(rng.uniform(least, most, (*shape, 1))) * np.exp(rng.normal(0, 0.3, (*shape, 2)))
    boxes = np.concatenate([rng.uniform(0, size, (*shape, 2)), sides], -1).astype(np.float32) * valid[..., None]

    def found(neighbor_offset: float) -> Candidates:
        of_image = partial(
            candidates,
            anchors=graph.anchors,
            strides=graph.strides,
            image_size=(size, size),
            anchor_t=config.loss.anchor_t,
            neighbor_offset=neighbor_offset,
        )
        images = [of_image(*image)[0] for image in zip(boxes, valid, strict=True)]
        return Candidates(*(np.stack(part) for part in zip(*images, strict=True)))

    return Batch(
        image=rng.integers(0, 256, (shape[0], size, size, 3), np.uint8),
        boxes_cxcywh_px=boxes,
        class_ids=(rng.integers(0, graph.num_classes, shape) * valid).astype(np.int32),
        valid=valid,
        fine=found(config.loss.neighbor_offset),
        coarse=found(config.loss.aux_neighbor_offset) if graph.has_aux else None,
        overflow=np.zeros((shape[0], 2), np.int32),
        index=np.arange(shape[0], dtype=np.int32),
    )


def partial_programs(graph: yolo.Graph, config: Config) -> dict[str, Any]:
    """Functions (params, batch_stats, batch) that do the first part of a step, and more and more of it."""
    size = (config.train.size, config.train.size)
    network, grid = yolo.Network(graph, jnp.dtype(config.train.dtype)), make_grid(graph.anchors, graph.strides, size)
    loss_fn = yolo.loss_of(config, graph)

    def forward(params: Any, batch_stats: Any, batch: Batch) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        images = batch.image.astype(jnp.float32) / 255
        return network.apply(variables, images, train=True, mutable=["batch_stats"])

    def loss(params: Any, batch_stats: Any, batch: Batch) -> Any:
        outputs, changed = forward(params, batch_stats, batch)
        return loss_fn(outputs, batch, grid)[0], changed

    return {"forward": forward, "loss": loss, "gradients": jax.value_and_grad(loss, has_aux=True)}


def run_case(model: str, size: int, batch_size: int, repeats: int, dtype: Any) -> None:
    """Prints the figures of one case."""
    config = Config(
        model=ModelConfig(name=model),
        optim=OptimConfig(lr0=1e-9, warmup_bias_lr=0.0),  # every step the same work
        train=TrainConfig(batch_size=batch_size, size=size, dtype=dtype),
    )
    graph, mesh = yolo.zoo(model), data_mesh(jax.devices()[:1])
    variables = lively(yolo.init(graph, jax.random.key(0)))
    parts = (
        yolo.Network(graph, jnp.dtype(dtype)),
        yolo.loss_of(config, graph),
        yolo.make_optimizer(config.optim),
        yolo.Schedule(config.optim, 1000, config.train.epochs, batch_size),
    )
    state = yolo.init_state(*parts, variables, mesh=mesh)
    batch = shard_batch(random_batch(graph, config), mesh)

    whole: Any = yolo.make_step(*parts, mesh=mesh)
    lowered = whole.lower(state, batch)
    began = time.perf_counter()
    step = lowered.compile()
    compiled = time.perf_counter() - began
    state = jax.block_until_ready(step(state, batch))[0]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    analysis = step.memory_analysis()
    scratch = "" if analysis is None else f"{analysis.temp_size_in_bytes / 2**20:.0f}"

    arguments = (variables["params"], variables["batch_stats"], batch)
    programs = {name: jax.jit(f).lower(*arguments).compile() for name, f in partial_programs(graph, config).items()}
    times: dict[str, list[float]] = {name: [] for name in (*programs, "step")}
    for turn in range(repeats + 1):
        for name, seconds in times.items():
            began = time.perf_counter()
            if name == "step":
                state = jax.block_until_ready(step(state, batch))[0]
            else:
                jax.block_until_ready(programs[name](*arguments))
            if turn:  # the first warms up
                seconds.append(time.perf_counter() - began)
    ms = 1000 / batch_size * np.array(list(times.values()))
    figures = (np.median(ms[-1]), *np.median(np.diff(ms, axis=0, prepend=0), axis=1))
    print(
        f"| {model} | {size} | {batch_size} | {' | '.join(f'{figure:.1f}' for figure in figures)} "
        f"| {compiled:.0f} | {scratch} | {peak_mb:.0f} |",
        flush=True,
    )


def main() -> None:
    """Runs the cases one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="of the zoo; by default the cases of docs/benchmarks.md")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parsed = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}, {parsed.dtype}; ms an image\n")
    print(
        "| network | size | batch | step | forward | assignment + loss | backward | optimizer "
        "| compile s | XLA scratch MB | peak process MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES if parsed.model is None else ((parsed.model, parsed.size, parsed.batch),):
        process = multiprocessing.get_context("spawn").Process(
            target=run_case, args=(*case, parsed.repeat, parsed.dtype)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()

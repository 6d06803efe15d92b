"""Times assignment and loss of one head: milliseconds a batch and the memory that the compiler plans beside it.

    python tools/bench_assign.py                                        # the table of docs/benchmarks.md
    python tools/bench_assign.py --boxes 10 500 --batch 8 --classes 80 --step-ms 4700

Levels, anchors and candidates are those of YOLOv7 at 640 pixels; boxes and outputs are random. "loss" is the forward
pass, "gradient" that and the backward pass. Combinations that would take longer than --most-seconds are left out.
--step-ms: what a whole training step takes with 16 images, to tell the share of it (tools/bench_step.py measures it).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import yolov7_jax as yolo
from yolov7_jax.assign.candidates import candidates
from yolov7_jax.config import LossConfig
from yolov7_jax.contracts import LossSetup
from yolov7_jax.ops.decode import make_grid
from yolov7_jax.training.loss import detection_loss
from yolov7_jax.types import Array, Batch, Candidates, Grid, Outputs

SIZE = 640
SIDES = (0.01, 0.6)  # of a box, in sides of the image: log-uniform between
GRAPH = yolo.zoo("yolov7")


def random_case(count: int, classes: int, batch_size: int, config: LossConfig) -> tuple[Outputs, Batch]:
    """Outputs and boxes of a batch, all images with so many boxes."""
    rng = np.random.default_rng(0)
    least, most = np.log(SIDES)
    sides = SIZE * np.exp(rng.uniform(least, most, (batch_size, count, 2)))
    boxes = np.concatenate([rng.uniform(0, SIZE, (batch_size, count, 2)), sides], -1).astype(np.float32)
    valid = np.ones((batch_size, count), bool)
    find = partial(
        candidates,
        anchors=GRAPH.anchors,
        strides=GRAPH.strides,
        image_size=(SIZE, SIZE),
        anchor_t=config.anchor_t,
        neighbor_offset=config.neighbor_offset,
    )
    found = [find(one, ok)[0] for one, ok in zip(boxes, valid, strict=True)]
    batch = Batch(
        image=np.zeros((batch_size, 1, 1, 3), np.uint8),
        boxes_cxcywh_px=boxes,
        class_ids=rng.integers(0, classes, valid.shape, np.int32),
        valid=valid,
        fine=Candidates(*(np.stack(part) for part in zip(*found, strict=True))),
        coarse=None,
        overflow=np.zeros((batch_size, 2), np.int32),
        index=np.arange(batch_size, dtype=np.int32),
    )
    predictions = len(grid().stride)
    return Outputs(jnp.asarray(rng.normal(0, 1, (batch_size, predictions, 5 + classes)), jnp.float32)), batch


def grid() -> Grid:
    """Where the predictions live."""
    return make_grid(GRAPH.anchors, GRAPH.strides, (SIZE, SIZE))


def measured(program: Callable[..., Any], arguments: Any, repeats: int, most_seconds: float) -> tuple[float, float]:
    """Median milliseconds of a call, and megabytes beside arguments and results; of one call where it takes long."""
    compiled = jax.jit(program).lower(*arguments).compile()
    analysis = compiled.memory_analysis()
    seconds: list[float] = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > most_seconds / 2:
            break
    return 1000 * float(np.median(seconds[1:] or seconds)), analysis.temp_size_in_bytes / 2**20 if analysis else np.nan


def run_case(count: int, classes: int, batch_size: int, parsed: argparse.Namespace) -> float:
    """Prints the row of one combination; the milliseconds of its longer program."""
    config = LossConfig(assigner=parsed.assigner)

    of_batch = detection_loss(config, LossSetup(GRAPH.strides, classes, has_aux=False, size=SIZE))

    def loss(outputs: Outputs, batch: Batch) -> tuple[Array, Any]:
        found: tuple[Array, Any] = of_batch(outputs, batch, grid())
        return found

    arguments = jax.device_put(random_case(count, classes, batch_size, config))
    figures = [
        figure
        for program in (loss, jax.value_and_grad(loss, has_aux=True))
        for figure in measured(program, arguments, parsed.repeat, parsed.most_seconds)
    ]
    share = f" {100 * figures[2] / (parsed.step_ms / 16 * batch_size):.1f} % |" if parsed.step_ms else ""
    row = f"{figures[0]:.1f} | {figures[1]:.0f} | {figures[2]:.1f} | {figures[3]:.0f}"
    print(f"| {count} | {classes} | {batch_size} | {row} |{share}", flush=True)
    return figures[2]


def main() -> None:
    """Runs all combinations, those with few boxes first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, nargs="+", default=[1, 10, 100, 500, 2000], help="of an image")
    parser.add_argument("--classes", type=int, nargs="+", default=[80, 1000])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--assigner", choices=("ota", "simple"), default="ota")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--most-seconds", type=float, default=20.0, help="of a combination")
    parser.add_argument("--step-ms", type=float, default=0.0, help="a whole training step with 16 images")
    parsed = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}; {parsed.assigner}, {SIZE} px\n")
    share = " share of a step |" if parsed.step_ms else ""
    print(f"| boxes | classes | batch | loss ms | its MB | gradient ms | its MB |{share}")
    print(f"|---|---|---|---|---|---|---|{'---|' if share else ''}")
    for classes in parsed.classes:
        for batch_size in parsed.batch:
            least, took, before = 0.0, 0.0, 1
            for count in sorted(parsed.boxes):
                expected = least + (took - least) * (count / before) ** 2  # the rest is boxes times candidates
                if expected > 1000 * parsed.most_seconds:
                    print(f"| {count} | {classes} | {batch_size} | left out: about {expected / 1000:.0f} s |")
                    break
                took, before = run_case(count, classes, batch_size, parsed), count
                least = least or took


if __name__ == "__main__":
    main()

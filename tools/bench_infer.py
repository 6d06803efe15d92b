"""Times inference: milliseconds an image, compilation, memory, and the share of decoding and suppression.

    python tools/bench_infer.py                                   # the cases of docs/benchmarks.md
    python tools/bench_infer.py --cases yolov5s:4 --size 320 --dtype bfloat16

Each case runs in a process of its own. Times are medians. The ratio is to plain matrix products that make the same
number of operations on the same device, so that figures of different machines can be read side by side.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import yolov7_jax as yolo
from yolov7_jax.artefacts.program import candidates, suppress
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.nn.cpu import by_image
from yolov7_jax.nn.network import lead_outputs
from yolov7_jax.reparameterize import fold
from yolov7_jax.types import PaddedDetections

CASES = ("yolov7-tiny:1", "yolov7-tiny:8", "yolov7:1")
PRODUCT = 2048  # side of the matrices of the plain product


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call whose result is waited for."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def peak_mb() -> float:
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lively(variables: dict[str, Any]) -> dict[str, Any]:
    """Fresh weights with kernels of He's scale: untrained activations would else sink into slow denormal numbers."""

    def scaled(path: Any, leaf: jax.Array) -> jax.Array:
        return leaf * np.float32(np.sqrt(6)) if path[-1].key == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(scaled, variables)


def raw_outputs(graph: yolo.Graph, shape: tuple[int, ...], candidates: int, confidence: float) -> np.ndarray:
    """Random raw outputs [B, N, 5 + C] of which about so many entries pass the confidence in each image."""
    rng = np.random.default_rng(0)
    raw = rng.normal(-8, 1, shape).astype(np.float32)
    for image in raw:
        rows = rng.choice(shape[1], size=min(candidates, shape[1]), replace=False)
        image[rows, 4] = 4
        level = np.log(confidence / (1 - confidence))
        image[rows, 5 + rng.integers(0, graph.num_classes, len(rows))] = level + rng.uniform(0.2, 3, len(rows))
    return raw


def postprocess(
    graph: yolo.Graph, size: int, multi_label: bool, thresholds: dict[str, Any], raw: jax.Array
) -> PaddedDetections:
    """What follows the network."""
    return suppress(*candidates(graph, raw, image_size=(size, size)), **thresholds, multi_label=multi_label)


def run_case(case: str, size: int, dtype: str, repeats: int) -> None:
    """Prints the figures of one network and batch size."""
    name, batch = case.rsplit(":", 1)
    training = yolo.zoo(name)
    graph = inference_form(training)
    network = yolo.Network(graph, jnp.dtype(dtype))
    variables = jax.device_put(fold(training, lively(yolo.init(training, jax.random.key(0)))))
    images = jax.device_put(np.random.default_rng(0).uniform(0, 1, (int(batch), size, size, 3)).astype(np.float32))
    before = peak_mb()

    began = time.perf_counter()
    forward = jax.jit(lambda v, x: by_image(partial(lead_outputs, network, v), x)).lower(variables, images).compile()
    compiled = time.perf_counter() - began
    raw_shape = jax.block_until_ready(forward(variables, images)).shape
    first = peak_mb()
    network_ms = milliseconds(lambda: forward(variables, images), repeats)
    steady = peak_mb()

    after = []
    for passing, confidence, multi_label in ((100, 0.25, False), (5000, 0.001, True)):
        raw = jax.device_put(raw_outputs(graph, raw_shape, passing, confidence))
        mask = np.ones(graph.num_classes, bool)
        thresholds: dict[str, Any] = {"confidence": np.float32(confidence), "iou": np.float32(0.6), "class_mask": mask}
        finish = jax.jit(partial(by_image, partial(postprocess, graph, size, multi_label, thresholds)))
        after.append(milliseconds(partial(finish, raw), repeats))

    flops = int(batch) * yolo.summarize(graph, image_size=(size, size)).flops
    matrix = jnp.ones((PRODUCT, PRODUCT), jnp.dtype(dtype))
    multiply = jax.jit(lambda a: a @ a)
    product_ms = milliseconds(lambda: multiply(matrix), repeats) * flops / (2 * PRODUCT**3)
    share = [100 * ms / (ms + network_ms) for ms in after]
    print(
        f"| {name} | {batch} | {network_ms / int(batch):.1f} | {network_ms / product_ms:.2f} | {compiled:.1f} "
        f"| {first - before:.0f} | {steady - before:.0f} "
        f"| {after[0] / int(batch):.1f} ({share[0]:.0f} %) | {after[1] / int(batch):.1f} ({share[1]:.0f} %) |",
        flush=True,
    )


def main() -> None:
    """Runs the cases one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="NETWORK:BATCH")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=15)
    parsed = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), jax {jax.__version__}, {parsed.size} px, {parsed.dtype}\n")
    print(
        "| network | batch | ms an image | ratio to products | compile s | first call MB | steady MB "
        "| decode + NMS ms, 100 candidates | 5000 candidates |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for case in parsed.cases:
        process = multiprocessing.get_context("spawn").Process(
            target=run_case, args=(case, parsed.size, parsed.dtype, parsed.repeats)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()

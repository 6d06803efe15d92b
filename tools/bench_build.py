"""Times what stands before the first image: building graphs, finding the shapes of weights, compiling.

    python tools/bench_build.py                           # all networks of the zoo; the table of docs/benchmarks.md
    python tools/bench_build.py --networks yolov7 yolov7-e6e --size 640

One process, one network after another, with no compiled program kept from one to the next. Weights are never made:
programs are compiled for their shapes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import TypeVar

import jax
import jax.numpy as jnp

import yolov7_jax as yolo
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.nn.network import init, lead_outputs

T = TypeVar("T")

WARM_UP = "yolov5n"


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """The result of a call, and its seconds."""
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def seconds(name: str, size: int) -> tuple[float, ...]:
    """Of building the graph, shapes of weights, compiling inference, and the forward pass of training."""
    jax.clear_caches()
    graph, built = timed(lambda: yolo.zoo(name))
    variables, shaped = timed(lambda: jax.eval_shape(partial(init, graph), jax.random.key(0)))
    folded = inference_form(graph)
    folded_variables = jax.eval_shape(partial(init, folded), jax.random.key(0))
    side = ceil(size / graph.max_stride) * graph.max_stride
    image = jax.ShapeDtypeStruct((1, side, side, graph.channels), jnp.float32)
    inference = jax.jit(partial(lead_outputs, yolo.Network(folded)))
    training = jax.jit(partial(yolo.Network(graph).apply, train=True, mutable=["batch_stats"]))
    _, inference_compiled = timed(lambda: inference.lower(folded_variables, image).compile())
    _, training_compiled = timed(lambda: training.lower(variables, image).compile())
    return built, shaped, inference_compiled, training_compiled


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=yolo.zoo_names(), metavar="NAME")
    parser.add_argument("--size", type=int, default=128, help="side in pixels, raised to the next multiple of strides")
    parsed = parser.parse_args()
    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores, jax {jax.__version__}\n")
    print("| network | layers | graph ms | shapes of weights s | inference compiled s | training forward compiled s |")
    print("|---|---|---|---|---|---|")
    seconds(WARM_UP, parsed.size)
    for name in parsed.networks:
        built, *others = seconds(name, parsed.size)
        layers = len(yolo.zoo(name).nodes)
        print(f"| {name} | {layers} | {1000 * built:.0f} | {' | '.join(f'{s:.1f}' for s in others)} |", flush=True)


if __name__ == "__main__":
    main()

"""Converts networks of the zoo to ONNX or StableHLO and compares what comes out with JAX, at a small size.

    python tools/export_zoo.py                       # all of them as ONNX, the table of docs/export_zoo.md
    python tools/export_zoo.py yolov5n yolov7-tiny   # some
    python tools/export_zoo.py yolov5n --dtype float16
    python tools/export_zoo.py --format stablehlo

Prints a row of Markdown for each. ONNX: the worst difference of boxes (pixels) and of scores before non-maximum
suppression, each relative to the largest; how far apart they lie (standard deviations); and the file. StableHLO: how
many detections there are, and the largest difference of all that comes out. Weights are random, with statistics of
batch normalization taken from the images, so that outputs are spread as those of a trained network.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import time
from collections import Counter
from functools import partial
from math import sqrt
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

import yolov7_jax as yolo
from yolov7_jax.artefacts import stablehlo
from yolov7_jax.artefacts.onnx_engine import OnnxEngine
from yolov7_jax.artefacts.onnx_model import onnx_model
from yolov7_jax.artefacts.program import CAPACITY, detect_batch, predict
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.nn.network import Network, abstract_variables
from yolov7_jax.reparameterize import fold

MOMENTUM = 0.97  # of the running statistics: what a step leaves of the old
QUICK_TO_COMPILE: Any = {"xla_backend_optimization_level": 0}  # each program runs once
LIMIT = 1e-4
"""Relative differences beyond it are no rounding of float32."""


class Row(NamedTuple):
    """What is known of one network; see the heading."""

    boxes: float
    scores: float
    spread_boxes: float
    spread_scores: float
    operators: int
    transposes: int
    seconds: float
    megabytes: float


def spread(graph: yolo.Graph, *, seed: int = 0, size: int | None = None) -> Weights:
    """Random weights whose outputs differ from place to place; statistics are those of some noise."""
    rng = np.random.default_rng(seed)
    variables = jax.tree_util.tree_map_with_path(partial(_draw, rng), abstract_variables(graph))
    side = size or 2 * graph.max_stride
    images = noise_images(2, side, side).astype(np.float32) / 255
    step = partial(Network(graph).apply, train=True, mutable=["batch_stats"])
    outputs: Any = jax.jit(step, compiler_options=QUICK_TO_COMPILE)(variables, images)
    taken = jax.tree.map(lambda leaf: np.asarray(leaf) / np.float32(1 - MOMENTUM), outputs[1].get("batch_stats", {}))
    stats = _settled(rng, taken)
    return Weights(graph, {**variables, "batch_stats": stats}, tuple(map(str, range(graph.num_classes))))


def _draw(rng: np.random.Generator, path: Any, leaf: Any) -> NDArray[np.float32]:
    """A weight. Kernels do not see the mean of their channels, which would grow from layer to layer."""
    key, shape = path[-1].key, leaf.shape
    if key in ("mean", "var"):
        return np.zeros(shape, np.float32)  # what a step of training adds is all there will be
    if key == "kernel":
        values = rng.normal(0, sqrt(2 / np.prod(shape[:-1])), shape)
        return (values - values.mean(axis=-2, keepdims=True) if shape[-2] > 1 else values).astype(np.float32)
    around_one = key == "scale" or (key == "implicit" and "im" in [part.key for part in path])
    return rng.normal(around_one, 0.5 if key == "bias" else 0.2, shape).astype(np.float32)


def _settled(rng: np.random.Generator, stats: Any) -> Any:
    """Statistics with which maps have about variance 1, one for all channels of a layer, and means of small size.

    With those of each channel a random network blows up roundings ten thousand times.
    """
    if "var" not in stats:
        return {name: _settled(rng, part) for name, part in stats.items()}
    moment = np.mean(stats["var"] + np.square(stats["mean"]))
    mean = rng.normal(0, 0.1, stats["mean"].shape) * np.sqrt(moment)
    return {"mean": np.float32(mean), "var": np.full(mean.shape, moment, np.float32)}


def noise_images(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Images of noise in patches of several sizes."""
    rng = np.random.default_rng(0)
    patches = [
        np.kron(rng.integers(0, 256, (count, height // side, width // side, 3)), np.ones((1, side, side, 1)))
        for side in (1, 4, 16)
    ]
    return np.mean(patches, axis=0).astype(np.uint8)


def predictions(weights: Weights, images: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What JAX computes from folded weights, as `OnnxEngine.predictions`."""
    network = Network(inference_form(weights.graph))
    run = jax.jit(partial(predict, network), compiler_options=QUICK_TO_COMPILE)
    boxes, scores = run(fold(weights.graph, weights.variables), images)
    return np.asarray(boxes), np.asarray(scores)


def relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, over the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def compare(weights: Weights, *, size: int, dtype: Any = "float32", batch: int = 2) -> Row:
    """Exports a network and runs both."""
    began = time.perf_counter()
    model = onnx_model(weights, size=(size, size), dtype=dtype)
    seconds = time.perf_counter() - began
    program = model.SerializeToString()
    engine = OnnxEngine(program)
    images = noise_images(batch, size, size)
    found, expected = engine.predictions(images), predictions(weights, images)
    operators = Counter(node.op_type for node in model.graph.node)
    boxes, scores = (relative(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    spreads = float(expected[0].std()), float(expected[1].std())
    return Row(boxes, scores, *spreads, operators.total(), operators["Transpose"], seconds, len(program) / 1e6)


class Detected(NamedTuple):
    """What is known of one network as StableHLO; see the heading."""

    detections: int
    difference: float
    seconds: float
    megabytes: float


def compare_stablehlo(weights: Weights, *, size: int, batch: int = 2) -> Detected:
    """Exports a network and runs it, and `detect_batch`, on the same images."""
    began = time.perf_counter()
    program = stablehlo.make(weights, (size, size)).program
    seconds = time.perf_counter() - began
    network = Network(inference_form(weights.graph))
    everything = np.ones(len(weights.names), bool)
    given = noise_images(batch, size, size), np.float32(0.001), np.float32(0.65), everything
    kind = np.bool_(True), np.bool_(False), np.int32(CAPACITY)

    def detect(variables: Any, *given: Any) -> Any:
        return detect_batch(network, variables, *given, multi_label=True, max_detections=CAPACITY)

    quickly = partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
    ours = quickly(detect)(fold(weights.graph, weights.variables), *given)
    theirs = quickly(jax.export.deserialize(bytearray(program)).call)(*given, *kind)
    pairs = ((ours.boxes_xyxy_px, "boxes"), (ours.scores, "scores"), (ours.class_ids, "classes"))
    difference = max(float(np.abs(np.asarray(here) - np.asarray(theirs[name])).max()) for here, name in pairs)
    number = int(ours.valid.sum())
    if number != int(theirs["counts"].sum()):
        difference = float("inf")
    return Detected(number, difference, seconds, len(program) / 1e6)


HEADINGS = {
    "onnx": "boxes, worst relative | scores, worst relative | spread of boxes, px | of scores | operators | transposes",
    "stablehlo": "detections | largest difference",
}


def cells(weights: Weights, size: int, parsed: argparse.Namespace) -> tuple[str, float]:
    """The row of a network, and its worst difference."""
    if parsed.format == "stablehlo":
        found = compare_stablehlo(weights, size=size)
        text = f"{found.detections} | {found.difference:.2g} | {found.seconds:.1f} | {found.megabytes:.1f}"
        return text, found.difference
    row = compare(weights, size=size, dtype=parsed.dtype)
    text = f"{row.boxes:.1e} | {row.scores:.1e} | {row.spread_boxes:.0f} | {row.spread_scores:.2f}"
    text += f" | {row.operators} | {row.transposes} | {row.seconds:.1f} | {row.megabytes:.1f}"
    return text, max(row.boxes, row.scores)


def main() -> int:
    """Prints the table; 1 if a network differs by more than rounding: in float32 as ONNX, at all as StableHLO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=yolo.zoo_names(), metavar="NETWORK")
    parser.add_argument("--size", type=int, help="side in pixels; twice the largest stride by default")
    parser.add_argument("--format", default="onnx", choices=tuple(HEADINGS))
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of ONNX")
    parsed = parser.parse_args()
    packages = {"onnx": ("jax", "onnx", "onnxruntime"), "stablehlo": ("jax",)}[parsed.format]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{datetime.date.today()}, {versions}, {parsed.dtype}\n")
    heading = f"| network | px | {HEADINGS[parsed.format]} | seconds to convert | MB |"
    print(heading, "|---" * (heading.count("|") - 1) + "|", sep="\n")
    worst = 0.0
    for name in parsed.networks:
        graph = yolo.zoo(name)
        size = parsed.size or 2 * graph.max_stride
        text, difference = cells(spread(graph, size=size), size, parsed)
        worst = max(worst, difference)
        print(f"| {name} | {size} | {text} |", flush=True)
        jax.clear_caches()  # programs of all networks would take 20 GB
    print(f"\n{len(parsed.networks)} networks, worst difference {worst:.1e}")
    limit = 0.0 if parsed.format == "stablehlo" else LIMIT if parsed.dtype == "float32" else float("inf")
    return int(not worst <= limit)


if __name__ == "__main__":
    raise SystemExit(main())

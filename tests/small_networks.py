"""A network small enough to compile at once, and images for it."""

from typing import Any

import jax
import numpy as np

from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.spec import IMAGE
from yolov7_jax.nn.network import init


def small_weights(num_classes: int = 3) -> Weights:
    """A network with one level whose objectness is high everywhere, so that there is always something to find."""
    b = Builder()
    x = b.add("Conv", b.add("Conv", IMAGE, 8, 3, 2), 8, 3, 4)
    b.add("Detect", [x])
    graph = b.build(anchors=(((10, 13), (33, 23)),), num_classes=num_classes)
    variables: dict[str, Any] = jax.tree.map(np.asarray, init(graph, jax.random.key(0)))
    bias = np.tile(np.float32([0, 0, 0, 0, 2] + [1 - 0.5 * i for i in range(num_classes)]), 2)
    variables["params"]["2"]["m"]["0"]["bias"] = bias
    variables["params"]["2"]["m"]["0"]["kernel"] = variables["params"]["2"]["m"]["0"]["kernel"] * np.float32(3)
    return Weights(graph, variables, ("ant", "bee", "cat")[:num_classes], {"input_size": 64})


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)

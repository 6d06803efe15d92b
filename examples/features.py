"""Feature maps of layers by name or tag, for transfer, probing or distillation.

    python examples/features.py

Expect three shapes [B, H, W, c] in seconds: the strides 8, 16 and 32 of YOLOv7-tiny on an image of 256 × 256.
"""

import jax
import numpy as np

import yolov7_jax as yolo


def main() -> None:
    """Prints the shapes of what the detect layer reads."""
    graph = yolo.zoo("yolov7-tiny")
    network = yolo.Network(graph)
    variables = yolo.init(graph, jax.random.key(0))  # or yolo.load("best.safetensors").variables
    images = np.random.default_rng(0).uniform(0, 1, (1, 256, 256, 3)).astype(np.float32)
    names = {node.name: f"layer {node.name} ({node.op}, {node.tag or 'no tag'})" for node in graph}
    for name, feature in yolo.features(network, variables, images, graph.detect.lead).items():
        print(names[name], feature.shape)


if __name__ == "__main__":
    main()

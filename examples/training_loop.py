"""A training loop of one's own: the parts of a step, a loader, any optax optimizer, and a plain `for`.

    python examples/training_loop.py             # draws scenes, trains a small network on them for 24 steps

Prints the loss as it goes, saves averaged weights, and detects with them.
"""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import yolov7_jax as yolo


def optimizer(now: yolo.Rates, _labels: Any, _config: Any) -> optax.GradientTransformation:
    """Any optax transformation; `now` has the learning rates of the step."""
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adabelief(now.weight))


def main(folder: Path, steps: int = 24) -> None:
    """Trains, saves and detects in a folder."""
    data = yolo.write_scenes(folder / "scenes", train=32, val=8, size=96)
    source = yolo.open_source(data, "train")
    settings = [f"data.path={data}", "train.size=96", "optim.lr0=0.002", "data.workers=0"]
    config = yolo.read_config("debug", settings)

    graph = yolo.parse(Path(__file__).parent / "small_network.yaml", num_classes=len(source.names))
    network = yolo.Network(graph)
    loader = yolo.Loader(yolo.training_pipeline(config, graph, source), workers=0)
    schedule = yolo.Schedule(config.optim, steps_per_epoch=4, epochs=6, batch_size=config.train.batch_size)

    parts = (network, yolo.loss_of(config, graph), optimizer, schedule)
    step = yolo.make_step(*parts)  # compiled over all devices
    state = yolo.init_state(*parts, yolo.init(graph, jax.random.key(0)))
    mesh = yolo.data_mesh()
    with closing(loader.batches()) as batches:
        for number, batch in zip(range(1, steps + 1), batches, strict=False):
            state, metrics = step(state, yolo.shard_batch(batch, mesh))
            if number % 4 == 0:
                print(f"step {number}: loss {float(metrics['total']):.3f}, positives {int(metrics['positives'])}")

    weights = yolo.Weights(graph, jax.tree.map(np.asarray, state.ema), source.names)
    yolo.save(folder / "mine.safetensors", weights)
    found = yolo.Detector.load(folder / "mine.safetensors", size=96)([source[0].image], confidence=0.01)[0]
    print(f"training_loop: {len(found)} detections in the first image, with {folder / 'mine.safetensors'}")


if __name__ == "__main__":
    main(Path(tempfile.mkdtemp()))

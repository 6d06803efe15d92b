"""Eight seeds of a small network trained in one program by `vmap`, equal to eight separate runs to float rounding.

    python examples/seeds.py                     # draws scenes, trains 8 networks at once and one by one, compares

`pure_step` is the step before it is compiled: a function of (state, batch), to which any transformation of JAX applies.
"""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import yolov7_jax as yolo

SEEDS, STEPS = 8, 3


def main(folder: Path) -> None:
    """Trains in a folder, and prints how far the two ways are apart."""
    data = yolo.write_scenes(folder / "scenes", train=16, val=1, size=96)
    source = yolo.open_source(data, "train")
    settings = [f"data.path={data}", "train.size=96", "optim.nominal_batch_size=8", "optim.lr0=0.001"]
    config = yolo.read_config("debug", settings)
    graph = yolo.parse(Path(__file__).parent / "small_network.yaml", num_classes=len(source.names))
    schedule = yolo.Schedule(config.optim, steps_per_epoch=2, epochs=2, batch_size=config.train.batch_size)
    parts = (yolo.Network(graph), yolo.loss_of(config, graph), yolo.make_optimizer(config.optim), schedule)

    with closing(yolo.Loader(yolo.training_pipeline(config, graph, source), workers=0).batches()) as made:
        batches = [batch for batch, _ in zip(made, range(STEPS), strict=False)]
    one = yolo.data_mesh(jax.devices()[:1])
    starts = [yolo.init_state(*parts, yolo.init(graph, jax.random.key(seed)), mesh=one) for seed in range(SEEDS)]

    step = yolo.pure_step(*parts)
    together: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)  # [SEEDS, ...]
    all_seeds = jax.jit(jax.vmap(step, in_axes=(0, None)))
    for batch in batches:
        together, metrics = all_seeds(together, batch)

    alone = jax.jit(step)
    for seed, state in enumerate(starts):
        for batch in batches:
            state, _ = alone(state, batch)
        jax.tree.map(
            lambda own, all_of_them, seed=seed: np.testing.assert_allclose(
                all_of_them[seed], own, rtol=1e-3, atol=1e-4
            ),
            state.params,
            together.params,
        )
    losses = ", ".join(f"{float(loss):.3f}" for loss in metrics["total"])
    print(f"seeds: {SEEDS} networks in one program, equal to {SEEDS} runs; losses {losses}")


if __name__ == "__main__":
    main(Path(tempfile.mkdtemp()))

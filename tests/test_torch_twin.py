"""tools/torch_twin.py computes what the networks compute, in inference and in training, with their gradients."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import yolov7_jax as yolo
from yolov7_jax.graph.rewrite import inference_form, with_width
from yolov7_jax.reparameterize import fold

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed, which the tool measures beside: pip install torch"
)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from bench_infer import lively  # noqa: E402
from torch_twin import twin_of  # noqa: E402

SINGLE, DOUBLE = 2e-4, 1e-9  # of the largest output: roundings of float32 and of float64 through up to 120 layers
NETWORKS = (("yolov7-tiny", 64), ("yolov7", 64), ("yolov7-w6", 128), ("yolov5n", 64), ("yolov5s-v3", 64))


def case(name: str, size: int) -> tuple[yolo.Graph, Any, np.ndarray]:
    graph = with_width(yolo.zoo(name, num_classes=3), 0.25)
    variables = jax.tree.map(np.asarray, lively(yolo.init(graph, jax.random.key(0))))
    rng = np.random.default_rng(0)
    stats = variables["batch_stats"]
    variables["batch_stats"] = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), stats)
    return graph, variables, rng.uniform(0, 1, (2, size, size, 3)).astype(np.float32)


def assert_near(ours: Any, theirs: Any, tolerance: float) -> None:
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(ours).max()


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_inference(name: str, size: int) -> None:
    graph, variables, images = case(name, size)
    folded = inference_form(graph)
    variables = fold(graph, variables)
    with torch.inference_mode():
        theirs = twin_of(folded, variables).eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    outputs: Any = jax.jit(yolo.Network(folded).apply)(variables, images)
    assert_near(outputs.lead, theirs[0], SINGLE)


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_training(name: str, size: int) -> None:
    """In float64: batch statistics of few pixels make more of roundings than all else."""
    graph, *rest = case(name, size)
    variables, images = jax.tree.map(lambda x: np.asarray(x, np.float64), rest)

    def loss(params: Any, stats: Any) -> Any:
        network = yolo.Network(graph, jnp.float64)
        found, changed = network.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        raw = [x for x in (found.lead, found.aux) if x is not None]
        return sum(jnp.square(x).mean() for x in raw), (raw, changed["batch_stats"])

    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss, has_aux=True))
        gradients, (ours, stats) = jax.device_get(gradient(variables["params"], variables["batch_stats"]))
    twin = twin_of(graph, variables).double().train()
    theirs = twin(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    sum(x.square().mean() for x in theirs).backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert_near(mine, other, DOUBLE)
    norm = torch.sqrt(sum(p.grad.square().sum() for p in twin.parameters()))
    np.testing.assert_allclose(float(norm), float(optax.tree.norm(gradients)), rtol=1e-6)  # a norm is summed in float32
    running = sum(float(b.sum()) for n, b in twin.named_buffers() if n.endswith(("running_mean", "running_var")))
    np.testing.assert_allclose(running, sum(float(x.sum()) for x in jax.tree.leaves(stats)), rtol=1e-6)

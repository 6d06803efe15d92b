"""A box loss of one's own: Wise-IoU v1 (arXiv:2301.10051, equations 6 and 7).

    python examples/wise_iou.py                  # draws scenes, trains a small network on them, prints its AP

From the command line, in this folder:

    yolov7-jax --import wise_iou train debug loss.name=wise_iou data.path=mine.yaml
"""

import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax import lax

import yolov7_jax as yolo
from yolov7_jax.ops.iou import bbox_iou


def wise_iou_v1(predicted_cxcywh: Any, truth_cxcywh: Any) -> tuple[Any, Any]:
    """R · (1 - IoU) and the objectness target IoU, both [...], of boxes [..., 4].

    R = exp(squared distance of the centers / squared diagonal of the enclosing box), whose size carries no gradient.
    """
    iou = bbox_iou(predicted_cxcywh, truth_cxcywh, iou_type="iou")
    offset = predicted_cxcywh[..., :2] - truth_cxcywh[..., :2]
    size, other = predicted_cxcywh[..., 2:], truth_cxcywh[..., 2:]
    enclosing = jnp.maximum(jnp.maximum(size, other), (size + other) / 2 + jnp.abs(offset))  # [..., 2]
    diagonal = lax.stop_gradient(jnp.square(enclosing).sum(-1))
    focus = jnp.exp(jnp.square(offset).sum(-1) / (diagonal + 1e-7))
    return focus * (1 - iou), iou


@yolo.register_loss("wise_iou")
def wise_iou(config: Any, setup: yolo.LossSetup) -> yolo.LossFn:
    """The loss of the package with this box loss in it: assignment, objectness and classes stay as they are."""
    return yolo.detection_loss(config, setup, box_loss=wise_iou_v1)


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    data = yolo.write_scenes(folder / "scenes", train=32, val=8, size=96)
    network = Path(__file__).parent / "small_network.yaml"
    settings = [f"data.path={data}", f"model.name={network}", "train.size=96", "loss.name=wise_iou"]
    run = yolo.train(yolo.read_config("debug", settings), folder / "run")
    print(f"wise_iou: {run.step} steps, best fitness {run.best_score:.3f}, in {run.folder}")

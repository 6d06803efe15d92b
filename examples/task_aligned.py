"""An assigner of one's own: task alignment learning (TOOD, arXiv:2108.07755, section 3.3).

    python examples/task_aligned.py              # draws scenes, trains a small network on them, prints its AP

From the command line, in this folder, with a number of its own:

    yolov7-jax --import task_aligned train debug loss.assigner='task_aligned(top_k=9)' data.path=mine.yaml
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax import lax

import yolov7_jax as yolo
from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.ops.iou import pairwise_iou


@dataclass(frozen=True)
class TaskAligned:
    """Assigns to each box the predictions of largest t = score^alpha · IoU^beta whose cells' centers lie in it."""

    top_k: int = 13
    alpha: float = 1.0
    beta: float = 6.0

    def __call__(
        self,
        raw: Any,  # [N, 5 + C]
        boxes_cxcywh_px: Any,  # [M, 4]
        class_ids: Any,  # [M]
        valid: Any,  # [M]
        _candidates: yolo.Candidates,  # every prediction may become a positive
        grid: yolo.Grid,
    ) -> yolo.Assignment:
        """The assignment of one image, P = M · top_k."""
        predicted = yolo.decode(lax.stop_gradient(raw), grid)  # [N, 5 + C]
        iou = pairwise_iou(cxcywh_to_xyxy(boxes_cxcywh_px), cxcywh_to_xyxy(predicted[:, :4]))  # [M, N]
        score = (predicted[:, 4:5] * predicted[:, 5:]).T[class_ids]  # [M, N]
        center_px = (grid.cell + 0.5) * grid.stride[:, None]  # [N, 2]
        offset = jnp.abs(center_px[None] - boxes_cxcywh_px[:, None, :2])  # [M, N, 2]
        inside = (offset < boxes_cxcywh_px[:, None, 2:] / 2).all(-1) & valid[:, None]
        alignment, index = lax.top_k(jnp.where(inside, score**self.alpha * iou**self.beta, 0), self.top_k)  # [M, K]
        box = jnp.arange(len(valid), dtype=jnp.int32)[:, None]  # [M, 1]
        # A prediction that several boxes take goes to the one it overlaps most.
        taken = jnp.full_like(iou, -1).at[box, index].set(jnp.where(alignment > 0, iou[box, index], -1))
        positive = (alignment > 0) & (taken.argmax(0)[index] == box)
        truth = jnp.broadcast_to(box, index.shape)
        return yolo.Assignment(index.reshape(-1), truth.reshape(-1), positive.reshape(-1))


@yolo.register_assigner("task_aligned")
def task_aligned(_: Any, **options: Any) -> TaskAligned:
    """The assigner that loss.assigner names; settings of the loss are not used."""
    return TaskAligned(**options)


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    data = yolo.write_scenes(folder / "scenes", train=32, val=8, size=96)
    network = Path(__file__).parent / "small_network.yaml"
    settings = [f"data.path={data}", f"model.name={network}", "train.size=96", "loss.assigner=task_aligned(top_k=9)"]
    run = yolo.train(yolo.read_config("debug", settings), folder / "run")
    print(f"task_aligned: {run.step} steps, best fitness {run.best_score:.3f}, in {run.folder}")

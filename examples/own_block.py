"""A block of one's own: named in a model file, trained, folded, written for PyTorch and read again.

    python examples/own_block.py

Half a minute on a CPU. Expect two lines: folding changes outputs by less than 1e-5, the file holds the same weights.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import yolov7_jax as yolo
from yolov7_jax.nn.conv import Conv, Conv2d, Form
from yolov7_jax.nn.rep import RepConv

MODEL = """
nc: 5
anchors: [[12, 12, 24, 24]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, SqueezeELAN, [16]]          # arguments: fields of the class
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 2, SqueezeELAN, [24, {ratio: 0.5}]]
head:
  - [[4], 1, Detect, [nc, anchors]]
"""


@yolo.register_layer("SqueezeELAN")
class SqueezeELAN(nn.Module):
    """An ELAN of two RepConvs whose channels are weighted by squeeze and excitation."""

    channels: int
    ratio: float = 0.25
    activation: str = "SiLU"
    form: Form = Form()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[B, H, W, c1] → [B, H, W, channels]."""
        common: dict[str, Any] = {"activation": self.activation, "form": self.form}
        half = self.channels // 2
        past = Conv(half, name="cv1", **common)(x, train=train)
        links = [Conv(half, name="cv2", **common)(x, train=train)]  # [B, H, W, half]
        for name in ("cv3", "cv4"):
            links.append(RepConv(half, name=name, **common)(links[-1], train=train))
        y = Conv(self.channels, name="cv5", **common)(jnp.concatenate([*links, past], -1), train=train)
        mean = y.mean((1, 2), keepdims=True)  # [B, 1, 1, channels]
        squeezed = nn.silu(Conv2d(int(self.ratio * self.channels), use_bias=True, form=self.form, name="fc1")(mean))
        return y * nn.sigmoid(Conv2d(self.channels, use_bias=True, form=self.form, name="fc2")(squeezed))


def main(folder: Path) -> None:
    """Trains, folds, saves and loads."""
    (folder / "model.yaml").write_text(MODEL)
    data = yolo.write_scenes(folder / "data", train=32, val=8, size=64)
    settings = [f"model.name={folder / 'model.yaml'}", "model.width=1", f"data.path={data}", "train.size=64"]
    weights = yolo.load(yolo.train(yolo.read_config("debug", settings), folder / "run").folder)
    graph, variables = yolo.reparam(weights.graph, weights.variables)
    image = np.full((1, 64, 64, 3), 0.5, np.float32)
    before: Any = yolo.Network(weights.graph).apply(weights.variables, image)
    after: Any = yolo.Network(graph).apply(variables, image)
    print(f"folding changed outputs by at most {np.abs(before.lead - after.lead).max():.1e}")
    yolo.save(folder / "own.safetensors", replace(weights, graph=graph, variables=variables), naming="torch")
    back = yolo.load(folder / "own.safetensors")
    jax.tree.map(np.testing.assert_array_equal, back.variables, variables)
    print(f"own.safetensors: {len(jax.tree.leaves(back.variables))} tensors by PyTorch's names, read back equal")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))

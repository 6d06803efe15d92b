"""A data set, a network and settings with which a whole run takes a second; as a script it trains in a folder.

python small_run.py FOLDER trains in FOLDER/run, or resumes the run that is there, and prints a line for each step.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolov7_jax.config import Config
from yolov7_jax.config_file import make_config
from yolov7_jax.image import write_image

MODEL = """
nc: 2
anchors: [[8, 8, 16, 16], [24, 24, 40, 40]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[2, 3], 1, Detect, [nc, anchors]]
"""


def write_data(folder: Path, *, images: int = 10, size: int = 64) -> Path:
    """Bright (red) and dark (blue) squares on noise: the same images for training and validation."""
    rng = np.random.default_rng(0)
    for number in range(images):
        image = rng.integers(90, 130, (size, size, 3), np.uint8)
        lines = []
        for class_id, color in enumerate(([220, 30, 30], [30, 30, 220])):
            side = int(rng.integers(12, 28))
            left, top = (int(at) for at in rng.integers(0, size - side, 2))
            image[top : top + side, left : left + side] = color
            box = [(left + side / 2) / size, (top + side / 2) / size, side / size, side / size]
            lines.append(" ".join(map(str, [class_id, *box])))
        write_image(folder / "images" / f"{number}.png", image)
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines))
    (folder / "model.yaml").write_text(MODEL)
    data = folder / "data.yaml"
    data.write_text("train: images\nval: images\nnames: [bright, dark]\n")
    return data


def small_config(data_yaml: Path, /, **sections: Mapping[str, Any]) -> Config:
    """Twelve iterations: four epochs of three steps with four images each, and an evaluation after every second."""
    settings: dict[str, dict[str, Any]] = {
        "model": {"name": str(data_yaml.parent / "model.yaml")},
        "data": {"path": str(data_yaml), "workers": 1, "max_boxes": 16, "mosaic_window": 4},
        "optim": {"nominal_batch_size": 8, "warmup_epochs": 1.0, "warmup_min_steps": 0, "ema_ramp": 4.0},
        "train": {"epochs": 4, "batch_size": 4, "size": 64, "val_every_epochs": 2, "val_loss": False, "figures": False},
        "val": {"batch_size": 2},
    }
    for section, values in sections.items():
        settings[section] = {**settings.get(section, {}), **values}
    return make_config(settings, where="test")


class Printer:
    """Prints the number of each step."""

    def on_step(self, step: int, _steps: int, _metrics: Mapping[str, float]) -> None:
        print("step", step, flush=True)

    def on_evaluation(self, _row: Mapping[str, Any], *, best: bool) -> None:
        print("evaluated", best, flush=True)

    def log(self, _text: str) -> None:
        pass


if __name__ == "__main__":
    from yolov7_jax.experiment import resume, train

    home = Path(sys.argv[1])
    drawn = {"figures": True, "loggers": ["tensorboard"]}
    long = {"epochs": 8, "val_every_epochs": 3, "checkpoint_every_steps": 2, **drawn}
    if (home / "run" / "config.yaml").is_file():
        resume(home / "run", callbacks=[Printer()])
    else:
        train(small_config(home / "data.yaml", train=long), home / "run", callbacks=[Printer()])
    print("done", flush=True)

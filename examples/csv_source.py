"""A data source of one's own: boxes from a CSV file.

python examples/csv_source.py

Draws scenes, writes their boxes into CSV files, registers the format "csv", and trains a small network for two epochs.
After some seconds on a CPU it prints how many steps it trained, on which file, and where the run is.
"""

import csv
import tempfile
from pathlib import Path

import numpy as np

import yolov7_jax as yolo
from yolov7_jax.datasets.image_files import image_size
from yolov7_jax.demo.scenes import SCENE_NAMES
from yolov7_jax.image import read_image

NETWORK = """
nc: 8
anchors: [[8, 8, 16, 16], [24, 24, 40, 40]]
backbone: [[-1, 1, Conv, [8, 3, 4]], [-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [16, 3, 2]]]
head: [[[1, 2], 1, Detect, [nc, anchors]]]
"""


class CsvSource:
    """Rows `file,x1,y1,x2,y2,class` in pixels; files are relative to the CSV file. It satisfies `Source`."""

    def __init__(self, file: Path) -> None:
        self.rows: dict[Path, list[list[str]]] = {}
        with file.open(newline="") as lines:
            for name, *row in csv.reader(lines):
                self.rows.setdefault(file.parent / name, []).append(row)
        self.files = list(self.rows)
        self.names = tuple(sorted({row[4] for rows in self.rows.values() for row in rows}))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> yolo.Sample:
        labels = self.labels(index)
        return yolo.Sample(read_image(self.files[index]), labels.boxes_xyxy_px.astype(np.float32), labels.class_ids)

    def labels(self, index: int) -> yolo.Labels:
        rows = self.rows[self.files[index]]
        class_ids = np.array([self.names.index(row[4]) for row in rows], np.int32)
        boxes_xyxy_px = np.array([row[:4] for row in rows], np.float64).reshape(-1, 4)
        return yolo.Labels(size=image_size(self.files[index]), class_ids=class_ids, boxes_xyxy_px=boxes_xyxy_px)


@yolo.register_source("csv")
def open_csv(place: str, split: str, *, on_error: str) -> CsvSource:
    """One file is one split here, and any wrong row stops."""
    return CsvSource(Path(place))


def write_csv(folder: Path, split: str) -> Path:
    """The boxes of drawn scenes as a CSV file."""
    scenes = yolo.open_source(yolo.write_scenes(folder / split, train=16, val=8, size=96), split)
    file = folder / f"{split}.csv"
    with file.open("w", newline="") as lines:
        for index, sample in enumerate(scenes[at] for at in range(len(scenes))):
            for box, class_id in zip(sample.boxes_xyxy_px.tolist(), sample.class_ids.tolist(), strict=True):
                csv.writer(lines).writerow([scenes.path(index).relative_to(folder), *box, SCENE_NAMES[class_id]])
    return file


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp())
    train, val = (f"csv:{write_csv(home, split)}" for split in ("train", "val"))
    (home / "network.yaml").write_text(NETWORK)
    data = [f"data.path={train}", f"data.val_path={val}"]
    settings = [f"model.name={home / 'network.yaml'}", "model.width=1", "train.size=64"]
    run = yolo.train(yolo.read_config("debug", data + settings), home / "run")
    print(f"{run.step} steps on {train}: see {run.folder}")

"""A transform of training samples of one's own: rows shifted in waves by scipy.ndimage, boxes and polygons with them.

    python examples/wave_transform.py            # draws scenes, and training samples of them in waves

From the command line, in this folder, with numbers of its own:

    yolov7-jax --import wave_transform train debug augment.transforms='["wave(most=6)"]' data.path=mine.yaml
    yolov7-jax --import wave_transform data show debug augment.transforms=[wave] data.path=mine.yaml
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import yolov7_jax as yolo


@yolo.register_transform("wave")
def wave(rng: np.random.Generator, sample: yolo.Sample, *, most: float = 8, length: float = 100) -> yolo.Sample:
    """Shifts what is at height y to the right by a · sin(2π (y / length + phase)), in pixels, |a| up to `most`."""
    amplitude, phase = rng.uniform(-most, most), rng.random()

    def shift(y: Any) -> Any:
        return amplitude * np.sin(2 * np.pi * (y / length + phase))

    height, width = sample.image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5  # centers of pixels, whose edges boxes count
    places = np.stack([y, x - shift(y)]) - 0.5  # where each pixel comes from; SciPy counts from centers
    channels = [ndimage.map_coordinates(sample.image[..., at], places, order=1, mode="nearest") for at in range(3)]
    boxes = sample.boxes_xyxy_px.copy()
    for box in boxes:
        shifts = shift(np.linspace(box[1], box[3], 64))  # of the rows of the object
        box[[0, 2]] += shifts.min(), shifts.max()
    points = sample.polygons.points_xy_px.copy()
    points[:, 0] += shift(points[:, 1])
    return sample._replace(
        image=np.stack(channels, axis=-1),
        boxes_xyxy_px=boxes,
        polygons=sample.polygons._replace(points_xy_px=points),
    )


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    data = yolo.write_scenes(folder / "scenes", train=32, val=8, size=96)
    network = Path(__file__).parent / "small_network.yaml"
    settings = [f"data.path={data}", f"model.name={network}", "train.size=96", 'augment.transforms=["wave(most=6)"]']
    sheets = yolo.show_samples(yolo.read_config("debug", settings), folder / "samples")
    print(f"wave: see the samples in {sheets[0]}")

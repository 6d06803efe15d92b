"""How quick detection is from end to end: a folder of images, a video, and the first run of mixed images.

    python tools/bench_detect.py yolov5n.pt PHOTOGRAPHS [--images 1000] [--frames 300]

PHOTOGRAPHS is a folder of images of many shapes. It prints, as rows of a table, images a second of the network with
non-maximum suppression alone (images that are letterboxed already, one after another) and of whole runs: read, detected
in, drawn, written. Both go in turn, round by round; the ratio is the median of the rounds'. The first run of mixed
images is timed in a process of its own without kept programs, with few shapes and with each image's own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np

import yolov7_jax as yolo
from yolov7_jax.data.letterbox import letterbox, rectangle
from yolov7_jax.image import cv2, read_image
from yolov7_jax.inference.image_paths import find_images

STATIC = {"multi_label": False, "agnostic": False, "max_detections": 300, "augment": False}
MIXED = 24  # images of the first run
FIRST_RUN = """
import sys, time
began = time.perf_counter()
import yolov7_jax as yolo
weights, few, *images = sys.argv[1:]
found = yolo.Detector.load(weights)(images, few_shapes=few == "few")
print(time.perf_counter() - began)
"""


def per_second(work: Callable[[], int]) -> float:
    """How many of what it counts some work does in a second."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def network_alone(detector: yolo.Detector, images: Sequence[np.ndarray]) -> Callable[[], int]:
    """Detects in letterboxed images, each on the device before the next one is given."""
    numbers = np.float32(0.25), np.float32(0.45), np.ones(len(detector.names), bool)

    def work() -> int:
        for image in images:
            np.asarray(detector.run(image[None], *numbers, **STATIC).valid)
        return len(images)

    return work


def boxed(detector: yolo.Detector, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images as detection with few shapes letterboxes them."""
    size, stride = detector.size, detector.stride
    shapes = [rectangle((image.shape[0], image.shape[1]), size, stride) for image in images]
    return [letterbox(image, shape, auto=False)[0] for image, shape in zip(images, shapes, strict=True)]


def compare(name: str, alone: Callable[[], int], whole: Callable[[], int], rounds: int) -> None:
    """Prints a row: both in turn."""
    alone()
    whole()
    pairs = [(per_second(alone), per_second(whole)) for _ in range(rounds)]
    network, run = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(whole / alone for alone, whole in pairs)
    print(f"| {name} | {network:.1f} | {run:.1f} | {ratio:.3f} |", flush=True)


def write_video(path: Path, images: Sequence[np.ndarray], frames: int) -> None:
    """A video of 1280 × 720 that pans over images."""
    with yolo.VideoWriter(path, fps=25) as writer:
        for number in range(frames):
            image = cv2.resize(images[number // 25 % len(images)], (1480, 832))
            left = number % 25 * 8
            writer.write(np.ascontiguousarray(image[40:760, left : left + 1280]))


def first_run(weights: Path, few: str, images: Sequence[Path]) -> float:
    """Seconds from the start of Python's imports to the last detections, with nothing compiled before."""
    command = [sys.executable, "-c", FIRST_RUN, str(weights), few, *map(str, images)]
    environment = {**os.environ, "YOLOV7_JAX_COMPILATION_CACHE": "off"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parsed = parser.parse_args()
    paths = find_images([parsed.photographs])
    detector = yolo.Detector.load(parsed.weights)
    with tempfile.TemporaryDirectory() as scratch:
        folder, number = Path(scratch), iter(range(1000))
        images = [read_image(path) for path in islice(paths, 64)]
        print("| | network and NMS alone, images/s | whole run, images/s | ratio |", "|---" * 4 + "|", sep="\n")

        many = list(islice(cycle(paths[:64]), parsed.images))
        alone = network_alone(detector, list(islice(cycle(boxed(detector, images)), parsed.images)))

        def on_folder() -> int:
            return len(many) if yolo.detect(detector, many, folder / str(next(number))).counts else 0

        compare(f"{len(many)} images", alone, on_folder, parsed.rounds)

        video = folder / "pan.mp4"
        write_video(video, images[:12], parsed.frames)
        with yolo.open_frames(video) as frames:
            looked = boxed(detector, [frame.image for frame in islice(frames, 32)])
        alone = network_alone(detector, list(islice(cycle(looked), parsed.frames)))

        def on_video() -> int:
            return yolo.detect_video(detector, yolo.open_frames(video), folder / str(next(number))).frames

        compare(f"{parsed.frames} frames of 1280 × 720", alone, on_video, parsed.rounds)
    print()
    for few in ("few", "own"):
        seconds = first_run(parsed.weights, few, paths[:MIXED])
        print(f"first run of {MIXED} mixed images, {few} shapes: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()

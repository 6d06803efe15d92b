"""Times the making of training images on one core: images a second, and where the time goes.

    python tools/bench_data.py                          # JPEG pictures that the script draws
    python tools/bench_data.py --data path/to/images    # your own photographs

"Canvas" is the common way, for comparison: four images are decoded for each mosaic (and four more for a mixup), pasted
on a canvas of twice the size, which is warped whole; colours change by tables. "Direct" is what training does: partners
come from a window of images that are decoded already, and each is warped straight into its part of the result. Both
start from JPEG in memory and take turns in rounds; the figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.augment import augmented
from yolov7_jax.data.color import random_gains, scale_hsv
from yolov7_jax.data.geometry import random_warp
from yolov7_jax.data.image import cv2, decode_image
from yolov7_jax.data.letterbox import GREY
from yolov7_jax.data.mosaic import mosaic, render
from yolov7_jax.types import Sample

RECIPES = {
    "plain (scale 0.5, no mixup)": AugmentConfig(),
    "tiny (scale 0.5, mixup 0.05)": AugmentConfig(mixup=0.05),
    "p5 (scale 0.9, mixup 0.15)": AugmentConfig(mixup=0.15, scale=0.9, translate=0.2),
    "turned (10°, shear 5°)": AugmentConfig(degrees=10, shear=5),
}
BOXES = 7  # of each image, about as many as in COCO
DRAWN, QUALITY = 96, 92


def drawn(rng: np.random.Generator) -> bytes:
    """A JPEG of discs and rectangles under fine noise, about as large as a photograph of COCO."""
    height, width = ((480, 640), (640, 480), (427, 640))[rng.integers(3)]
    picture = cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), (width, height))
    for _ in range(40):
        x, y, radius = (int(n) for n in rng.integers((0, 0, 5), (width, height, 70)))
        cv2.circle(picture, (x, y), radius, [int(c) for c in rng.integers(0, 255, 3)], -1)
    noise = cv2.GaussianBlur(rng.normal(0, 40, picture.shape).astype(np.float32), (0, 0), 0.8)
    return cv2.imencode(".jpg", np.clip(picture + noise, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[
        1
    ].tobytes()


def decoded(jpegs: list[bytes], size: int, position: int) -> Sample:
    """The picture at a position with its long side resized to `size`, and random boxes."""
    image = decode_image(jpegs[position], name=str(position))
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale != 1:
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
    rng = np.random.default_rng(position)
    corners = np.sort(rng.uniform(0, 1, (BOXES, 2, 2)), axis=1).reshape(BOXES, 4)
    boxes = (corners * np.tile(image.shape[1::-1], 2)).astype(np.float32)
    return Sample(image, boxes, np.zeros(BOXES, np.int32), position)


class Window:
    """The decoded samples of an epoch's last positions."""

    def __init__(self, fetch: Callable[[int], Sample], *, count: int, window: int) -> None:
        self._fetch, self._count, self._window = fetch, count, window
        self._kept: dict[int, Sample] = {}
        self.decodes = 0

    def __call__(self, position: int) -> Sample:
        """The sample at a position, decoded if it is not here."""
        if position not in self._kept:
            self.decodes += 1
            self._kept[position] = self._fetch(position)
        return self._kept[position]

    def move_to(self, position: int) -> None:
        """Forgets what no sample from this position on draws upon."""
        kept = [(position - back) % self._count for back in range(self._window + 1)]
        self._kept = {near: self._kept[near] for near in kept if near in self._kept}


def by_canvas(
    rng: np.random.Generator,
    fetch: Callable[[int], Sample],
    position: int,
    *,
    count: int,
    size: int,
    config: AugmentConfig,
) -> np.ndarray:
    """The picture (without its boxes) of a sample made the common way."""

    def view(samples: list[Sample]) -> np.ndarray:
        canvas = np.full((2 * size, 2 * size, 3), GREY, np.uint8)
        x, y = (int(n) for n in rng.integers(size // 2, size + size // 2, 2))
        for tile in mosaic(samples, (x, y), canvas=2 * size):
            x0, y0, x1, y1 = tile.part
            canvas[tile.y + y0 : tile.y + y1, tile.x + x0 : tile.x + x1] = tile.sample.image[y0:y1, x0:x1]
        warp, _ = random_warp(rng, config, canvas=2 * size, size=size)
        return cv2.warpAffine(canvas, warp[:2], (size, size), borderValue=(GREY,) * 3)

    image = view([fetch(position), *(fetch(int(p)) for p in rng.integers(0, count, 3))])
    if rng.random() < config.mixup:
        second = view([fetch(int(p)) for p in rng.integers(0, count, 4)])
        share = rng.beta(config.mixup_beta, config.mixup_beta)
        image = (image * share + second * (1 - share)).astype(np.uint8)
    tables = np.outer(random_gains(rng, config), np.arange(256))
    tables[0] %= 180
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    tabled = [cv2.LUT(c, np.clip(t, 0, 255).astype(np.uint8)) for c, t in zip(channels, tables, strict=True)]
    image = cv2.cvtColor(cv2.merge(tabled), cv2.COLOR_HSV2RGB)
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < config.fliplr else image


def milliseconds(make: Callable[[int], object], positions: Sequence[int]) -> float:
    """Mean time of a call over positions, as this thread's time on its core: other work on the machine adds little."""
    began = time.thread_time()
    for position in positions:
        make(position)
    return 1000 * (time.thread_time() - began) / len(positions)


def compare(name: str, config: AugmentConfig, fetch: Callable[[int], Sample], args: argparse.Namespace) -> None:
    """Prints a row: a recipe the common way and ours, in turns."""
    rng = np.random.default_rng(0)
    near = Window(fetch, count=args.count, window=args.window)
    canvas = partial(by_canvas, rng, fetch, count=args.count, size=args.size, config=config)

    def direct(position: int) -> Sample:
        near.move_to(position)
        return augmented(rng, near, position, count=args.count, window=args.window, size=args.size, config=config)

    milliseconds(direct, range(args.count))  # the window is filled
    near.decodes = 0
    times = []
    for start in range(args.rounds):
        part = [(start * args.images + n) % args.count for n in range(args.images)]
        times.append((milliseconds(canvas, part), milliseconds(direct, part)))
    common, ours = (statistics.median(column) for column in zip(*times, strict=True))
    decodes = near.decodes / (args.rounds * args.images)
    print(
        f"| {name} | {common:.2f} | {1000 / common:.0f} | {ours:.2f} | {1000 / ours:.0f} | {common / ours:.2f} "
        f"| {decodes:.2f} |",
        flush=True,
    )


def parts(fetch: Callable[[int], Sample], args: argparse.Namespace) -> None:
    """Prints where the time goes in the plain recipe."""
    rng, config, size = np.random.default_rng(0), AugmentConfig(), args.size
    samples = [fetch(position) for position in range(min(args.count, args.window))]

    def warped(_: int) -> Sample:
        chosen = [samples[n] for n in rng.integers(0, len(samples), 4)]
        x, y = (int(n) for n in rng.integers(size // 2, size + size // 2, 2))
        warp, scale = random_warp(rng, config, canvas=2 * size, size=size)
        return render(mosaic(chosen, (x, y), canvas=2 * size), warp, scale, size=size)

    square = warped(0).image
    steps: dict[str, Callable[[int], object]] = {
        "decode, resize": fetch,
        "place, warp, boxes": warped,
        "colours": lambda _: scale_hsv(square, random_gains(rng, config)),
        "mirror (half of the samples)": lambda _: cv2.flip(square, 1),
    }
    print("\n| step | ms |\n|---|---|")
    for name, step in steps.items():
        milliseconds(step, range(8))
        print(
            f"| {name} | {statistics.median(milliseconds(step, range(args.count)) for _ in range(args.rounds)):.2f} |"
        )


def main() -> None:
    """Runs the recipes one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of JPEG pictures (default: drawn by the script)")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--window", type=int, default=64, help="less than the number of pictures (default 64)")
    parser.add_argument("--images", type=int, default=40, help="of a round (default 40)")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.data:
        jpegs = [path.read_bytes() for path in sorted(args.data.rglob("*.jpg"))]
    else:
        rng = np.random.default_rng(0)
        jpegs = [drawn(rng) for _ in range(DRAWN)]
    args.count = len(jpegs)
    args.window = min(args.window, args.count - 1)
    kilobytes = sum(map(len, jpegs)) / len(jpegs) / 1000
    print(f"{len(jpegs)} pictures of {kilobytes:.0f} KB, {args.size} px, OpenCV {cv2.__version__}, one thread\n")
    print(
        "| recipe | canvas ms | images/s | direct ms | images/s | ratio | decodes a sample |\n"
        "|---|---|---|---|---|---|---|"
    )
    fetch = partial(decoded, jpegs, args.size)
    for name, config in RECIPES.items():
        compare(name, config, fetch, args)
    parts(fetch, args)


if __name__ == "__main__":
    main()

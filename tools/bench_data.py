"""Times the making of training images on one core: images a second, and where the time goes.

    python tools/bench_data.py                          # JPEG images that the script draws
    python tools/bench_data.py --data coco128.yaml      # labeled photographs; --batches 2000 to watch the memory

Labels without polygons are given polygons within their boxes, so that all of a recipe is done. The tables:

- "Canvas" is the common way, for comparison: four images are decoded for each mosaic (and four more for a mixup),
  pasted on a canvas of twice the size, which is warped whole; colors change by tables. "Direct" is what training does:
  partners come from a window of images that are decoded already, and each is warped straight into its part of the
  result. They take turns in rounds; the figures are medians of the rounds.
- The p5 recipe, from files to batches, with labels as they are and with polygons: time of each stage, and memory of
  the process on the way.
- The same batches with decoded images kept: in memory, on disk, or not at all, in turn; time of one core.
- Colors, flips, mixup and scaling of a batch by OpenCV and as one compiled JAX function: time of all cores.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from yolov7_jax.config import AugmentConfig
from yolov7_jax.data.augment import augmented, random_gains, scale_hsv
from yolov7_jax.data.geometry import random_warp
from yolov7_jax.data.letterbox import GRAY
from yolov7_jax.data.loader import Loader
from yolov7_jax.data.mosaic import mixup, mosaic
from yolov7_jax.data.pipeline import Pipeline, load_resized
from yolov7_jax.datasets import open_source
from yolov7_jax.datasets.audit import audit, readable
from yolov7_jax.datasets.image_cache import Where, with_cached_images
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.image import cv2
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Sample

P5 = AugmentConfig(mosaic=1.0, mosaic9=0.2, mixup=0.15, paste_in=0.15, scale=0.9, translate=0.2)
RECIPES = {
    "plain (scale 0.5, no mixup)": AugmentConfig(),
    "tiny (scale 0.5, mixup 0.05)": AugmentConfig(mixup=0.05),
    "p5 (scale 0.9, nine 0.2, mixup 0.15, paste_in 0.15)": P5,
    "rotated (10°, shear 5°)": AugmentConfig(degrees=10, shear=5),
}
STAGES = {
    "read": ["image._content"],
    "decode": ["image.decode_image"],
    "labels": ["datasets.yolo.read_labels"],
    "resize": ["data.pipeline._resized"],
    "warp": ["data.render._resize_into", "data.render._remap_into"],
    "blend": ["data.augment.mixup"],
    "color": ["data.augment.scale_hsv"],
    "paste": ["data.augment.paste_in", "data.render.paste", "data.augment.flipped_copies"],
    "boxes": ["data.render.shown", "data.paste.shown"],
    "candidates": ["data.pipeline.candidates"],
    "stack": ["data.loader._stacked"],
}
"""Where each stage's functions are looked up, within yolov7_jax."""
BOXES = 7  # of each drawn image, about as many as in COCO
CORNERS = 40  # of a polygon, as in COCO's labels
DRAWN, QUALITY, BATCH = 96, 92, 16


def drawn(rng: np.random.Generator) -> bytes:
    """A JPEG of discs and rectangles under fine noise, about as large as a photograph of COCO."""
    height, width = ((480, 640), (640, 480), (427, 640))[rng.integers(3)]
    image = cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), (width, height))
    for _ in range(40):
        x, y, radius = (int(n) for n in rng.integers((0, 0, 5), (width, height, 70)))
        cv2.circle(image, (x, y), radius, [int(c) for c in rng.integers(0, 255, 3)], -1)
    noise = cv2.GaussianBlur(rng.normal(0, 40, image.shape).astype(np.float32), (0, 0), 0.8)
    return cv2.imencode(".jpg", np.clip(image + noise, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[
        1
    ].tobytes()


def copy_with_polygons(data: Path | None, folder: Path) -> SourceMixin:
    """The images of a data set, or drawn ones, in a folder with labels that have polygons."""
    rng = np.random.default_rng(0)
    images, labels = folder / "images", folder / "labels"
    images.mkdir()
    labels.mkdir()
    names = ["thing"]
    if data is None:
        for number in range(DRAWN):
            (images / f"{number}.jpg").write_bytes(drawn(rng))
            corners = np.sort(rng.uniform(0, 1, (BOXES, 2, 2)), axis=1).reshape(BOXES, 4)
            write_labels(labels / f"{number}.txt", [(0, polygon(rng, box)) for box in corners])
    else:
        source = open_source(data, "train", on_error="skip")
        names = list(source.names)
        for number in range(len(source)):
            found, path = source.labels(number), source.path(number)
            shutil.copy(path, images)
            shapes = [polygon(rng, box / np.tile(found.size[::-1], 2)) for box in found.boxes_xyxy_px]
            for owner, outline in zip(found.polygons.owner, polygons_of(found.polygons), strict=True):
                shapes[owner] = outline / found.size[::-1]
            write_labels(labels / f"{path.stem}.txt", list(zip(found.class_ids.tolist(), shapes, strict=True)))
    (folder / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": names}))
    return open_source(folder / "data.yaml", "train", on_error="skip")


def polygons_of(polygons: Any) -> list[np.ndarray]:
    """Each polygon's corners."""
    return np.split(polygons.points_xy_px, np.cumsum(polygons.corners)[:-1]) if len(polygons.owner) else []


def polygon(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """A wavy polygon in a box."""
    angles, reach = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False), rng.uniform(0.7, 1, CORNERS)
    wave = np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    return (box[:2] + box[2:]) / 2 + wave * (box[2:] - box[:2]) / 2


def write_labels(path: Path, objects: Sequence[tuple[int, np.ndarray]]) -> None:
    """A label file of polygons."""
    rows = [
        f"{number} " + " ".join(f"{value:.6f}" for value in shape.reshape(-1).clip(0, 1)) for number, shape in objects
    ]
    path.write_text("\n".join(rows))


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
    """The image (without its boxes, and always of mosaics of four) of a sample made the common way."""

    def view(samples: list[Sample]) -> np.ndarray:
        canvas = np.full((2 * size, 2 * size, 3), GRAY, np.uint8)
        x, y = (int(n) for n in rng.integers(size // 2, size + size // 2, 2))
        for tile in mosaic(samples, (x, y), canvas=2 * size):
            x0, y0, x1, y1 = tile.part
            canvas[tile.y + y0 : tile.y + y1, tile.x + x0 : tile.x + x1] = tile.sample.image[y0:y1, x0:x1]
        warp, _ = random_warp(rng, config, canvas=(2 * size, 2 * size), size=(size, size))
        return cv2.warpAffine(canvas, warp[:2], (size, size), borderValue=(GRAY,) * 3)

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
        return augmented(
            rng,
            near,
            position,
            count=args.count,
            mosaic_window=args.window,
            side=args.size,
            size=(args.size, args.size),
            config=config,
        )

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


class Clock:
    """The time of one thread, given to whichever stage it is in; calls within calls count for the inner stage."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._stages = ["rest"]
        self._since = time.thread_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Meanwhile time is that of a stage."""
        self._book()
        self._stages.append(name)
        yield
        self._book()
        self._stages.pop()

    def _book(self) -> None:
        now = time.thread_time()
        self.spent[self._stages[-1]] += now - self._since  # type: ignore[assignment]
        self._since = now

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, on the clock."""

        def watched(*args: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*args, **options)

        return watched


def resident_mb() -> float:
    """Memory of this process in use, where Linux says it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float("nan")
    return pages * 4096 / 1e6


def p5_pipeline(source: SourceMixin, args: argparse.Namespace) -> Pipeline:
    """The p5 recipe of yolov7.

    The images are taken several times over, so that more of them are in an epoch than the window keeps decoded.
    """
    graph = zoo("yolov7")
    source = source.subset([*range(len(source))] * -(-8 * args.window // len(source)))
    return Pipeline(
        source=source,
        augment=P5,
        shapes=((args.size, args.size),),
        anchors=graph.anchors,
        strides=graph.strides,
        anchor_t=4.0,
        batch_size=BATCH,
        seed=0,
        mosaic_window=args.window,
        on_error="skip",
    )


def kept(source: SourceMixin, args: argparse.Namespace) -> None:
    """Prints what keeping decoded images gains: batches of the p5 recipe by one thread, the ways in turn."""
    source = readable(source, audit(source))
    with tempfile.TemporaryDirectory() as folder:
        plain = p5_pipeline(source, args)
        ways = {"not kept": plain.source}
        for where in get_args(Where):
            ways[where] = with_cached_images(plain.source, where, room=2**40, folder=Path(folder))
        loaders = {name: Loader(replace(plain, source=each), workers=0).batches() for name, each in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for loader in loaders.values():
            for _ in islice(loader, -(-len(plain.source) // BATCH)):  # every image is kept
                pass
        for _ in range(args.rounds):
            for name, loader in loaders.items():
                began = time.thread_time()
                for _ in islice(loader, 4):
                    pass
                times[name].append(1000 * (time.thread_time() - began) / (4 * BATCH))
    print("\n| decoded images | ms an image | images/s a core | of the time without |\n|---|---|---|---|")
    for name, spent in times.items():
        ratio = statistics.median(ours / other for ours, other in zip(spent, times["not kept"], strict=True))
        median = statistics.median(spent)
        print(f"| {name} | {median:.2f} | {1000 / median:.0f} | {ratio:.2f} |")


def recipe(title: str, source: SourceMixin, args: argparse.Namespace) -> None:
    """Prints the stages of the p5 recipe, from files to batches by one thread, and the memory.

    Labels are read beforehand, as for a training.
    """
    pipeline = p5_pipeline(readable(source, audit(source)), args)
    clock = Clock()
    marks = {0: "", args.batches // 2: "", args.batches: ""}
    with ExitStack() as stack:
        for name, places in STAGES.items():
            for place in places:
                module_name, function = place.rsplit(".", 1)
                module = importlib.import_module(f"yolov7_jax.{module_name}")
                stack.enter_context(patch.object(module, function, clock.watch(name, getattr(module, function))))
        batches = Loader(pipeline, workers=0).batches()
        for _ in islice(batches, -(-len(pipeline.source) // BATCH)):  # the window is filled, and memory has been used
            pass
        clock.spent.clear()
        marks[0] = f"{resident_mb():.0f}"
        began, began_wall = time.thread_time(), time.perf_counter()
        for number, _ in enumerate(islice(batches, args.batches), 1):
            if number in marks:
                marks[number] = f"{resident_mb():.0f}"
        spent, wall = time.thread_time() - began, time.perf_counter() - began_wall
    images = args.batches * BATCH
    rates = f"{images / spent:.0f} images/s a core, {images / wall:.0f} by the clock"
    print(f"\np5, {title}, {images} images in batches of {BATCH}: {rates}")
    print("memory in MB at the start, the middle and the end: " + ", ".join(marks.values()))
    print("\n| stage | ms an image |\n|---|---|")
    for name in [*STAGES, "rest"]:
        print(f"| {name} | {1000 * clock.spent[name] / images:.2f} |")


def jax_tail(images: jax.Array, seconds: jax.Array, share: jax.Array, gains: jax.Array, flips: jax.Array) -> jax.Array:
    """Mixup, colors, flips and scaling of a batch [B, H, W, 3] in floating point."""
    rgb = (images * share[:, None, None, None] + seconds * (1 - share[:, None, None, None])) / 255
    value, least = rgb.max(axis=-1), rgb.min(axis=-1)
    chroma = value - least
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    safe = jnp.where(chroma > 0, chroma, 1)
    hue = jnp.where(
        value == red,
        (green - blue) / safe % 6,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue * gains[:, 0, None, None] % 6
    saturation = jnp.clip(chroma / jnp.where(value > 0, value, 1) * gains[:, 1, None, None], 0, 1)
    value = jnp.clip(value * gains[:, 2, None, None], 0, 1)
    turns = (jnp.array([5.0, 3.0, 1.0]) + hue[..., None]) % 6
    rgb = value[..., None] * (1 - saturation[..., None] * jnp.clip(jnp.minimum(turns, 4 - turns), 0, 1))
    return jnp.where(flips[:, None, None, None], rgb[:, :, ::-1], rgb)


def tails(args: argparse.Namespace) -> None:
    """Prints the time of what comes after the warp, by OpenCV and by JAX."""
    rng = np.random.default_rng(0)
    images, seconds = rng.integers(0, 256, (2, BATCH, args.size, args.size, 3)).astype(np.uint8)
    gains = np.stack([random_gains(rng, P5) for _ in range(BATCH)]).astype(np.float32)
    share, flips = np.full(BATCH, 0.4, np.float32), np.arange(BATCH) % 2 == 0
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), 0

    def opencv(_: int) -> np.ndarray:
        rows = []
        for image, second, gain, flip in zip(images, seconds, gains, flips, strict=True):
            row = mixup(Sample(image, *none), Sample(second, *none), 0.4).image
            scale_hsv(row, gain)
            rows.append(cv2.flip(row, 1) if flip else row)
        return np.stack(rows).astype(np.float32) / np.float32(255)

    compiled = jax.jit(jax_tail)
    steps: dict[str, Callable[[int], object]] = {
        "OpenCV": opencv,
        "JAX": lambda _: compiled(images, seconds, share, gains, flips).block_until_ready(),
    }
    print("\n| colors, flips, mixup and scaling | ms of all cores an image | ms by the clock |\n|---|---|---|")
    for name, step in steps.items():
        step(0)
        cores, walls = [], []
        for _ in range(args.rounds):
            began, began_wall = time.process_time(), time.perf_counter()
            step(0)
            cores.append(1000 * (time.process_time() - began) / BATCH)
            walls.append(1000 * (time.perf_counter() - began_wall) / BATCH)
        print(f"| {name} | {statistics.median(cores):.2f} | {statistics.median(walls):.2f} |")


def main() -> None:
    """Runs the recipes one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data YAML or other data set (default: drawn by the script)")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--window", type=int, default=64, help="less than the number of images (default 64)")
    parser.add_argument("--images", type=int, default=40, help="of a round (default 40)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=200, help="of the p5 recipe (default 200)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        source = copy_with_polygons(args.data, Path(folder))
        args.count = len(source)
        args.window = min(args.window, args.count - 1)
        print(f"{args.count} images, {args.size} px, OpenCV {cv2.__version__}, one thread\n")
        print(
            "| recipe | canvas ms | images/s | direct ms | images/s | ratio | decodes a sample |\n"
            "|---|---|---|---|---|---|---|"
        )

        def fetch(position: int) -> Sample:
            return load_resized(source, position, side=args.size, on_error="skip").sample

        for name, config in RECIPES.items():
            compare(name, config, fetch, args)
        if args.data:
            recipe("labels as they are", open_source(args.data, "train", on_error="skip"), args)
        recipe("all objects with polygons", source, args)
        kept(open_source(args.data, "train", on_error="skip") if args.data else source, args)
    tails(args)


if __name__ == "__main__":
    main()

"""Made videos without pictures: where objects are in each frame, and what a detector of known faults finds of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from yolov7_jax.types import Detections

WIDTH, HEIGHT = 1280, 720
NAMES = "person", "bicycle", "car"

Centers = Callable[[np.ndarray], np.ndarray]
"""Of times in seconds [T, 1], the centers [T, K, 2] of all objects in pixels."""


@dataclass(frozen=True)
class Scene:
    """A video of T frames and K objects.

    boxes: float [T, K, 4] xyxy in pixels. seen: bool [T, K], in the image and not hidden. class_ids: int32 [K].
    """

    fps: float
    boxes: np.ndarray
    seen: np.ndarray
    class_ids: np.ndarray


def make_scene(fps: float, seconds: float, centers: Centers, size=(60, 80), class_ids=None, hidden=None) -> Scene:
    """Objects of a size [2] or sizes [K, 2], all of class 0 by default; hidden: of times and centers, bool [T, K]."""
    times = np.arange(round(fps * seconds))[:, None] / fps
    center, half = centers(times), np.asarray(size) / 2
    seen = ((center > 0) & (center < (WIDTH, HEIGHT))).all(axis=2)
    if hidden is not None:
        seen &= ~hidden(times, center)
    classes = np.zeros(center.shape[1], np.int32) if class_ids is None else np.asarray(class_ids, np.int32)
    return Scene(fps, np.concatenate([center - half, center + half], axis=2), seen, classes)


def straight(starts, velocities) -> Centers:
    return lambda times: np.asarray(starts) + times[..., None] * np.asarray(velocities)


def on_a_circle(middles, radius: float, turns_a_second: float) -> Centers:
    def centers(times):
        angle = np.arange(len(middles)) * 2.4 + 2 * np.pi * turns_a_second * times
        return np.asarray(middles) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=2)

    return centers


def waving(starts, velocities, height: float, waves_a_second: float) -> Centers:
    def centers(times):
        up = height * np.sin(2 * np.pi * waves_a_second * times + np.arange(len(starts)))
        return straight(starts, velocities)(times) + np.stack([np.zeros_like(up), up], axis=2)

    return centers


def together(*parts: Centers) -> Centers:
    return lambda times: np.concatenate([part(times) for part in parts], axis=1)


def column(many: int, x: float, top: float, bottom: float) -> np.ndarray:
    """Places one below the other, [many, 2]."""
    return np.stack([np.full(many, float(x)), np.linspace(top, bottom, many)], axis=1)


def behind_a_pillar(times, centers):
    return np.abs(centers[..., 0] - WIDTH / 2) < 40


def out_of_sight_now_and_then(times, centers):
    """Each for 0.3 of every 2 seconds, at another time."""
    return (times + 0.37 * np.arange(centers.shape[1])) % 2 < 0.3


def curves(fps: float) -> Scene:
    lines = straight(column(3, 40, 60, 180), [(90, 5), (150, 0), (240, 5)])
    circles = on_a_circle([(200 + 280 * k, 330) for k in range(4)], 80, 0.3)
    waves = waving(column(2, 40, 520, 640), [(140, 0), (180, 0)], 30, 0.8)
    return make_scene(fps, 5, together(lines, circles, waves))


def crossing(fps: float) -> Scene:
    """Twelve in pairs, each passing through the other."""
    from_left = straight(column(6, 40, 100, 500), [(200 + 9 * k, 0) for k in range(6)])
    from_right = straight(column(6, 1240, 112, 512), [(-220 - 7 * k, 0) for k in range(6)])
    return make_scene(fps, 5, together(from_left, from_right))


def pillar(fps: float) -> Scene:
    walk = straight(column(6, 60, 70, 650), [(180 + 15 * k, 0) for k in range(6)])
    return make_scene(fps, 6, walk, hidden=behind_a_pillar)


def blinking(fps: float) -> Scene:
    walk = straight(column(8, 60, 70, 650), [(120, 0)] * 8)
    return make_scene(fps, 6, walk, size=(60, 70), hidden=out_of_sight_now_and_then)


def street(fps: float) -> Scene:
    """One more every third of a second, from left and right in turn; each leaves on the other side."""
    number = np.arange(24)
    speed = np.where(number % 2, -1, 1) * (240 + 15 * (number % 7))
    begins = np.where(number % 2, WIDTH, 0) - speed * number / 3
    still = np.zeros(24)
    walk = straight(np.stack([begins, 60 + 60.0 * (number % 11)], 1), np.stack([speed, still], 1))
    return make_scene(fps, 8, walk, size=(50, 90))


def crowd(fps: float) -> Scene:
    """Twenty in all directions."""
    rng = np.random.default_rng(7)
    starts = rng.uniform((100, 100), (WIDTH - 100, HEIGHT - 100), (20, 2))
    walk = straight(starts, rng.normal(0, 60, (20, 2)))
    return make_scene(fps, 4, walk, size=rng.uniform((40, 80), (60, 140), (20, 2)))


def riders(fps: float) -> Scene:
    """People on bicycles, two classes whose boxes overlap all the time, and cars that pass behind them."""
    people, bicycles = column(3, 50, 200, 460), column(3, 50, 220, 480)
    speeds = [(150, 10), (120, 0), (170, -10)]
    cars = straight([(1200, 330), (1200, 460)], [(-260, 0)] * 2)
    centers = together(straight(people, speeds), straight(bicycles, speeds), cars)
    sizes = [(50, 110)] * 3 + [(70, 80)] * 3 + [(180, 90)] * 2
    return make_scene(fps, 5, centers, sizes, [0] * 3 + [1] * 3 + [2] * 2)


SCENES = {
    "curves": curves(30),
    "crossing": crossing(30),
    "pillar": pillar(30),
    "blinking": blinking(25),
    "street": street(15),
    "crowd, 10 fps": crowd(10),
    "crowd, 60 fps": crowd(60),
    "riders": riders(25),
}


def detect(rng: np.random.Generator, scene: Scene, frame: int, *, jitter=0.03, missed=0.07, false=0.3) -> Detections:
    """What is found in a frame: boxes shaken by parts of their size, a part missing, `false` of nothing, best first."""
    there = scene.seen[frame] & (rng.random(len(scene.class_ids)) >= missed)
    boxes, classes = scene.boxes[frame][there], scene.class_ids[there]
    boxes = boxes + rng.normal(0, jitter, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    corners, many = rng.uniform(0, (WIDTH - 150, HEIGHT - 150), (rng.poisson(false), 2)), len(classes)
    boxes = np.concatenate([boxes, np.concatenate([corners, corners + rng.uniform(20, 150, corners.shape)], axis=1)])
    classes = np.concatenate([classes, rng.choice(np.unique(scene.class_ids), len(corners))])
    scores = np.concatenate([rng.normal(0.6, 0.18, many).clip(0.1, 0.97), rng.uniform(0.1, 0.5, len(corners))])
    best = np.argsort(-scores)
    return Detections(boxes[best].astype(np.float32), scores[best].astype(np.float32), classes[best], NAMES)

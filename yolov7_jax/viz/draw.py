"""Boxes and heat maps drawn on their image, and the trails of what is tracked over a video."""

from __future__ import annotations

import colorsys
import unicodedata
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import InputError
from yolov7_jax.image import cv2
from yolov7_jax.types import Detections

FONT = cv2.FONT_HERSHEY_SIMPLEX
LINE_OF_SIDE = 1 / 300
"""Width of a line by the mean side of the image."""
FONT_OF_LINE, LEAST_FONT = 0.28, 0.4
"""Scale of the font by the width of lines, and the least that can be read."""
GOLDEN_RATIO = (5**0.5 - 1) / 2
SHADES = ((0.85, 1.0), (0.6, 0.95), (0.95, 0.8))
"""Saturation and value, in turn, so that classes of like hue differ in these."""

OPACITY = 0.5
"""Of the colors of a heat map over its image."""

Color = tuple[int, int, int]
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def draw_detections(
    image: NDArray[np.uint8], detections: Detections, *, thickness: int | None = None, copy: bool = True
) -> NDArray[np.uint8]:
    """The image with boxes, and labels such as "dog 0.87"; better detections lie on top.

    Those that are tracked have the number of the object in the label, "dog 3 0.87", and its color.

    Args:
        image: uint8 [h, w, 3] RGB.
        detections: boxes in its pixels.
        thickness: of the lines in pixels; the labels grow with it. By the size of the image if None.
        copy: leave the image as it is; else it is drawn on itself, and must be contiguous.
    """
    names = [found.label if found.track_id is None else f"{found.label} {found.track_id}" for found in detections]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, detections.scores, strict=True)]
    of_color = detections.class_ids if detections.track_ids is None else detections.track_ids
    return draw_boxes(image, detections.boxes_xyxy_px, of_color, texts, thickness=thickness, copy=copy)


class Trails:
    """Where the objects of a video have been over the last frames, as lines in the colors of the objects."""

    def __init__(self, frames: int = 30) -> None:
        """Of so many frames, the one that is drawn among them.

        Raises:
            InputError: there are no such frames.
        """
        if frames < 1:
            raise InputError(f"frames of a trail must be at least 1, got {frames}")
        self._frames: deque[dict[int, NDArray[np.floating[Any]]]] = deque(maxlen=frames)

    def draw(
        self, image: NDArray[np.uint8], tracked: Detections, *, thickness: int | None = None, copy: bool = True
    ) -> NDArray[np.uint8]:
        """The next frame with a line through the last centers of each object; give it to `draw_detections`.

        Args:
            image: uint8 [h, w, 3] RGB.
            tracked: what `Tracker.update` found in it, boxes in its pixels.
            thickness: of the lines in pixels. By the size of the image if None.
            copy: leave the image as it is; else it is drawn on itself, and must be contiguous.

        Raises:
            InputError: the detections are not tracked.
        """
        if tracked.track_ids is None:
            raise InputError("trails need detections with track_ids; give those that Tracker.update returns")
        centers = (tracked.boxes_xyxy_px[:, :2] + tracked.boxes_xyxy_px[:, 2:]) / 2
        self._frames.append(dict(zip(tracked.track_ids.tolist(), centers, strict=True)))
        canvas = image.copy() if copy else image
        for track_id in sorted(set().union(*self._frames)):
            way = np.array([frame[track_id] for frame in self._frames if track_id in frame])
            points = np.rint(way.clip(0, image.shape[1::-1])).astype(np.int32)
            cv2.polylines(canvas, [points], False, class_color(track_id), _line(image, thickness), cv2.LINE_AA)
        return canvas


def draw_boxes(
    image: NDArray[np.uint8],
    boxes_xyxy_px: NDArray[np.floating[Any]],
    class_ids: NDArray[np.integer[Any]],
    texts: Sequence[str],
    *,
    thickness: int | None = None,
    copy: bool = True,
) -> NDArray[np.uint8]:
    """The image with a frame and a text for each box, in the color of its class; the first lie on top.

    Args:
        image: uint8 [h, w, 3] RGB.
        boxes_xyxy_px: [n, 4] in its pixels.
        class_ids: [n], or the numbers of objects, which have the same colors.
        texts: one for each box.
        thickness: of the lines in pixels; the labels grow with it. By the size of the image if None.
        copy: leave the image as it is; else it is drawn on itself, and must be contiguous.
    """
    canvas = image.copy() if copy else image
    height, width = image.shape[:2]
    line = _line(image, thickness)
    corners = np.rint(boxes_xyxy_px).clip(0, [width, height] * 2).astype(int)
    marks = [
        (box, class_color(int(class_id)), _printable(text))
        for box, class_id, text in zip(corners, class_ids, texts, strict=True)
    ][::-1]
    for box, color, _ in marks:
        draw_frame(canvas, box, color, line)
    for box, color, text in marks:
        _draw_label(canvas, box, color, text, line)
    return canvas


def _line(image: NDArray[np.uint8], thickness: int | None) -> int:
    """How thick lines are: as given, or by the size of the image."""
    return thickness or max(round(sum(image.shape[:2]) / 2 * LINE_OF_SIDE), 1)


def draw_heat(image: NDArray[np.uint8], heat: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The image in gray under the colors of a heat map, from black over red to yellow: the lighter, the hotter.

    Args:
        image: uint8 [h, w, 3] RGB.
        heat: [h, w] in 0..1.
    """
    levels = np.rint(heat.clip(0, 1) * 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    blended: NDArray[np.uint8] = cv2.addWeighted(gray, 1 - OPACITY, colors, OPACITY, 0)
    return blended


def class_color(class_id: int) -> Color:
    """The RGB color of a class or a tracked object: always the same, and far from those of the ones before it."""
    saturation, value = SHADES[class_id % len(SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN_RATIO % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_color(background: Color) -> Color:
    """Black or white, whichever is read more easily: the contrast is 4.58 or more on any background."""
    luminance = relative_luminance(background)
    return BLACK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else WHITE


def relative_luminance(color: Color) -> float:
    """How light an sRGB color is, from 0 (black) to 1 (white), as WCAG 2 defines it."""
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def draw_frame(canvas: NDArray[np.uint8], box: NDArray[np.int_], color: Color, line: int) -> None:
    """The frame of a box, wholly inside it."""
    left, top, right, bottom = box
    frame = canvas[top : max(bottom, top + 1), left : max(right, left + 1)]
    for edge in (frame[:line], frame[-line:], frame[:, :line], frame[:, -line:]):
        edge[:] = color


def _draw_label(canvas: NDArray[np.uint8], box: NDArray[np.int_], color: Color, text: str, line: int) -> None:
    """The label above the box, or inside it at the upper edge of the image, moved left at the right edge."""
    height, width = canvas.shape[:2]
    scale, weight, margin = max(line * FONT_OF_LINE, LEAST_FONT), max(round(line / 2), 1), line + 1
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, weight)
    label_width, label_height = text_width + 2 * margin, text_height + below + margin
    left = max(min(int(box[0]), width - label_width), 0)
    top = int(box[1]) - label_height
    if top < 0:
        top = max(min(int(box[1]), height - label_height), 0)
    canvas[top : top + label_height, left : left + label_width] = color
    start = (left + margin, top + text_height + margin // 2)
    cv2.putText(canvas, text, start, FONT, scale, text_color(color), weight, cv2.LINE_AA)


def _printable(name: str) -> str:
    """The name in the letters that the font has: without accents, and a question mark for any other."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)

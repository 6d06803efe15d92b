"""What was found in an image, with the image at hand: drawn, cut out, written, and handed to other libraries."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import DataError, InputError, InstallationError
from yolov7_jax.image import cv2, encode_image, write_image
from yolov7_jax.ops.boxes import xyxy_to_cxcywh, xyxy_to_xywh
from yolov7_jax.types import Detections
from yolov7_jax.viz.draw import draw_detections

_PAGE_PX = 960  # longer side of an image in a notebook
_BOX_DECIMALS, _SCORE_DECIMALS = 3, 5  # of COCO results, as the reference writes them


@dataclass(frozen=True, eq=False, repr=False)
class ImageDetections(Detections):
    """`Detections` that know their image.

    size: (h, w) of the image in pixels. path: of its file, if it has one. read: gives the image again when it is asked
    for, so that many results take little memory.
    """

    size: tuple[int, int] = (0, 0)
    path: Path | None = None
    read: Callable[[], NDArray[np.uint8]] | None = None

    @property
    def image(self) -> NDArray[np.uint8]:
        """The source image, uint8 [h, w, 3] RGB.

        Raises:
            DataError: its file cannot be read any more.
        """
        if self.read is None:
            raise InputError("these detections have no image; draw them with viz.draw.draw_detections(image, found)")
        return self.read()

    @property
    def boxes_cxcywh_px(self) -> NDArray[np.float32]:
        """Center and size, float32 [n, 4] in pixels of the source image."""
        return xyxy_to_cxcywh(self.boxes_xyxy_px)

    @property
    def boxes_xyxy_normalized(self) -> NDArray[np.float32]:
        """Corners as fractions of width and height, float32 [n, 4]."""
        return self._normalized(self.boxes_xyxy_px)

    @property
    def boxes_cxcywh_normalized(self) -> NDArray[np.float32]:
        """Center and size as fractions of width and height, float32 [n, 4]."""
        return self._normalized(self.boxes_cxcywh_px)

    def _normalized(self, boxes_px: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = self.size
        normalized: NDArray[np.float32] = np.divide(boxes_px, np.array([width, height] * 2, np.float32))
        return normalized

    def summary(self) -> str:
        """Size of the image, and how many of which class."""
        name = f"{self.path.name}, " if self.path else ""
        return f"{name}{self.size[1]} × {self.size[0]}: {super().summary()}"

    def plot(self, *, thickness: int | None = None) -> NDArray[np.uint8]:
        """The image with boxes and labels, uint8 [h, w, 3] RGB; thickness: of the lines in pixels."""
        return draw_detections(self.image, self, thickness=thickness)

    def show(self, *, thickness: int | None = None) -> None:
        """Shows the image with boxes: below the cell of a notebook, else in the system's viewer.

        Raises:
            InputError: there is no viewer.
        """
        from yolov7_jax.inference.pillow import show

        show(self.plot(thickness=thickness))

    def save(self, path: Path | str, *, thickness: int | None = None) -> Path:
        """Writes the image with boxes in the format that the ending names, and returns the path.

        Raises:
            DataError: it cannot be written.
        """
        write_image(path, self.plot(thickness=thickness))
        return Path(path)

    def crop(self, *, margin: float = 0.0) -> list[NDArray[np.uint8]]:
        """The part of the image in each box, uint8 [h, w, 3] RGB.

        Whole pixels that the box touches, at least one. margin: added on each side, in parts of the box.
        """
        return crops(self, self.image, margin=margin)

    def to_rows(self) -> list[dict[str, Any]]:
        """One row a detection, the best score first, as values of JSON; boxes in pixels to two decimals."""
        return [
            {
                "class": one.label,
                "class_id": one.class_id,
                "score": round(one.score, _SCORE_DECIMALS),
                "box_xyxy_px": [round(float(edge), 2) for edge in one.box_xyxy_px],
                **({} if one.track_id is None else {"track_id": one.track_id}),
            }
            for one in self
        ]

    def to_dict(self) -> dict[str, Any]:
        """All of it as values of JSON: the file, the size of the image and the rows of `to_rows`."""
        height, width = self.size
        row = {} if self.path is None else {"image": str(self.path)}
        return {**row, "height": height, "width": width, "detections": self.to_rows(), "overflow": self.overflow}

    def to_json(self, **options: Any) -> str:
        """`to_dict` as text; options are those of `json.dumps`."""
        return json.dumps(self.to_dict(), **options)

    def to_yolo(self, *, confidence: bool = False) -> str:
        """Lines of a YOLO label file: class, center and size in fractions of the image, and the score if asked for."""
        lines = (
            f"{class_id} " + " ".join(f"{value:.6f}" for value in box) + (f" {score:.6f}" if confidence else "") + "\n"
            for class_id, box, score in zip(self.class_ids, self.boxes_cxcywh_normalized, self.scores, strict=True)
        )
        return "".join(lines)

    def to_coco(self, image_id: int, *, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Rows of a COCO results file; see `to_coco_json`. category_ids: the numbers of the classes by default."""
        given = range(len(self.names)) if category_ids is None else category_ids
        return to_coco_json(self, image_id=image_id, category_ids=given)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame: class, class_id, score, x1, y1, x2, y2 in pixels, and track_id where there are tracks.

        Raises:
            InstallationError: pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InstallationError("to_dataframe needs pandas: pip install 'yolov7-jax[pandas]'") from error
        edges = dict(zip(("x1", "y1", "x2", "y2"), self.boxes_xyxy_px.T, strict=True))
        columns: dict[str, Any] = {
            "class": list(self.labels),
            "class_id": self.class_ids,
            "score": self.scores,
            **edges,
        }
        return pd.DataFrame(columns if self.track_ids is None else {**columns, "track_id": self.track_ids})

    def to_supervision(self) -> Any:
        """The `Detections` of the library supervision, for its annotators, zones and counters.

        Raises:
            InstallationError: supervision is missing.
        """
        try:
            import supervision
        except ImportError as error:
            raise InstallationError(
                "to_supervision needs supervision: pip install 'yolov7-jax[supervision]'"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes_xyxy_px,
            confidence=self.scores,
            class_id=self.class_ids.astype(int),
            tracker_id=None if self.track_ids is None else self.track_ids.astype(int),
            data={"class_name": np.array(self.labels, np.str_)},
        )

    def _repr_html_(self) -> str:
        """For notebooks: what was found, and the image with boxes where it can be read."""
        text = f"<p>{escape(self.summary())}</p>"
        try:
            drawn = self.plot()
        except InputError as error:
            return f"{text}<p>{escape(str(error))}</p>"
        scale = min(_PAGE_PX / max(drawn.shape[:2]), 1)
        small = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else drawn
        data = b64encode(encode_image(small, ".jpg")).decode()
        return f'{text}<img alt="{escape(self.summary())}" src="data:image/jpeg;base64,{data}">'


class Result(NamedTuple):
    """Of one image of a stream: its place, and what was found or why it could not be read.

    image: uint8 [h, w, 3] RGB, as read. seconds: "read" (decoding and letterbox, in its thread) and "device" (network
    and NMS: its share of the batch).
    """

    position: int
    image: NDArray[np.uint8] | None = None
    detections: ImageDetections | None = None
    error: DataError | None = None
    seconds: Mapping[str, float] | None = None


def crops(found: ImageDetections, image: NDArray[np.uint8], *, margin: float = 0.0) -> list[NDArray[np.uint8]]:
    """The part of an image in each box, see `ImageDetections.crop`."""
    height, width = image.shape[:2]
    sides = np.concatenate([found.boxes_cxcywh_px[:, 2:]] * 2, axis=1) * margin
    grown = found.boxes_xyxy_px + sides * [-1, -1, 1, 1]
    low = np.floor(grown[:, :2]).clip(0, [width - 1, height - 1])
    high = np.ceil(grown[:, 2:]).clip(low + 1, [width, height])
    edges = np.concatenate([low, high], axis=1).astype(int).tolist()
    return [image[top:bottom, left:right].copy() for left, top, right, bottom in edges]


def to_coco_json(detections: Detections, *, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a COCO results file for what was found in one image.

    category_ids: the category of each class. Boxes are rounded to 3 decimals, scores to 5, as the reference does.

    Raises:
        DataError: a detection's class is not among the classes of the data.
    """
    if len(detections) and detections.class_ids.max() >= len(category_ids):
        raise DataError(
            f"the network detects class {detections.class_ids.max()} but the data has {len(category_ids)} classes; "
            "use data with the classes that the network was trained for"
        )
    boxes = xyxy_to_xywh(detections.boxes_xyxy_px.astype(np.float64)).round(_BOX_DECIMALS).tolist()
    scores = detections.scores.astype(np.float64).round(_SCORE_DECIMALS).tolist()
    return [
        {"image_id": image_id, "category_id": category_ids[class_id], "bbox": box, "score": score}
        for class_id, box, score in zip(detections.class_ids.tolist(), boxes, scores, strict=True)
    ]

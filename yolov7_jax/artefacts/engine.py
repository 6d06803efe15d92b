"""What the engines of all runtimes share: a program that is a detector, of images of one size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.artefacts.onnx_nms import ROWS
from yolov7_jax.errors import InputError
from yolov7_jax.types import PaddedDetections

_DETECTIONS = ("boxes", "scores", "classes", "counts")
_PREDICTIONS = ("all_boxes", "all_scores")


class Engine(ABC):
    """A detector that another runtime computes.

    size: (h, w) of its images. num_classes: C.
    """

    size: tuple[int, int]
    num_classes: int

    @abstractmethod
    def _run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs of the program by name."""

    def __call__(
        self,
        images: NDArray[np.uint8],
        confidence: float,
        iou: float,
        class_mask: NDArray[np.bool_],
        *,
        multi_label: bool,
        agnostic: bool,
        max_detections: int,
    ) -> PaddedDetections:
        """Detections of letterboxed images uint8 [B, h, w, 3], as `program.detect_batch` gives them.

        Arrays are numpy's. D is max_detections. No candidate is left out, so `overflow` is zero.

        Raises:
            InputError: images of another size, a mask of other length, or max_detections over 300.
        """
        self._check(images)
        if np.shape(class_mask) != (self.num_classes,):
            raise InputError(f"class_mask must be bool [{self.num_classes}], got {list(np.shape(class_mask))}")
        if not 1 <= max_detections <= ROWS:
            raise InputError(f"max_detections must be from 1 to {ROWS} in an exported detector, got {max_detections}")
        numbers = _inputs(confidence, iou, class_mask, multi_label, agnostic, max_detections)
        boxes, scores, class_ids, counts = self._run(_DETECTIONS, {"images": images, **numbers})
        rows = slice(None, max_detections)
        valid = np.arange(max_detections)[None] < counts[:, None]
        left_out = np.zeros(len(images), np.int32)
        found = (boxes[:, rows], scores[:, rows], class_ids[:, rows], valid, left_out)
        return PaddedDetections(*found)  # type: ignore[arg-type]  # numpy's arrays

    def predictions(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What comes before non-maximum suppression: boxes [B, N, 4], and objectness and class scores [B, N, 1 + C].

        Raises:
            InputError: images of another size.
        """
        self._check(images)
        numbers = _inputs(1.0, 0.0, np.ones(self.num_classes), multi_label=False, agnostic=False, max_detections=1)
        boxes, scores = self._run(_PREDICTIONS, {"images": images, **numbers})  # with which next to nothing passes
        return boxes, scores

    def _check(self, images: NDArray[np.uint8]) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (*self.size, 3) or not len(images):
            raise InputError(
                f"this detector takes images uint8 [B, {self.size[0]}, {self.size[1]}, 3], got {images.dtype} "
                f"{list(images.shape)}; letterbox them to that size, or export the weights again for another"
            )

    def _identify(self, shapes: Mapping[str, Sequence[Any]], outputs: Iterable[str]) -> None:
        """Takes what the runtime says of inputs and outputs.

        Raises:
            InputError: they are not those of a detector.
        """
        try:
            _, height, width, _ = shapes["images"]
            (classes,) = shapes["class_mask"]
            if missing := {*_DETECTIONS, *_PREDICTIONS}.difference(outputs):
                raise KeyError(*missing)
            self.size, self.num_classes = (int(height), int(width)), int(classes)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("has not the inputs and outputs of a detector; export the weights again") from error


def _inputs(
    confidence: Any, iou: Any, class_mask: Any, multi_label: Any, agnostic: Any, max_detections: Any
) -> dict[str, NDArray[Any]]:
    """All but the images, as a program has them."""
    return {
        "confidence": np.asarray(confidence, np.float32),
        "iou": np.asarray(iou, np.float32),
        "class_mask": np.asarray(class_mask, bool),
        "multi_label": np.asarray(multi_label, bool),
        "agnostic": np.asarray(agnostic, bool),
        "max_detections": np.asarray(max_detections, np.int64),
    }


def unreadable(what: str, error: Exception) -> InputError:
    """The error of what a runtime does not read."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"cannot be read as {what} ({reason[:200]}); export the weights again")

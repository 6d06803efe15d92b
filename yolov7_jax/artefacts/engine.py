"""What the engines of all runtimes share: a program that is a detector, of images of one size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.artefacts.onnx_nms import INPUTS
from yolov7_jax.artefacts.program import CAPACITY
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
    compiles = False

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
        if not 1 <= max_detections <= CAPACITY:
            raise InputError(f"max_detections must be from 1 to {CAPACITY} in an artefact, got {max_detections}")
        how = {"multi_label": multi_label, "agnostic": agnostic, "max_detections": max_detections}
        inputs = _inputs(images, confidence=confidence, iou=iou, class_mask=class_mask, **how)
        boxes, scores, class_ids, counts = self._run(_DETECTIONS, inputs)
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
        how = {"multi_label": False, "agnostic": False, "max_detections": 1}  # with which next to nothing passes
        inputs = _inputs(images, confidence=1, iou=0, class_mask=np.ones(self.num_classes), **how)
        boxes, scores = self._run(_PREDICTIONS, inputs)
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


def _inputs(images: NDArray[np.uint8], **how: Any) -> dict[str, NDArray[Any]]:
    """As a program has them."""
    return {"images": images, **{name: np.asarray(value, INPUTS[name]) for name, value in how.items()}}


def unreadable(what: str, error: Exception) -> InputError:
    """The error of what a runtime does not read."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"cannot be read as {what} ({reason[:200]}); export the weights again")

"""Artefacts as detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.artefacts.formats import Artefact, open_artefact
from yolov7_jax.artefacts.program import CAPACITY
from yolov7_jax.config import Options
from yolov7_jax.errors import InputError
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.results import Result
from yolov7_jax.types import PaddedDetections


class ExportedDetector(Detector):
    """A detector whose network, decoding and suppression run in an artefact's runtime."""

    settled: ClassVar[tuple[str, ...]] = ("multi_label", "agnostic", "max_detections")

    def __init__(
        self, artefact: Artefact, *, size: int | None = None, report: Callable[[str], None] | None = None
    ) -> None:
        """Takes an artefact that is open. size: the longer side of images in pixels, where the artefact leaves it open.

        Raises:
            InputError: the size is none of the artefact's.
        """
        facts = artefact.facts
        own = max(facts.size) if facts.size is not None else facts.input_size
        self._begin(facts.names, own if size is None else size, facts.stride, report if artefact.compiles else None)
        self.artefact, self.shape = artefact, facts.size
        if facts.size is not None and self.size != own:
            raise InputError(f"the artefact is for images of {facts.size[1]} × {facts.size[0]} pixels, not {size}")
        if self.size % facts.stride:
            raise InputError(f"images of {self.size} pixels: expected a multiple of {facts.stride}")

    @classmethod
    def open(
        cls, path: Path | str, *, size: int | None, report: Callable[[str], None] | None, given: Mapping[str, Any]
    ) -> ExportedDetector:
        """The detector of a file. given: options that an artefact has settled; None where they are not.

        Raises:
            InputError: it cannot be used, or an option is given.
        """
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{path}: an artefact has its own {name}, settled when it was exported; leave it out")
        artefact = open_artefact(path)
        try:
            return cls(artefact, size=size, report=report)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def stream(self, images: Any, options: Options | None = None) -> Iterator[Result]:
        """See `Detector`.

        Raises:
            InputError: more detections are asked for than the artefact has room for, or test-time augmentation.
        """
        if options is not None and options.max_detections > CAPACITY:
            raise InputError(f"max_detections is {options.max_detections}; an artefact has room for {CAPACITY}")
        if options is not None and options.augment:
            raise InputError("an artefact has no test-time augmentation; detect with the weights it was made from")
        return super().stream(images, options)

    def identity(self) -> dict[str, Any]:
        """See `Detector`."""
        facts = self.artefact.facts
        common = {"size": self.size, "dtype": facts.dtype, "the list of classes": self.names}
        return {**common, "the network": facts.program}

    def with_variables(self, variables: Mapping[str, Any]) -> Detector:  # noqa: ARG002
        """Refused: an artefact has its weights inside.

        Raises:
            InputError: always.
        """
        raise InputError("an artefact cannot be given other weights; export them")

    def run(self, images: NDArray[np.uint8], *numbers: Any, **static: Any) -> PaddedDetections:
        """See `Detector`."""
        return self.artefact(images, *numbers, **static)

    def program(self, images: NDArray[np.uint8], *numbers: Any, **static: Any) -> None:
        """None: a runtime compiles, if it does, when it is first given such images."""

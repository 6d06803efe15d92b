"""The formats of artefacts: which file is one, and what opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.artefacts.facts import Facts
from yolov7_jax.artefacts.proof import EXACT, FLOAT16, FLOAT32, Tolerance
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.types import PaddedDetections


class Artefact(Protocol):
    """An artefact that is open in its runtime.

    compiles: whether the first images of a shape wait for a compilation.
    """

    facts: Facts
    compiles: bool

    def __call__(
        self,
        images: NDArray[np.uint8],
        confidence: Any,
        iou: Any,
        class_mask: NDArray[np.bool_],
        *,
        multi_label: bool,
        agnostic: bool,
        max_detections: int,
    ) -> PaddedDetections:
        """Detections in letterboxed images uint8 [B, h, w, 3]."""


class Made(NamedTuple):
    """A program that has no file yet. platforms: that it is for, of which `export` can run it on one."""

    program: bytes
    platforms: tuple[str, ...]
    versions: Mapping[str, str]


class Format(NamedTuple):
    """A format. any_size: whether images may be of any size.

    tolerance: of differences from the source, by the dtypes that it can compute in. make: (weights, (h, w) or None,
    dtype) → its program. pack: (program, facts) → the contents of its files by suffix.
    open: the file of the format's suffix, others beside it, in its runtime.
    """

    any_size: bool
    tolerance: Mapping[str, Tolerance]
    make: Callable[[Weights, tuple[int, int] | None, str], Made]
    pack: Callable[[bytes, Facts], Mapping[str, bytes]]
    open: Callable[[Path], Artefact]


def _stablehlo() -> Format:
    from yolov7_jax.artefacts import stablehlo

    exact = {"float32": EXACT, "bfloat16": EXACT}
    return Format(True, exact, stablehlo.make, stablehlo.pack, stablehlo.StableHlo)


def _onnx() -> Format:
    from yolov7_jax.artefacts import onnx_artefact

    dtypes = {"float32": FLOAT32, "float16": FLOAT16}
    return Format(False, dtypes, onnx_artefact.make, onnx_artefact.pack, onnx_artefact.OnnxArtefact)


def _openvino() -> Format:
    from yolov7_jax.artefacts import openvino_artefact as openvino

    return Format(False, {"float32": FLOAT32}, openvino.make, openvino.pack, openvino.OpenVINOArtefact)


SUFFIXES: Mapping[str, str] = {"stablehlo": ".shlo.zip", "onnx": ".onnx", "openvino": ".xml"}
"""Of the files of each format."""

FORMATS: Mapping[str, Callable[[], Format]] = {"stablehlo": _stablehlo, "onnx": _onnx, "openvino": _openvino}
"""Formats by name; what they need is imported when they are asked for."""


def format_of(path: Path | str) -> str:
    """The name of a file's format, by its suffix.

    Raises:
        InputError: no format has it.
    """
    for name, suffix in SUFFIXES.items():
        if str(path).endswith(suffix):
            return name
    known = ", ".join(f"{suffix} ({name})" for name, suffix in SUFFIXES.items())
    raise InputError(f"{path}: of no known format; expected a name that ends in {known}")


def is_artefact(path: Any) -> bool:
    """Whether a path is that of an artefact, by its suffix."""
    return str(path).endswith(tuple(SUFFIXES.values()))


def open_artefact(path: Path | str) -> Artefact:
    """An artefact in its runtime.

    Raises:
        InputError: it cannot be used. InstallationError: its runtime is not installed.
    """
    try:
        return FORMATS[format_of(path)]().open(Path(path))
    except InstallationError:
        raise
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from error


def content_of(path: Path) -> bytes:
    """What is in a file of an artefact.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); export the weights again") from error

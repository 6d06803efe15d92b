"""ONNX as a format of artefacts: a program, with what it says of itself in the metadata of the file."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from yolov7_jax.artefacts.facts import Facts
from yolov7_jax.artefacts.formats import Made, content_of
from yolov7_jax.artefacts.onnx_engine import OnnxEngine
from yolov7_jax.artefacts.onnx_file import with_metadata, without_metadata
from yolov7_jax.artefacts.onnx_model import onnx_model
from yolov7_jax.convert.weights_file import Weights

_FACTS = "yolov7_jax"
"""Their key in the metadata."""

_WRITERS = ("jax", "onnx", "onnxruntime")
"""Libraries that make the program, and that it is compared by."""


def make(weights: Weights, size: tuple[int, int] | None, dtype: str = "float32") -> Made:
    """The program of weights; see `onnx_model`.

    Raises:
        InstallationError: the package onnx is missing. WeightsError: weights cannot be folded. InputError: weights are
            too large for float16.
    """
    assert size is not None
    program = onnx_model(weights, size=size, dtype=dtype).SerializeToString(deterministic=True)
    return Made(program, ("onnxruntime",), {name: importlib.metadata.version(name) for name in _WRITERS})


def pack(program: bytes, facts: Facts) -> Mapping[str, bytes]:
    """The file of a program."""
    return {".onnx": with_metadata(program, {_FACTS: facts.to_json()})}


class OnnxArtefact(OnnxEngine):
    """An ONNX file that `export` wrote, run by onnxruntime."""

    def __init__(self, path: Path) -> None:
        """Reads and checks the file.

        Raises:
            InputError: it cannot be used. InstallationError: onnx or onnxruntime is not installed.
        """
        program, metadata = without_metadata(content_of(path))
        self.facts = Facts.from_json(metadata.get(_FACTS))
        self.facts.check_program(program)
        super().__init__(program)

"""ONNX as a format of artefacts: a program, with what it says of itself in the metadata of the file."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.export.engine import FORMAT, onnx_content
from yolov7_jax.export.facts import Facts
from yolov7_jax.export.formats import Made
from yolov7_jax.export.onnx_engine import OnnxEngine
from yolov7_jax.export.onnx_file import with_metadata
from yolov7_jax.export.onnx_model import onnx_model

_FACTS = "facts"

_WRITERS = ("jax", "onnx", "onnxruntime")
"""Libraries that make the program, and that it is compared by."""


def make(weights: Weights, size: tuple[int, int] | None, dtype: str = "float32") -> Made:
    """The program of weights; see `onnx_model`. dtype: float32.

    Raises:
        InstallationError: the package onnx is missing. WeightsError: weights cannot be folded.
    """
    assert size is not None
    assert dtype == "float32"
    program = with_metadata(onnx_model(weights, size=size).SerializeToString(), {})
    return Made(program, ("onnxruntime",), {name: importlib.metadata.version(name) for name in _WRITERS})


def pack(program: bytes, facts: Facts) -> bytes:
    """The file of a program."""
    return with_metadata(program, {"format": FORMAT, _FACTS: facts.to_json()})


class OnnxArtefact(OnnxEngine):
    """An ONNX file that `export` wrote, run by onnxruntime."""

    def __init__(self, path: Path | str) -> None:
        """Reads and checks the file.

        Raises:
            InputError: it cannot be used. InstallationError: onnx or onnxruntime is not installed.
        """
        super().__init__(path)
        where = str(path)
        self.facts = Facts.from_json(self.metadata.get(_FACTS, "{}"), where=where)
        self.facts.check_program(with_metadata(onnx_content(Path(path)), {}), where=where)

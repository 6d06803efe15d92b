"""Writes and runs a detector as OpenVINO's two files have it: a network as text, and its weights."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.artefacts.engine import Engine, unreadable
from yolov7_jax.errors import InstallationError


class OpenVINOEngine(Engine):
    """A detector that `as_openvino` made, on the CPU."""

    def __init__(self, text: bytes, data: bytes, *, threads: int | None = None) -> None:
        """Reads both. threads: as many as there are cores if None.

        Raises:
            InputError: it cannot be read or is no detector. InstallationError: the package openvino is missing.
        """
        core = _openvino().Core()
        # In float32 on every CPU: some would else compute in bfloat16.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        settings |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
        try:
            model = core.read_model(text, data)
            self._model = core.compile_model(model, "CPU", settings)
        except Exception as error:  # openvino's are plain RuntimeErrors
            raise unreadable("OpenVINO's", error) from error
        shapes = {part.get_any_name(): _shape(part) for part in model.inputs}
        self._identify(shapes, [name for part in model.outputs for name in part.get_names()])

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        given = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        found = self._model(given)
        return [np.array(found[name]) for name in outputs]


def as_openvino(program: bytes) -> tuple[bytes, bytes]:
    """A serialized ONNX model as OpenVINO's `.xml` and `.bin`, weights as they are.

    Raises:
        InputError: it cannot be read. InstallationError: the package openvino is missing.
    """
    openvino = _openvino()
    try:
        model = openvino.Core().read_model(program)
    except Exception as error:  # openvino's are plain RuntimeErrors
        raise unreadable("ONNX", error) from error
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "network.xml"
        openvino.save_model(model, str(text), compress_to_fp16=False)
        return text.read_bytes(), text.with_suffix(".bin").read_bytes()


def _shape(part: Any) -> list[int]:
    """The sizes of an input, 0 for those that may be any."""
    return [0 if size.is_dynamic else size.get_length() for size in part.get_partial_shape()]


def _openvino() -> Any:
    """The package, without the reports of use that it sends when imported: it forks the process, which JAX forbids."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what is None cannot be imported
    try:
        import openvino
    except ImportError as error:
        raise InstallationError(
            "the package openvino is needed for its files; install it with: pip install 'yolov7-jax[openvino]'"
        ) from error
    return openvino

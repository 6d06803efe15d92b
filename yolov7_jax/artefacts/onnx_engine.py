"""Runs a detector that is an ONNX model, by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.artefacts.engine import Engine, unreadable
from yolov7_jax.errors import InputError, InstallationError

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_ERRORS_ONLY = 3

_ELSEWHERE = b"\x0a\x08location"
"""In a serialized model: the key of where the data of a constant lies, if that is another file."""


class OnnxEngine(Engine):
    """A detector that `onnx_model` made; on a GPU if onnxruntime has one."""

    def __init__(self, program: bytes, *, threads: int | None = None) -> None:
        """Reads a serialized model.

        threads: of the CPU, as many as there are cores if None; they sleep while nothing runs.

        Raises:
            InputError: it cannot be read, refers to other files, of which it could name any, or is no detector.
            InstallationError: the package onnxruntime is missing.
        """
        self._runtime = _onnxruntime()
        if _ELSEWHERE in program:
            raise InputError("has data in other files, which is not read; export the weights again")
        providers = [name for name in _PROVIDERS if name in self._runtime.get_available_providers()]
        try:
            self._session = self._runtime.InferenceSession(program, self._options(threads), providers=providers)
        except Exception as error:  # onnxruntime has a dozen of its own, which share no base but this
            raise unreadable("ONNX", error) from error
        shapes = {given.name: given.shape for given in self._session.get_inputs()}
        outputs = [found.name for found in self._session.get_outputs()]
        self._identify(shapes, outputs)

    def _options(self, threads: int | None) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        options = self._runtime.RunOptions()
        options.only_execute_path_to_fetches = True
        # Of numbers onnxruntime takes arrays without axes, which np.ascontiguousarray would give one.
        given = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        found: list[NDArray[Any]] = self._session.run(list(outputs), given, options)
        return found


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InstallationError(
            "the package onnxruntime is needed to run ONNX files; install it with: pip install 'yolov7-jax[onnx]'"
        ) from error
    return onnxruntime

"""Writes and runs a detector in OpenVINO's files."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.export.engine import Engine, readable, unreadable
from yolov7_jax.export.onnx_file import without_defaults

_METADATA = ["yolov7_jax", "metadata"]
"""Where the metadata stands in the `rt_info` of a model, as JSON: names there must be those of XML."""


class OpenVINOEngine(Engine):
    """A detector in the files that `write_openvino` made, on the CPU."""

    def __init__(self, path: Path | str, *, threads: int | None = None) -> None:
        """Reads an `.xml` file and the `.bin` file beside it. threads: as many as there are cores if None.

        Raises:
            InputError: a file is missing, cannot be read, or was not made by this package.
            InstallationError: the package openvino is missing.
        """
        path = Path(path)
        core = _openvino().Core()
        readable(path, "an .xml file of OpenVINO")
        readable(path.with_suffix(".bin"), f"the weights of {path.name}")
        # In float32 on every CPU: some would else compute in bfloat16.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        settings |= {"INFERENCE_NUM_THREADS": str(threads)} if threads else {}
        try:
            model = core.read_model(str(path))
            shapes = {part.get_any_name(): _shape(part) for part in model.inputs}
            outputs = [name for part in model.outputs for name in part.get_names()]
            self._identify(path, _metadata(model), shapes, outputs)
            self._model = core.compile_model(model, "CPU", settings)
        except InputError:
            raise
        except Exception as error:  # openvino's are plain RuntimeErrors
            raise unreadable(path, "OpenVINO's", error) from error

    def _run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        given = {name: np.asarray(array, order="C") for name, array in {**self._defaults(), **inputs}.items()}
        found = self._model(given)
        return [np.array(found[name]) for name in outputs]

    def _defaults(self) -> dict[str, NDArray[Any]]:
        """With which next to nothing passes: what is asked for lies before non-maximum suppression."""
        numbers = {"confidence": np.float32(1), "iou": np.float32(0), "max_detections": np.int64(1)}
        switches = {"multi_label": np.bool_(False), "agnostic": np.bool_(False)}
        everything = {"class_mask": np.ones(self.num_classes, bool)}
        return {name: np.asarray(value) for name, value in {**numbers, **switches, **everything}.items()}


def write_openvino(onnx_path: Path | str, xml_path: Path | str) -> None:
    """An ONNX file that `onnx_model` made as OpenVINO's `.xml`, with its `.bin` beside it, weights as they are.

    Raises:
        InputError: the ONNX file cannot be read or was not made by this package; the name does not end in .xml; nothing
            can be written there.
        InstallationError: the package openvino, or onnx, is missing.
    """
    onnx_path, xml_path = Path(onnx_path), Path(xml_path)
    if xml_path.suffix != ".xml":
        raise InputError(f"{xml_path}: OpenVINO's files are written as .xml; give a name with that ending")
    openvino = _openvino()
    content, metadata = without_defaults(onnx_path)
    try:
        model = openvino.Core().read_model(content)
    except Exception as error:  # openvino's are plain RuntimeErrors
        raise unreadable(onnx_path, "ONNX", error) from error
    model.set_rt_info(json.dumps(metadata), _METADATA)
    try:
        with tempfile.TemporaryDirectory(dir=xml_path.parent) as folder:
            whole = Path(folder) / xml_path.name
            openvino.save_model(model, str(whole), compress_to_fp16=False)
            for ending in (".bin", ".xml"):
                whole.with_suffix(ending).replace(xml_path.with_suffix(ending))
    except OSError as error:
        raise InputError(f"{xml_path}: cannot be written ({error.strerror}); name a folder that is there") from error


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info(_METADATA):
        return {}
    return {str(key): str(value) for key, value in json.loads(model.get_rt_info(_METADATA).value).items()}


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

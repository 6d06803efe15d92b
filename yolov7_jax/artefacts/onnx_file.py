"""ONNX files: the one place where the package `onnx` is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from yolov7_jax.artefacts.engine import unreadable
from yolov7_jax.artefacts.onnx_steps import OPSET, Step, Steps
from yolov7_jax.errors import InstallationError

if TYPE_CHECKING:
    import onnx

_IR_VERSION = 8  # that of opset 17


class Port(NamedTuple):
    """An input or output of a model: its dtype and shape, of which axes may be named."""

    dtype: DTypeLike
    shape: tuple[int | str, ...]


def model_of(
    steps: Steps,
    inputs: Mapping[str, Port],
    outputs: Mapping[str, tuple[str, Port]],
) -> onnx.ModelProto:
    """Operators as a model, checked.

    inputs: by their names in the steps. outputs: by their names in the model, with those in the steps.

    Raises:
        InstallationError: the package onnx is missing.
    """
    onnx = _onnx()
    renamed = {name: output for output, (name, _) in outputs.items()}
    graph = onnx.helper.make_graph(
        [_node(onnx, step, renamed) for step in steps.steps],
        "detector",
        [_port(onnx, name, port) for name, port in inputs.items()],
        [_port(onnx, name, port) for name, (_, port) in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in steps.constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="yolov7_jax")
    onnx.checker.check_model(model, full_check=True)
    return model


def _port(onnx: Any, name: str, port: Port) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return onnx.helper.make_tensor_value_info(name, kind, port.shape)


def _node(onnx: Any, step: Step, renamed: Mapping[str, str]) -> Any:
    attributes = dict(step.attributes)
    if step.op == "Cast":
        attributes["to"] = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
    inputs, outputs = ([renamed.get(name, name) for name in names] for names in (step.inputs, step.outputs))
    return onnx.helper.make_node(step.op, inputs, outputs, name=step.outputs[0], **attributes)


def with_metadata(program: bytes, metadata: Mapping[str, str]) -> bytes:
    """A serialized model that has no metadata, with these texts."""
    model = _onnx().load_model_from_string(program)
    _onnx().helper.set_model_props(model, dict(metadata))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def without_metadata(content: bytes) -> tuple[bytes, dict[str, str]]:
    """The program that `with_metadata` was given, and the texts.

    Raises:
        InputError: this is no model. InstallationError: the package onnx is missing.
    """
    try:
        model = _onnx().load_model_from_string(content)
    except InstallationError:
        raise
    except Exception as error:  # protobuf's own, whose name differs with its version
        raise unreadable("ONNX", error) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True), metadata


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise InstallationError(
            "the package onnx is needed for ONNX files; install it with: pip install 'yolov7-jax[onnx]'"
        ) from error
    return onnx

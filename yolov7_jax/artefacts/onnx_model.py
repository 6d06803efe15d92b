"""A detector as one ONNX model: network, decoding and non-maximum suppression, thresholds as inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from yolov7_jax.artefacts.onnx_axes import AXES
from yolov7_jax.artefacts.onnx_elements import ELEMENTS
from yolov7_jax.artefacts.onnx_file import Port, model_of
from yolov7_jax.artefacts.onnx_graph import BATCH, Converter, Value, traced
from yolov7_jax.artefacts.onnx_nms import CLASS_MASK, INPUTS, suppress
from yolov7_jax.artefacts.onnx_steps import Steps
from yolov7_jax.artefacts.onnx_sums import SUMS
from yolov7_jax.artefacts.program import CAPACITY, candidates
from yolov7_jax.convert.weights_file import Weights
from yolov7_jax.errors import InputError
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn import cpu
from yolov7_jax.nn.network import Network, lead_outputs
from yolov7_jax.reparameterize import fold

if TYPE_CHECKING:
    import onnx

_NETWORK = "network_in_half"


class Graphed(NamedTuple):
    """Steps of a detector, and its outputs: names in the steps by names in the file."""

    steps: Steps
    outputs: dict[str, str]
    predictions: int


def onnx_model(
    weights: Weights,
    *,
    size: tuple[int, int],
    dtype: str = "float32",
) -> onnx.ModelProto:
    """The detector of weights as an ONNX model (opset 17) for images of one size, in batches of any number.

    Inputs: images uint8 [b, h, w, 3] RGB, letterboxed; class_mask bool [C], the classes wanted; confidence, iou
    (float32), multi_label, agnostic (bool), max_detections (int64, up to 300). None has a default: some runtimes take
    inputs that have one for constants. Outputs: boxes float32 [b, 300, 4], x1, y1, x2, y2 in pixels of the images;
    scores float32 [b, 300]; classes int32 [b, 300]; counts int32 [b]; best first, zero beyond the count. Two more show
    what comes before non-maximum suppression: all_boxes float32 [b, N, 4] and all_scores float32 [b, N, 1 + C],
    objectness and the scores of the classes.

    Args:
        weights: of any form; folded here.
        size: height and width of the images, multiples of the largest stride.
        dtype: of the network, float32 or float16; decoding and non-maximum suppression compute in float32 always.

    Raises:
        GraphError: a side is no such multiple. WeightsError: weights cannot be folded.
        InputError: a layer has an operation that the export does not know, or weights are too large for float16.
        InstallationError: the package onnx is missing.
    """
    graphed = detector_steps(weights, size=size, dtype=dtype)
    classes, predictions = weights.graph.num_classes, graphed.predictions
    inputs = {"images": Port(np.uint8, ("b", *size, weights.graph.channels))}
    inputs |= {name: Port(dtype, (classes,) if name == CLASS_MASK else ()) for name, dtype in INPUTS.items()}
    outputs = {
        "boxes": Port(np.float32, ("b", CAPACITY, 4)),
        "scores": Port(np.float32, ("b", CAPACITY)),
        "classes": Port(np.int32, ("b", CAPACITY)),
        "counts": Port(np.int32, ("b",)),
        "all_boxes": Port(np.float32, ("b", predictions, 4)),
        "all_scores": Port(np.float32, ("b", predictions, 1 + classes)),
    }
    named = {name: (graphed.outputs[name], port) for name, port in outputs.items()}
    return model_of(graphed.steps, inputs, named)


def detector_steps(weights: Weights, *, size: tuple[int, int], dtype: str = "float32") -> Graphed:
    """The operators of `onnx_model`."""
    for side in size:
        weights.graph.check_side(side)
    graph, variables = inference_form(weights.graph), fold(weights.graph, weights.variables)
    images = jax.ShapeDtypeStruct((BATCH, *size, graph.channels), jnp.uint8)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, variables))
    with cpu.tuned(False):
        trace = traced(lambda given, x: _predictions(graph, jax.tree.unflatten(tree, given), x), leaves, images)
    steps = Steps()
    half = _NETWORK if dtype == "float16" else None
    converter = Converter(steps, ELEMENTS | AXES | SUMS, images="images", half=half)
    found = converter.run(trace.jaxpr, trace.consts, [*leaves, Value("images")])
    boxes, objectness, scores = (converter.name(operand) for operand in found)
    _check_range(steps)
    predictions = trace.out_avals[0].shape[1]
    kept = suppress(steps, boxes, objectness, scores, graph.num_classes, predictions)
    all_scores = steps.op("Concat", objectness, scores, axis=2)
    names = ("boxes", "scores", "classes", "counts", "all_boxes", "all_scores")
    outputs = dict(zip(names, (*kept, boxes, all_scores), strict=True))
    steps.finish(outputs.values())
    return Graphed(steps, outputs, predictions)


def _predictions(graph: Graph, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Boxes [b, N, 4] (corners), objectness [b, N, 1] and scores [b, N, C] of images uint8 [b, h, w, 3]."""

    def network_in_half(variables: Any, images: jax.Array) -> jax.Array:
        return lead_outputs(Network(graph), variables, images)

    raw = jax.jit(network_in_half)(variables, images.astype(jnp.float32) / 255)
    boxes, objectness, scores = candidates(graph, raw, image_size=(images.shape[1], images.shape[2]))
    return boxes, objectness[..., None], scores


def _check_range(steps: Steps) -> None:
    if not all(np.isfinite(value).all() for value in steps.constants.values() if value.dtype == np.float16):
        raise InputError("a weight is too large for float16; export the network with dtype float32")

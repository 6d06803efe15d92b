"""The compiled part of detection: network, decoding and non-maximum suppression as one pure function."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from yolov7_jax.graph.spec import Graph
from yolov7_jax.nn import cpu
from yolov7_jax.nn.network import Network, lead_outputs
from yolov7_jax.ops.boxes import cxcywh_to_xyxy
from yolov7_jax.ops.decode import class_scores, decode, make_grid
from yolov7_jax.ops.nms import non_max_suppression
from yolov7_jax.types import PaddedDetections


def detect_batch(
    network: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    *,
    multi_label: bool = False,
    agnostic: bool = False,
    max_detections: int = 300,
) -> PaddedDetections:
    """Letterboxed images uint8 [B, H, W, 3] → detections in their pixels. Pure.

    confidence, iou and class_mask (bool [C]) are traced, so changing them compiles nothing; the last three are static.
    """

    def detect_images(images: jax.Array) -> PaddedDetections:
        return postprocess(
            network.graph,
            lead_outputs(network, variables, images.astype(jnp.float32) / 255),
            confidence,
            iou,
            class_mask,
            image_size=(images.shape[1], images.shape[2]),
            multi_label=multi_label,
            agnostic=agnostic,
            max_detections=max_detections,
        )

    with cpu.tuned(network.cpu_tuning):
        return cpu.by_image(detect_images, images)


def postprocess(
    graph: Graph,
    raw: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    *,
    image_size: tuple[int, int],
    multi_label: bool = False,
    agnostic: bool = False,
    max_detections: int = 300,
) -> PaddedDetections:
    """Raw outputs [B, N, 5 + C] of images of one size (h, w) → detections in their pixels; see `detect_batch`."""
    predictions = decode(raw, make_grid(graph.anchors, graph.strides, image_size))
    nms = partial(
        non_max_suppression,
        class_mask=class_mask,
        confidence=confidence,
        iou=iou,
        multi_label=multi_label,
        agnostic=agnostic,
        max_detections=max_detections,
    )
    scores = class_scores(predictions, single_class_score=graph.single_class_score)
    return jax.vmap(nms)(cxcywh_to_xyxy(predictions[..., :4]), predictions[..., 4], scores)

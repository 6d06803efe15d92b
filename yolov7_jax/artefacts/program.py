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


def predict(network: Network, variables: Mapping[str, Any], images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What detections are chosen from: boxes_xyxy_px [B, N, 4], and objectness and final scores [B, N, 1 + C]. Pure."""
    raw = lead_outputs(network, variables, images.astype(jnp.float32) / 255)
    boxes, objectness, scores = candidates(network.graph, raw, image_size=(images.shape[1], images.shape[2]))
    return boxes, jnp.concatenate([objectness[..., None], scores], axis=-1)


def candidates(graph: Graph, raw: jax.Array, *, image_size: tuple[int, int]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Raw outputs [B, N, 5 + C] of images of one size (h, w) → boxes_xyxy_px, objectness [B, N], scores [B, N, C]."""
    found = decode(raw, make_grid(graph.anchors, graph.strides, image_size))
    scores = class_scores(found, single_class_score=graph.single_class_score)
    return cxcywh_to_xyxy(found[..., :4]), found[..., 4], scores


CAPACITY = 300
"""Detections of an image that a program which is kept has room for: as many as evaluations ask for."""


def detect_batch(
    network: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    *,
    multi_label: bool | jax.Array = False,
    agnostic: bool | jax.Array = False,
    max_detections: int = 300,
) -> PaddedDetections:
    """Letterboxed images uint8 [B, H, W, 3] → detections in their pixels. Pure; on a CPU one image after another.

    confidence, iou and class_mask (bool [C]) are traced, so changing them compiles nothing; multi_label and agnostic
    may be, max_detections is static.
    """
    kind: Any = {"multi_label": multi_label, "agnostic": agnostic, "max_detections": max_detections}

    def detect_images(images: jax.Array) -> PaddedDetections:
        raw = lead_outputs(network, variables, images.astype(jnp.float32) / 255)
        size = images.shape[1], images.shape[2]
        return postprocess(network.graph, raw, confidence, iou, class_mask, image_size=size, **kind)

    with cpu.tuned(network.cpu_tuning):
        found: PaddedDetections = cpu.by_image(detect_images, images)
    return found


def detect_by_inputs(
    network: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    multi_label: jax.Array,
    agnostic: jax.Array,
    max_detections: jax.Array,
) -> dict[str, jax.Array]:
    """`detect_batch` with every option an input, for programs that are kept: one serves all of them. Pure.

    Images uint8 [B, H, W, 3] → boxes float32 [B, 300, 4], scores float32 [B, 300], classes int32 [B, 300], best first
    and zero beyond the counts int32 [B], of which max_detections is the most; overflow int32 [B].
    """
    kind: Any = {"multi_label": multi_label, "agnostic": agnostic, "max_detections": CAPACITY}
    found = detect_batch(network, variables, images, confidence, iou, class_mask, **kind)
    valid = found.valid & (jnp.arange(CAPACITY) < max_detections)[None, :]

    def kept(values: jax.Array) -> jax.Array:
        return jnp.where(valid.reshape(valid.shape + (1,) * (values.ndim - 2)), values, jnp.zeros((), values.dtype))

    return {
        "boxes": kept(found.boxes_xyxy_px),
        "scores": kept(found.scores),
        "classes": kept(found.class_ids),
        "counts": valid.sum(axis=1, dtype=jnp.int32),
        "overflow": found.overflow,
    }


def postprocess(
    graph: Graph,
    raw: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    *,
    image_size: tuple[int, int],
    multi_label: bool | jax.Array = False,
    agnostic: bool | jax.Array = False,
    max_detections: int = 300,
) -> PaddedDetections:
    """Raw outputs [B, N, 5 + C] of images of one size (h, w) → detections in their pixels; see `detect_batch`."""
    nms = partial(
        non_max_suppression,
        class_mask=class_mask,
        confidence=confidence,
        iou=iou,
        multi_label=multi_label,
        agnostic=agnostic,
        max_detections=max_detections,
    )
    return jax.vmap(nms)(*candidates(graph, raw, image_size=image_size))

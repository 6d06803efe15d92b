"""The compiled part of detection: network, decoding and non-maximum suppression as one pure function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

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
    pixels = images.astype(jnp.float32) / 255
    boxes, objectness, scores = candidates_of(network, variables, pixels, augment=False)
    return boxes, jnp.concatenate([objectness[..., None], scores], axis=-1)


def candidates(graph: Graph, raw: jax.Array, *, image_size: tuple[int, int]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Raw outputs [B, N, 5 + C] of images of one size (h, w) → boxes_xyxy_px, objectness [B, N], scores [B, N, C]."""
    found = decode(raw, make_grid(graph.anchors, graph.strides, image_size))
    scores = class_scores(found, single_class_score=graph.single_class_score)
    return cxcywh_to_xyxy(found[..., :4]), found[..., 4], scores


class _Pass(NamedTuple):
    """One look of test-time augmentation: the image resized by a ratio and maybe flipped left to right."""

    ratio: float
    flip: bool
    skip_coarsest: bool = False
    skip_finest: bool = False


_PASSES = (_Pass(1.0, False, skip_coarsest=True), _Pass(0.83, True), _Pass(0.67, False, skip_finest=True))
"""As YOLOv5 augments: of the full size without its coarsest level, of the smallest without its finest."""

_PADDING = 0.447  # beside resized images, in 0..1


def candidates_of(
    network: Network, variables: Mapping[str, Any], images: jax.Array, *, augment: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`candidates` of images [B, H, W, 3] in 0..1; of three passes if augmented, in the pixels of the images. Pure."""
    if augment:
        return joined([_look(network, variables, images, one) for one in _PASSES])
    raw = lead_outputs(network, variables, images)
    return candidates(network.graph, raw, image_size=(images.shape[1], images.shape[2]))


def _look(
    network: Network, variables: Mapping[str, Any], images: jax.Array, look: _Pass
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`candidates` of one pass, in the pixels of the images."""
    graph, width = network.graph, images.shape[2]
    resized = _resized(images[:, :, ::-1] if look.flip else images, look.ratio, graph.max_stride)
    size = (resized.shape[1], resized.shape[2])
    boxes, *rest = candidates(graph, lead_outputs(network, variables, resized), image_size=size)
    boxes = boxes / look.ratio
    if look.flip:
        boxes = jnp.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1)
    levels = make_grid(graph.anchors, graph.strides, size).levels
    first = levels[0].stop if look.skip_finest and len(levels) > 1 else 0
    last = levels[-1].start if look.skip_coarsest and len(levels) > 1 else None
    boxes, objectness, scores = (part[:, first:last] for part in (boxes, *rest))
    return boxes, objectness, scores


def _resized(images: jax.Array, ratio: float, stride: int) -> jax.Array:
    """Images [B, H, W, 3] made smaller, bilinearly, and padded below and on the right to multiples of the stride."""
    if ratio == 1:
        return images
    batch, *sides, channels = images.shape
    smaller = [int(side * ratio) for side in sides]
    padded = [math.ceil(side * ratio / stride) * stride for side in sides]
    resized = jax.image.resize(images, (batch, *smaller, channels), "linear", antialias=False)
    margins = [(0, 0), *((0, whole - side) for whole, side in zip(padded, smaller, strict=True)), (0, 0)]
    return jnp.pad(resized, margins, constant_values=_PADDING)


def joined(found: Sequence[tuple[jax.Array, jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`candidates` of several passes or networks, one after the other along the predictions."""
    if len(found) == 1:
        return found[0]
    boxes, objectness, scores = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    return boxes, objectness, scores


CAPACITY = 300
"""Detections of an image that a program which is kept has room for: as many as evaluations ask for."""


def detect_batch(
    network: Network | tuple[Network, ...],
    variables: Any,
    images: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    *,
    augment: bool = False,
    **suppression: Any,
) -> PaddedDetections:
    """Letterboxed images uint8 [B, H, W, 3] → detections in their pixels. Pure; on a CPU one image after another.

    Several networks, as a tuple with a tuple of variables, are an ensemble: their predictions are joined, then
    suppressed. augment: test-time augmentation, see `candidates_of`. confidence, iou and class_mask (bool [C]) are
    traced, so changing them compiles nothing; the rest is of `suppress`.
    """
    networks, trees = (network, variables) if isinstance(network, tuple) else ((network,), (variables,))

    def detect_images(images: jax.Array) -> PaddedDetections:
        pixels = images.astype(jnp.float32) / 255
        pairs = zip(networks, trees, strict=True)
        found = joined([candidates_of(one, tree, pixels, augment=augment) for one, tree in pairs])
        return suppress(*found, confidence, iou, class_mask, **suppression)

    with cpu.tuned(networks[0].cpu_tuning):
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


def suppress(
    boxes_xyxy_px: jax.Array,
    objectness: jax.Array,
    scores: jax.Array,
    confidence: jax.Array,
    iou: jax.Array,
    class_mask: jax.Array,
    *,
    multi_label: bool | jax.Array = False,
    agnostic: bool | jax.Array = False,
    max_detections: int = 300,
) -> PaddedDetections:
    """`candidates` of images → detections. multi_label and agnostic may be traced, max_detections is static."""
    nms = partial(
        non_max_suppression,
        class_mask=class_mask,
        confidence=confidence,
        iou=iou,
        multi_label=multi_label,
        agnostic=agnostic,
        max_detections=max_detections,
    )
    predictions = (boxes_xyxy_px, objectness, scores)
    if boxes_xyxy_px.shape[0] == 1:  # as images come on CPUs; without `vmap` it is compiled sooner
        return jax.tree.map(lambda leaf: leaf[None], nms(*(array[0] for array in predictions)))
    return jax.vmap(nms)(*predictions)

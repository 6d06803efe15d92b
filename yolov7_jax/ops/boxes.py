"""Formats of boxes: one body for numpy and JAX. Coordinates are edges, so a box of one pixel is one wide."""

from __future__ import annotations

from yolov7_jax.types import ArrayT


def cxcywh_to_xyxy(boxes_cxcywh: ArrayT) -> ArrayT:
    """Corners of boxes given by center and size; [..., 4], any unit."""
    xp = boxes_cxcywh.__array_namespace__()
    center, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] * 0.5
    return xp.concat([center - half, center + half], axis=-1)


def xyxy_to_cxcywh(boxes_xyxy: ArrayT) -> ArrayT:
    """Center and size of boxes given by corners; [..., 4], any unit."""
    xp = boxes_xyxy.__array_namespace__()
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return xp.concat([(low + high) * 0.5, high - low], axis=-1)


def xywh_to_xyxy(boxes_xywh: ArrayT) -> ArrayT:
    """Corners of boxes given by upper left corner and size, as COCO writes them; [..., 4], any unit."""
    xp = boxes_xywh.__array_namespace__()
    low, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return xp.concat([low, low + size], axis=-1)


def xyxy_to_xywh(boxes_xyxy: ArrayT) -> ArrayT:
    """Upper left corner and size, as COCO writes boxes, of boxes given by corners; [..., 4], any unit."""
    xp = boxes_xyxy.__array_namespace__()
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return xp.concat([low, high - low], axis=-1)


def clip_boxes(boxes_xyxy_px: ArrayT, size_hw: tuple[int, int]) -> ArrayT:
    """The part of boxes [..., 4] inside an image of size (h, w); a box wholly outside becomes one without area."""
    xp = boxes_xyxy_px.__array_namespace__()
    height, width = size_hw
    x, y = xp.clip(boxes_xyxy_px[..., 0::2], 0, width), xp.clip(boxes_xyxy_px[..., 1::2], 0, height)
    return xp.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], axis=-1)

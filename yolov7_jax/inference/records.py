"""Detections as text: JSON values and YOLO label lines."""

from __future__ import annotations

from typing import Any

from yolov7_jax.ops.boxes import xyxy_to_cxcywh
from yolov7_jax.types import Detections


def detection_rows(detections: Detections) -> dict[str, Any]:
    """JSON values: one row a detection with class, class_id, score and box_xyxy_px, and the overflow."""
    rows = [
        {
            "class": detections.names[number],
            "class_id": int(number),
            "score": round(float(score), 5),
            "box_xyxy_px": [round(float(edge), 2) for edge in box],
        }
        for box, score, number in zip(detections.boxes_xyxy_px, detections.scores, detections.class_ids, strict=True)
    ]
    return {"detections": rows, "overflow": detections.overflow}


def yolo_lines(detections: Detections, size_hw: tuple[int, int]) -> list[str]:
    """Label lines `class cx cy w h` in fractions of an image of size (h, w), best score first."""
    height, width = size_hw
    boxes = xyxy_to_cxcywh(detections.boxes_xyxy_px) / [width, height, width, height]
    return [
        f"{number} " + " ".join(f"{value:.6f}" for value in box)
        for number, box in zip(detections.class_ids, boxes, strict=True)
    ]

"""Anchors fitted to COCO by k-means, (width, height) in pixels for each level, from fine to coarse."""

from __future__ import annotations

from yolov7_jax.graph.spec import Anchors

YOLOV3_TINY: Anchors = (((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 169), (344, 319)))
"""YOLOv3-tiny and YOLOv4-tiny; strides 16, 32."""

YOLOV3: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""YOLOv3, YOLOv5 and YOLOv7-tiny; strides 8, 16, 32."""

YOLOV4: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
"""YOLOv4, YOLOR and YOLOv7 at 640; strides 8, 16, 32."""

P6: Anchors = (
    ((19, 27), (44, 40), (38, 94)),
    ((96, 68), (86, 152), (180, 137)),
    ((140, 301), (303, 264), (238, 542)),
    ((436, 615), (739, 380), (925, 792)),
)
"""All networks at 1280; strides 8, 16, 32, 64."""

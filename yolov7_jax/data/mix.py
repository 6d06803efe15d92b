"""Two labeled images in one."""

from __future__ import annotations

import numpy as np

from yolov7_jax.image import cv2
from yolov7_jax.types import Sample


def mixup(first: Sample, second: Sample, share: float) -> Sample:
    """Two samples of one shape blended, `share` of the first; all boxes of both, the id of the first.

    Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018; labels are joined, not weighted.
    """
    return Sample(
        cv2.addWeighted(first.image, share, second.image, 1 - share, 0),
        np.concatenate([first.boxes_xyxy_px, second.boxes_xyxy_px]),
        np.concatenate([first.class_ids, second.class_ids]),
        first.id,
    )

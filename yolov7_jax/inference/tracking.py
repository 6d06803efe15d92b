"""Which detections of the frames of a video are the same object, by ByteTrack."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.types import Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

DetectionsT = TypeVar("DetectionsT", bound=Detections)

LOW_CONFIDENCE = 0.1
"""The `confidence` to detect with, as in the paper of ByteTrack: what scores less carries no object on."""

_RANGES = {
    "fps": (1e-3, 1e6),
    "confidence": (0, 1),
    "iou": (0.01, 1),
    "lost_seconds": (0, 3600),
    "min_frames": (1, 1000),
}
_LEAST_FRAMES = 1e-3  # that pass between two updates
_TICKS = 30  # of a second: what the library counts how long an object may be missing in
_FARTHEST = 1e6  # pixels from the origin: no image reaches there
_APART = 1e7  # pixels between the places of two classes, which no object can cross


@dataclass(kw_only=True, eq=False)
class Tracker:
    """Numbers the objects of one video: the same object has the same number in every frame.

    By ByteTrack (Zhang et al. 2022, arXiv:2110.06864) of the package `trackers`: a Kalman filter says where each object
    must be, and detections are matched to these boxes by IoU, first those that score `confidence`, then the others to
    the objects left over. So detect with `confidence=0.1`: low detections start no object, but they carry one on that
    is blurred or half hidden.

    fps: frames of a second, of those that are given to `update`. confidence: the score from which a detection can start
    an object. iou: of a detection and where its object must be, at least; 0.2 in the paper. lost_seconds: how long an
    object may be missing and have the same number after that. min_frames: in a row that an object is found in before it
    gets its number, so that a single false detection has none. agnostic: an object may change its class, as where a
    detector takes the same animal for a horse and a cow in turn; else those of different classes are never the same.

    Raises:
        InputError: a setting is out of its range. InstallationError: the package trackers is missing.
    """

    fps: float = 30
    confidence: float = 0.25
    iou: float = 0.2
    lost_seconds: float = 1
    min_frames: int = 2
    agnostic: bool = False

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} of a tracker must be from {least:g} to {most:g}, got {getattr(self, name):g}")
        # From frame to frame an object that is not missed is not seen for one frame (and a tenth, for rounding).
        ticks = math.ceil((self.lost_seconds + 1.1 / self.fps) * _TICKS)
        self._longest_gap = self.fps * (ticks / _TICKS + 1)  # in frames: none is waited for as long as that
        self._supervision, tracker = _library()
        self._tracker = tracker(
            frame_rate=self.fps,
            lost_track_buffer=ticks,
            track_activation_threshold=self.confidence,
            high_conf_det_threshold=self.confidence,
            minimum_consecutive_frames=self.min_frames,
            minimum_iou_threshold=self.iou,
        )
        self.reset()

    def reset(self) -> None:
        """Forgets all objects, as another video begins; numbers begin at 1 again."""
        self._frame = 0.0
        self._tracker.reset()

    def update(self, found: DetectionsT, *, frames: float = 1) -> DetectionsT:
        """Those detections of the next frame that belong to an object, with its number, best score first.

        Args:
            found: the detections of the frame, also where there are none.
            frames: how many frames have passed since the last update: more than 1 where a live source dropped some;
                fractions are fine.

        Returns:
            Rows of `found`, their boxes and scores as they were, with `track_ids`: int32 from 1 on, each once a frame.

        Raises:
            InputError: no time has passed.
        """
        if not frames >= _LEAST_FRAMES:
            raise InputError(
                f"frames must be at least {_LEAST_FRAMES}, as time passes between two updates, got {frames}"
            )
        self._frame += min(frames, self._longest_gap)
        given = self._supervision.Detections(
            xyxy=self._places(found),
            confidence=found.scores,
            class_id=np.arange(len(found)),  # the row, as the library changes their order
        )
        tracked = self._tracker.update(given, timestamp=self._frame / self.fps)
        numbered = tracked.tracker_id >= 0
        rows, ids = tracked.class_id[numbered], tracked.tracker_id[numbered] + 1
        order = np.lexsort((rows, -found.scores[rows]))
        return replace(found[rows[order]], track_ids=ids[order].astype(np.int32))

    def _places(self, found: Detections) -> NDArray[np.float64]:
        """Boxes [n, 4] for the library, which knows no classes: those of each class lie in a place of their own."""
        boxes = np.nan_to_num(found.boxes_xyxy_px.astype(np.float64)).clip(-_FARTHEST, _FARTHEST)
        return boxes if self.agnostic else boxes + _APART * found.class_ids[:, None]


def _library() -> tuple[Any, Any]:
    """What is imported only where objects are tracked.

    ByteTrack by `trackers` and not by `supervision`, on which it stands, which has had no tracker since 0.31.
    """
    try:
        with warnings.catch_warnings():  # in notebooks, of bars of progress that none of this shows
            warnings.filterwarnings("ignore", message="IProgress not found")
            import supervision
            from trackers import ByteTrackTracker
    except ImportError as error:
        raise InstallationError("tracking needs trackers; install it: pip install 'yolov7-jax[track]'") from error
    return supervision, ByteTrackTracker

"""The door to PyAV (extra `video`): H.264 and VP9, which OpenCV's packages cannot write or are slow at.

Browsers play both. 60 frames of 1280 × 720 pixels on two cores: MPEG-4 by OpenCV 1.1 s, 1.4 MB, 36 dB; VP9 by OpenCV
55 s. H.264 by the preset "superfast" takes three quarters of the time of "veryfast", at a third more bytes and like
quality.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolov7_jax.image import cv2

_H264 = ("libx264", "H.264", {"preset": "superfast", "crf": "23"})
_VP9 = ("libvpx-vp9", "VP9", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "32", "b": "0"})
CODECS = {".mp4": _H264, ".m4v": _H264, ".mov": _H264, ".mkv": _H264, ".webm": _VP9}
"""By ending: FFmpeg's encoder, what people call it, its settings."""


def can_encode(suffix: str) -> bool:
    """Whether PyAV is here and has the codec for files of an ending."""
    if suffix not in CODECS:
        return False
    try:
        import av
    except ImportError:
        return False
    return CODECS[suffix][0] in av.codecs_available


class AvEncoder:
    """Encodes RGB frames of one even size into a file; its methods raise OSError where they cannot."""

    def __init__(self, part: Path, fps: float, shape: tuple[int, int]) -> None:
        """Begins the file; shape: (h, w)."""
        import av

        encoder, self.codec, settings = CODECS[part.suffix.lower()]
        in_front = {} if part.suffix.lower() in (".mkv", ".webm") else {"movflags": "faststart"}  # plays while it loads
        self.container: Any = av.open(str(part.absolute()), "w", options=in_front)
        self.stream: Any = self.container.add_stream(
            encoder, rate=Fraction(fps).limit_denominator(65535), options=settings
        )
        self.stream.height, self.stream.width = shape
        self.stream.pix_fmt = "yuv420p"
        self.planes = np.empty((shape[0] * 3 // 2, shape[1]), np.uint8)
        with _as_os_error():
            self.stream.codec_context.open()

    def write(self, image: NDArray[np.uint8]) -> None:
        """Encodes a frame, uint8 [h, w, 3] RGB."""
        import av

        cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420, dst=self.planes)  # in a quarter of the time that FFmpeg takes
        with _as_os_error():
            self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(self.planes, format="yuv420p")))

    def close(self) -> None:
        """Ends the file."""
        with _as_os_error():
            self.container.mux(self.stream.encode())
            self.container.close()


@contextmanager
def _as_os_error() -> Iterator[None]:
    """PyAV's errors are OSError only where FFmpeg hands on one of the system."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(str(error)) from error

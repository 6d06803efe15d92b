"""Videos whose frames show their number, to be read back after lossy codecs: bits as blocks of black and white."""

import cv2
import numpy as np

BLOCK, BITS = 8, 14  # a block is as large as JPEG's; MPEG-4 keeps its middle within a few gray levels


def numbered(number, shape=(48, 128)):
    """An image uint8 [h, w, 3] RGB that shows a number, on orange."""
    image = np.full((*shape, 3), (230, 120, 10), np.uint8)
    for bit in range(BITS):
        image[BLOCK : 2 * BLOCK, BLOCK * (bit + 1) : BLOCK * (bit + 2)] = 255 * (number >> bit & 1)
    return image


def number_in(image):
    """The number that an image shows."""
    row = image[BLOCK + 2 : 2 * BLOCK - 2].mean((0, 2))
    bits = [row[BLOCK * (bit + 1) + 2 : BLOCK * (bit + 2) - 2].mean() > 127 for bit in range(BITS)]
    return sum(2**bit for bit, is_set in enumerate(bits) if is_set)


def write_clip(path, count, *, fps=25.0, shape=(48, 128), code="FFV1"):
    """A video of numbered frames by OpenCV; FFV1 loses nothing but what YUV does to colors."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), fps, shape[::-1])
    assert writer.isOpened()
    for number in range(count):
        writer.write(cv2.cvtColor(numbered(number, shape), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def jpeg(number, shape=(48, 128)):
    """The bytes of a JPEG of a numbered frame."""
    return cv2.imencode(".jpg", cv2.cvtColor(numbered(number, shape), cv2.COLOR_RGB2BGR))[1].tobytes()


class FakeCapture:
    """A camera in place of OpenCV's, whose frames show their number; `wait` is called before each.

    damaged: numbers of which OpenCV says that there is no frame, once.
    """

    def __init__(self, count=None, *, first=0, wait=lambda: None, fps=30.0, is_open=True, damaged=()):
        self.numbers, self.end = first, None if count is None else first + count
        self.damaged = set(damaged)
        self.wait, self.fps, self.is_open, self.released = wait, fps, is_open, False

    def isOpened(self):  # noqa: N802 (OpenCV's name)
        return self.is_open

    def get(self, fact):
        return self.fps if fact == cv2.CAP_PROP_FPS else -1.0

    def grab(self):
        self.wait()
        if self.numbers == self.end:
            return False
        self.numbers += 1
        return self.numbers - 1 not in self.damaged

    def retrieve(self, _image=None):
        return True, cv2.cvtColor(numbered(self.numbers - 1), cv2.COLOR_RGB2BGR)

    def release(self):
        self.released = True

"""Every kind of input gives the detections of the same image as an array, or one sentence; docs/inputs.md lists them.

`YOLOV7_JAX_WRITE_DOCS=1 pytest tests/inference/test_inputs.py` writes the page anew.
"""

# ruff: noqa: E501 (sentences stand whole)

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.small_networks import noise, small_weights
from yolov7_jax.errors import InputError
from yolov7_jax.image import cv2, encode_image, write_image
from yolov7_jax.inference.detector import Detector

PAGE = ROOT / "docs" / "inputs.md"
HEAD = """# Inputs

What `detector(...)` takes, and what comes. The table is made by the test that tries every row
(`tests/inference/test_inputs.py`). [detect.md](detect.md) says the rest.

| input | comes |
|---|---|
"""

RGB = noise(40, 56)
GRAY = RGB[..., :1].repeat(3, axis=2)
BATCH = np.stack([RGB, noise(40, 56, 1)])
DEEP = (RGB.astype(np.uint16) << 8) + 77


class Kind(NamedTuple):
    """An input, the options it is given with, and the images it stands for or a part of the sentence it ends with."""

    name: str
    make: Callable[[Path], Any]
    comes: list[np.ndarray] | str
    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)


def _file(name: str, image: np.ndarray = RGB) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_image(folder / name, image)
        return folder / name

    return make


def _bytes(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def _folder(folder: Path) -> Path:
    for place, image in enumerate(BATCH):
        write_image(folder / f"{place}.png", image)
    return folder


def _list(folder: Path) -> Path:
    _folder(folder)
    (folder / "list.txt").write_text("1.png\n0.png\n")
    return folder / "list.txt"


def _opened(folder: Path, mode: str) -> Any:
    return _file("a.png")(folder).open(mode)


def _turned_file(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated clockwise
    Image.fromarray(RGB).save(folder / "turned.png", exif=exif)
    return folder / "turned.png"


def _turned(folder: Path) -> Image.Image:
    return Image.open(_turned_file(folder))


def _palette(folder: Path) -> Image.Image:
    return Image.fromarray(GRAY[..., 0]).convert("P")


def _deep_file(folder: Path) -> Path:
    cv2.imwrite(str(folder / "deep.png"), DEEP[..., ::-1])
    return folder / "deep.png"


def _alpha_file(folder: Path) -> Path:
    Image.fromarray(ALPHA).save(folder / "alpha.png")
    return folder / "alpha.png"


class Torchlike:
    """A tensor of another library, as far as numpy sees it."""

    def __init__(self, values: np.ndarray, broken: str | None = None) -> None:
        self.shape, self._values, self._broken = values.shape, values, broken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._broken:
            raise TypeError(self._broken)
        return self._values


PNG = encode_image(RGB, ".png")
FLOAT = (RGB / np.float32(255)).astype(np.float32)
FIRST = RGB.transpose(2, 0, 1)
ALPHA = np.concatenate([RGB, noise(40, 56, 2)[..., :1]], axis=2)

KINDS = [
    Kind("the name of a file", lambda f: str(_file("a.png")(f)), [RGB]),
    Kind("a `Path`", _file("a.png"), [RGB]),
    Kind("a gray file", _file("gray.png", GRAY), [GRAY]),
    Kind("a file of 16 bits", _deep_file, [RGB]),
    Kind("a file with transparency", _alpha_file, [RGB]),
    Kind("a file that EXIF says is rotated", _turned_file, [np.rot90(RGB, -1)]),
    Kind("a folder", lambda f: str(_folder(f)), [*BATCH]),
    Kind("a pattern, `shots/*.png`", lambda f: str(_folder(f) / "*.png"), [*BATCH]),
    Kind("a .txt list of files", _list, [*BATCH[::-1]]),
    Kind("a list of files", lambda f: sorted(_folder(f).iterdir()), [*BATCH]),
    Kind("a tuple of files and arrays", lambda f: (_file("a.png")(f), BATCH[1]), [*BATCH]),
    Kind("a generator", lambda f: (image for image in BATCH), [*BATCH]),
    Kind("an empty list", lambda f: [], []),
    Kind("an array uint8 [h, w, 3] RGB", lambda f: RGB, [RGB]),
    Kind("a view with negative strides", lambda f: RGB[:, ::-1], [RGB[:, ::-1]]),
    Kind("a batch uint8 [B, h, w, 3]", lambda f: BATCH, [*BATCH]),
    Kind("a gray array [h, w]", lambda f: GRAY[..., 0], [GRAY]),
    Kind("a gray array [h, w, 1]", lambda f: GRAY[..., :1], [GRAY]),
    Kind("an array [h, w, 4] RGBA", lambda f: ALPHA, [RGB]),
    Kind("an array of 16 bits", lambda f: DEEP, [RGB]),
    Kind("an array BGR, as OpenCV reads, with `bgr=True`", lambda f: RGB[..., ::-1], [RGB], {"bgr": True}),
    Kind("an array [3, h, w] with `channels_first=True`", lambda f: FIRST, [RGB], {"channels_first": True}),
    Kind("floats in 0..1 with `unit_range=True`", lambda f: FLOAT, [RGB], {"unit_range": True}),
    Kind(
        "a batch of floats [B, 3, h, w], as PyTorch has them, with both",
        lambda f: (BATCH / np.float32(255)).astype(np.float32).transpose(0, 3, 1, 2),
        [*BATCH],
        {"channels_first": True, "unit_range": True},
    ),
    Kind("an array of JAX", lambda f: jnp.asarray(RGB), [RGB]),
    Kind("a batch of JAX", lambda f: jnp.asarray(BATCH), [*BATCH]),
    Kind("bfloat16 of JAX with `unit_range=True`", lambda f: jnp.ones((8, 8, 3), jnp.bfloat16), [np.full((8, 8, 3), 255, np.uint8)], {"unit_range": True}),
    Kind("a tensor that converts to numpy", lambda f: Torchlike(RGB), [RGB]),
    Kind("an image of Pillow", lambda f: Image.fromarray(RGB), [RGB]),
    Kind("one with transparency", lambda f: Image.fromarray(ALPHA), [RGB]),
    Kind("a gray one", lambda f: Image.fromarray(GRAY[..., 0]), [GRAY]),
    Kind("one with a palette", _palette, [GRAY]),
    Kind("one of 16 bits", lambda f: Image.fromarray(DEEP[..., 0]), [GRAY]),
    Kind("one that EXIF says is rotated", _turned, [np.rot90(RGB, -1)]),
    Kind("a list of Pillow's images", lambda f: [Image.fromarray(image) for image in BATCH], [*BATCH]),
    Kind("the bytes of a file", lambda f: PNG, [RGB]),
    Kind("a bytearray", lambda f: bytearray(PNG), [RGB]),
    Kind("a memoryview", lambda f: memoryview(PNG), [RGB]),
    Kind("a file open in mode 'rb'", lambda f: _opened(f, "rb"), [RGB]),
    Kind("`io.BytesIO`", lambda f: io.BytesIO(PNG), [RGB]),
    Kind("a function that gives an image", lambda f: lambda: RGB, [RGB]),
    Kind("an image of one pixel", lambda f: RGB[:1, :1], [RGB[:1, :1]]),
    Kind("a file that is not there", lambda f: f / "absent.jpg", "'{}/absent.jpg' is not there; expected an image, a folder, a pattern such as 'shots/*.jpg' or a .txt list"),
    Kind("one of a list", lambda f: [RGB, f / "absent.jpg"], "{}/absent.jpg: cannot be read (No such file or directory); expected an image"),
    Kind("an empty file", _bytes("a.jpg", b""), "{}/a.jpg: is empty; expected an image"),
    Kind("a file that is no image", _bytes("a.jpg", b"text"), "{}/a.jpg: OpenCV cannot read it as an image; save it anew as JPEG or PNG, or leave it out"),
    Kind("an image that is cut short", _bytes("a.png", PNG[:200]), "{}/a.png: the end of the image is missing; copy or download it again"),
    Kind("a folder without images", lambda f: f, "{}: no images here; expected files ending in .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp"),
    Kind("a pattern that fits nothing", lambda f: str(f / "*.png"), "{}/*.png: no images here; expected files ending in .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp"),
    Kind("an empty string", lambda f: "", "'' is not there; expected an image, a folder, a pattern such as 'shots/*.jpg' or a .txt list"),
    Kind("an address", lambda f: "https://example.com/bus.jpg", "https://example.com/bus.jpg: images are not fetched from the network; download it first (curl -O 'https://example.com/bus.jpg') and give the file"),
    Kind("an array BGR without a word", lambda f: RGB[..., ::-1], [RGB[..., ::-1]]),
    Kind("an array [3, h, w]", lambda f: FIRST, "an image must have 1, 3 or 4 channels in the last axis, [h, w, 3], got uint8 [3, 40, 56]; channels_first is False: give True for arrays [3, h, w]"),
    Kind("floats", lambda f: FLOAT, "an image must be uint8 [h, w, 3] RGB, got float32 [40, 56, 3]; give unit_range=True where its values are 0 to 1, or convert values of 0 to 255 by .round().astype(numpy.uint8)"),
    Kind("floats in 0..255 with `unit_range=True`", lambda f: np.full((8, 8, 3), 254.0), "an image with unit_range=True must have values from 0 to 1, got 254 to 254", {"unit_range": True}),
    Kind("floats with NaN", lambda f: np.full((8, 8, 3), np.nan), "an image with unit_range=True must have values from 0 to 1, got nan to nan", {"unit_range": True}),
    Kind("int64", lambda f: RGB.astype(np.int64), "an image must be uint8 or uint16, got int64 [40, 56, 3]; values of 0 to 255 convert by .astype(numpy.uint8)"),
    Kind("bool", lambda f: RGB > 3, "an image must be uint8 or uint16, got bool [40, 56, 3]; values of 0 to 255 convert by .astype(numpy.uint8)"),
    Kind("objects", lambda f: np.array([[None]]), "an image must be uint8 or uint16, got object [1, 1]; values of 0 to 255 convert by .astype(numpy.uint8)"),
    Kind("five channels", lambda f: np.zeros((8, 8, 5), np.uint8), "an image must have 1, 3 or 4 channels in the last axis, [h, w, 3], got uint8 [8, 8, 5]; channels_first is False: give True for arrays [3, h, w]"),
    Kind("one dimension", lambda f: RGB[0, 0], "an image must be an array [h, w, 3], several [B, h, w, 3], got uint8 [3]"),
    Kind("five dimensions", lambda f: BATCH[None], "an image must be an array [h, w, 3], several [B, h, w, 3], got uint8 [1, 2, 40, 56, 3]"),
    Kind("no pixels", lambda f: RGB[:0], "an image must be an array [h, w, 3], several [B, h, w, 3], got uint8 [0, 56, 3]"),
    Kind("a tensor on a GPU", lambda f: Torchlike(RGB, "can't convert cuda:0 device type tensor to numpy"), "an image of type Torchlike does not convert to numpy (can't convert cuda:0 device type tensor to numpy); move it to the host first"),
    Kind("floats of Pillow (mode F)", lambda f: Image.fromarray(FLOAT[..., 0]), "an image must be uint8 [h, w, 3] RGB, got float32 [40, 56]; give unit_range=True where its values are 0 to 1, or convert values of 0 to 255 by .round().astype(numpy.uint8)"),
    Kind("a file open as text", lambda f: _opened(f, "r"), "a.png: is open as text; open it with mode 'rb'"),
    Kind("bytes that are no image", lambda f: b"text", "image of 4 bytes: OpenCV cannot read it as an image; save it anew as JPEG or PNG, or leave it out"),
    Kind("None", lambda f: None, "an image cannot be a NoneType; expected a file, its bytes, an array [h, w, 3] or an image of Pillow"),
    Kind("a number", lambda f: 7, "an image cannot be a int; expected a file, its bytes, an array [h, w, 3] or an image of Pillow"),
    Kind("a dictionary", lambda f: {"image": RGB}, "an image cannot be a dict; expected a file, its bytes, an array [h, w, 3] or an image of Pillow"),
    Kind("a list of lists", lambda f: [[1, 2]], "an image cannot be a list; expected a file, its bytes, an array [h, w, 3] or an image of Pillow"),
    Kind('one class, `classes="ant"`', lambda f: RGB, [RGB], {"classes": "ant"}),
    Kind("a class that is not there", lambda f: RGB, "class 'dog' is not known; expected a number from 0 to 2 or one of ant, bee, cat", {"classes": "dog"}),
    Kind("an option that is not there, `conf=0.5`", lambda f: RGB, "there is no option 'conf' (it is called confidence here); expected confidence, iou, ", {"conf": 0.5}),
]  # fmt: skip


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_weights())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kind_of_input(detector: Detector, kind: Kind, tmp_path: Path) -> None:
    given = kind.make(tmp_path)
    try:
        _try(detector, kind, given, tmp_path)
    finally:
        if hasattr(given, "close"):
            given.close()


def _try(detector: Detector, kind: Kind, given: Any, tmp_path: Path) -> None:
    if isinstance(kind.comes, str):
        with pytest.raises(InputError) as raised:
            detector(given, **kind.options)
        assert kind.comes.replace("{}", str(tmp_path)) in str(raised.value)
        return
    found = detector(given, **kind.options)
    assert [one.size for one in found] == [image.shape[:2] for image in kind.comes]
    for one, image in zip(found, kind.comes, strict=True):
        assert np.array_equal(one.image, image)
        expected = detector([np.ascontiguousarray(image)], classes=kind.options.get("classes"))[0]
        assert np.array_equal(one.boxes_xyxy_px, expected.boxes_xyxy_px)
        assert np.array_equal(one.scores, expected.scores)
        assert len(one) > 0


def test_the_page_lists_what_is_tested() -> None:
    rows = [f"| {kind.name} | {_comes(kind)} |\n" for kind in KINDS]
    if os.environ.get("YOLOV7_JAX_WRITE_DOCS"):
        PAGE.write_text(HEAD + "".join(rows), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == HEAD + "".join(rows)


def _comes(kind: Kind) -> str:
    if isinstance(kind.comes, str):
        return f"“{kind.comes.replace('{}/', '').replace('{}', 'shots').replace('|', chr(92) + '|')}”"
    count = len(kind.comes)
    return "detections of it" if count == 1 else f"detections of {count} images" if count else "an empty list"

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import yolov7_jax
from yolov7_jax.errors import DataError
from yolov7_jax.image import check_image, decode_image, opencv_threads, read_image, write_image

RNG = np.random.default_rng(0)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (40, 60, 3), np.uint8), (9, 9), 0)  # RGB here, whatever OpenCV thinks


def encoded(image_rgb, suffix, *parameters):
    return cv2.imencode(suffix, np.ascontiguousarray(image_rgb[..., ::-1]), parameters)[1].tobytes()


def png(width, height, depth, color_type, rows, *extra):
    """A PNG written by hand: `rows` is the bytes of each row, `extra` are chunks before the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*each) for each in extra) + pixels + chunk(b"IEND", b"")


def with_segment(jpeg, payload):
    """The JPEG with an APP1 segment put after its start."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".tif", ".ppm"])
def test_lossless_formats_come_back_as_written(tmp_path, suffix):
    path = tmp_path / "new" / "folder" / f"наклейка 猫{suffix}"
    write_image(path, SMOOTH)
    np.testing.assert_array_equal(read_image(path), SMOOTH)
    np.testing.assert_array_equal(read_image(str(path)), SMOOTH)


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".webp"])
def test_lossy_formats_come_back_alike(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", SMOOTH)
    image = read_image(tmp_path / f"a{suffix}")
    assert image.dtype == np.uint8
    # quality 95 of a smooth image with chroma at half size: a few levels; swapped channels would be tens
    assert np.abs(image.astype(int) - SMOOTH).mean() < 6


def test_what_opencv_writes_and_we_read_has_its_channels_in_order():
    red = np.full((3, 2, 3), (250, 10, 30), np.uint8)
    np.testing.assert_array_equal(decode_image(encoded(red, ".png"), name="a"), red)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(2, 1, 8, 0, [bytes([7, 200])]), [[[7] * 3, [200] * 3]]),
        (png(2, 1, 8, 4, [bytes([7, 0, 200, 255])]), [[[7] * 3, [200] * 3]]),
        (png(1, 2, 8, 6, [bytes([1, 2, 3, 0]), bytes([4, 5, 6, 255])]), [[[1, 2, 3]], [[4, 5, 6]]]),
        (png(2, 1, 8, 3, [bytes([1, 0])], (b"PLTE", bytes([9, 8, 7, 1, 2, 3]))), [[[1, 2, 3], [9, 8, 7]]]),
        (png(8, 1, 1, 0, [bytes([0b10000001])]), [[[v] * 3 for v in (255, 0, 0, 0, 0, 0, 0, 255)]]),
        (png(1, 1, 16, 2, [struct.pack(">3H", 0x1234, 0xABCD, 0xFFFF)]), [[[0x12, 0xAB, 0xFF]]]),
        (png(1, 1, 16, 0, [struct.pack(">H", 0x8000)]), [[[0x80] * 3]]),
    ],
    ids=["gray", "gray and alpha", "alpha", "palette", "1 bit", "16 bits", "16 bits gray"],
)
def test_every_kind_of_png_becomes_8_bit_rgb(content, expected):
    image = decode_image(content, name="a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("shape", [(1, 1), (10, 10_000), (10_000, 10)])
def test_extreme_shapes(tmp_path, shape):
    image = RNG.integers(0, 256, (*shape, 3), np.uint8)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (3, lambda stored: stored[::-1, ::-1]),
        (6, lambda stored: np.rot90(stored, -1)),
        (8, lambda stored: np.rot90(stored, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation, upright):
    # The TIFF header, one directory entry: tag 0x0112 (orientation), type 3 (short), one value.
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"
    plain = encoded(SMOOTH, ".jpg")
    stored = decode_image(plain, name="plain")
    np.testing.assert_array_equal(decode_image(with_segment(plain, exif), name="turned"), upright(stored))


@pytest.mark.parametrize(
    "content",
    [
        encoded(SMOOTH, ".jpg"),
        encoded(SMOOTH, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        with_segment(encoded(SMOOTH, ".jpg"), b"Exif\0\0" + encoded(SMOOTH[:8, :8], ".jpg")),  # with a thumbnail
        encoded(SMOOTH, ".png"),
        encoded(SMOOTH, ".bmp"),
        encoded(SMOOTH, ".webp"),
    ],
    ids=["jpeg", "progressive", "thumbnail", "png", "bmp", "webp"],
)
def test_an_image_cut_short_is_refused_wherever_it_is_cut(content, capfd):
    assert decode_image(content, name="whole").shape == SMOOTH.shape
    for length in [*range(1, len(content), len(content) // 40), len(content) - 2, len(content) - 1]:
        with pytest.raises(DataError, match=r"^cut\.x: "):
            decode_image(content[:length], name="cut.x")
    if content[:2] in (b"\xff\xd8", b"\x89P"):  # OpenCV 4 would take a JPEG so
        with pytest.raises(DataError, match="the end of the image is missing"):
            decode_image(content[:-1], name="cut.x")
    assert capfd.readouterr().err == ""


def test_bytes_after_the_end_of_a_jpeg_do_no_harm():
    content = encoded(SMOOTH, ".jpg")
    expected = decode_image(content, name="plain")
    np.testing.assert_array_equal(decode_image(content + b"\xff\xda motion picture", name="phone"), expected)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "cannot read it as an image"),
        (b"\xff\xd8\xff\xe0\x00", "the end of the image is missing"),
        (b"\xff\xd8\xff\xff\xff\xff\xd9", "cannot read it as an image"),
        (png(60_000, 60_000, 8, 2, [bytes(9)]), "cannot read it as an image"),
    ],
)
def test_files_that_are_no_images(tmp_path, content, sentence, capfd):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.jpg: .*{sentence}"):
        read_image(path)
    assert capfd.readouterr().err == ""


NOISE = RNG.integers(0, 256, (200, 300, 3), np.uint8)
THUMBNAIL = encoded(NOISE[:120, :120], ".jpg", cv2.IMWRITE_JPEG_QUALITY, 90)


@pytest.mark.parametrize(
    "content",
    [
        encoded(NOISE, ".jpg"),
        encoded(NOISE, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        with_segment(encoded(NOISE, ".jpg"), b"Exif\0\0" + THUMBNAIL),
        encoded(NOISE, ".jpg") + b"motion picture" * 500,
        encoded(NOISE, ".png"),
        encoded(SMOOTH, ".jpg"),
    ],
    ids=["jpeg", "progressive", "thumbnail", "more after the end", "png", "small"],
)
def test_the_quick_look_says_what_decoding_says(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    check_image(path)
    for length in (0, 9, 500, len(THUMBNAIL) + 40, len(content) // 3, len(content) - 7001, len(content) - 1):
        path.write_bytes(content[: max(length, 0)])
        sentences = []
        for look in (read_image, check_image):
            try:
                look(path)
                sentences.append("")
            except DataError as error:
                sentences.append(str(error))
        assert len(set(sentences)) == 1
    with pytest.raises(DataError, match="is a folder"):
        check_image(tmp_path)
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read"):
        check_image(tmp_path / "gone.jpg")


def test_the_quick_look_does_not_read_all(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(1 << 38)  # more than fits into memory
        file.seek(0, os.SEEK_END)
        file.write(b"IEND\xaeB`\x82")
    check_image(path)


def test_opencv_threads_come_back_after_an_error():
    before = cv2.getNumThreads()
    with pytest.raises(cv2.error), opencv_threads(1):
        cv2.resize(SMOOTH, (cv2.getNumThreads() - 1, 5))  # no width: refused
    assert cv2.getNumThreads() == before


def test_missing_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="is a folder; expected an image"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.pdf"])
def test_unknown_format_cannot_be_written(tmp_path, name):
    with pytest.raises(DataError, match=r"use \.jpg or \.png"):
        write_image(tmp_path / name, SMOOTH)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", SMOOTH)


def test_opencv_without_its_libraries_says_what_to_install(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    package = Path(yolov7_jax.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(package)])}
    command = [sys.executable, "-c", "import yolov7_jax.image"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "InstallationError: OpenCV cannot be imported (libGL.so.1" in done.stderr
    assert "opencv-python-headless" in done.stderr

"""Decoded images that are kept: the same samples, each image decoded once, never more than there is room for."""

import errno
import logging
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.training_source import DrawnSource
from tests.datasets.labeled_images import write_text
from yolov7_jax import files
from yolov7_jax.datasets import image_cache, image_files, open_source
from yolov7_jax.datasets.audit import audit, readable
from yolov7_jax.datasets.image_cache import GIB, with_cached_images
from yolov7_jax.errors import DataError
from yolov7_jax.image import read_image
from yolov7_jax.source import SourceMixin, complete
from yolov7_jax.types import Labels, Sample

SIZES = [(20, 30), (40, 10), (25, 25), (8, 64), (30, 30)]  # (w, h)
PNG_BYTES = [3 * width * height for width, height in SIZES]


def write_image(file: Path, size: tuple[int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(file)


@pytest.fixture
def decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was decoded; the data are in data.yaml."""
    (tmp_path / "images").mkdir()
    for number, size in enumerate(SIZES):
        write_image(tmp_path / "images" / f"{number}.png", size, number)
        write_text(tmp_path / "labels" / f"{number}.txt", "0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.5 0.1 0.5 0.9\n")
    write_text(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat, dog]\n")
    counts: Counter[str] = Counter()

    def counted(path: Path) -> Any:
        counts[path.name] += 1
        return read_image(path)

    monkeypatch.setattr(image_files, "read_image", counted)
    return counts


def opened(folder: Path) -> SourceMixin:
    source = open_source(folder / "data.yaml", "train")
    return readable(source, audit(source))


def assert_same(ours: SourceMixin, theirs: SourceMixin) -> None:
    for index in range(len(theirs)):
        one, other = ours[index], theirs[index]
        assert (one.id, ours.path(index), ours.size(index)) == (other.id, theirs.path(index), theirs.size(index))
        for a, b in zip((*one[:3], *one.polygons), (*other[:3], *other.polygons), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    assert (ours.names, ours.image_ids, ours.category_ids) == (theirs.names, theirs.image_ids, theirs.category_ids)
    assert ours.ground_truth() == theirs.ground_truth()


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(("fit", "spare"), [(0, -1), (1, 0), (3, 0), (3, 700), (5, 10**9)])
def test_samples_are_the_same_and_those_that_fit_are_decoded_once(
    decoded: Counter[str], tmp_path: Path, where: Any, fit: int, spare: int
) -> None:
    room = sum(PNG_BYTES[: max(fit, 1)]) + spare
    source = opened(tmp_path)
    kept = with_cached_images(source, where, room=room, folder=tmp_path / "kept")
    for _ in range(3):
        for index in range(len(source)):
            np.testing.assert_array_equal(kept.read(index), source.read(index))
    expected = {f"{number}.png": 3 + (1 if number < fit else 3) for number in range(len(SIZES))}
    assert decoded == expected
    assert kept.num_bytes == sum(PNG_BYTES[:fit]) <= max(room, 0)
    assert_same(kept, source)
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == (fit if where == "disk" else 0)
    place = "in memory" if where == "memory" else f"on disk, in {tmp_path / 'kept'}"
    assert str(kept) == f"caching {fit} of 5 images {place} (0.00 GiB)"


def test_how_much_it_takes_is_said() -> None:
    class Large(DrawnSource):
        def labels(self, index: int) -> Labels:
            return Labels(size=(4000, 6000), class_ids=np.zeros(0, np.int32), boxes_xyxy_px=np.zeros((0, 4)))

    kept = with_cached_images(complete(Large(count=1234)), "memory", room=8 * GIB)
    assert str(kept) == "caching 119 of 1,234 images in memory (7.98 GiB)"


def test_threads_share_what_is_in_memory(decoded: Counter[str], tmp_path: Path) -> None:
    kept = with_cached_images(opened(tmp_path), "memory", room=10**6)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(kept.read, [0, 1, 2, 3, 4] * 40))
    assert set(decoded.values()) == {1}
    assert all(image is images[at % 5] for at, image in enumerate(images))
    with pytest.raises(ValueError, match="read-only"):
        images[0][:] = 0


def test_a_pickled_copy_begins_empty(decoded: Counter[str], tmp_path: Path) -> None:
    kept = with_cached_images(opened(tmp_path), "memory", room=10**6)
    kept.read(0)
    assert len(pickle.dumps(kept)) < 20_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept)).read(0), kept.read(0))
    assert decoded["0.png"] == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), max_size=12), st.integers(0, 60_000))
def test_what_is_kept_is_the_most_of_the_first_that_fit(sizes: list[tuple[int, int]], room: int) -> None:
    class Blank(SourceMixin):
        names = ("a",)

        def __len__(self) -> int:
            return len(sizes)

        def labels(self, index: int) -> Labels:
            return Labels(size=sizes[index], class_ids=np.zeros(0, np.int32), boxes_xyxy_px=np.zeros((0, 4)))

        def __getitem__(self, index: int) -> Sample:
            image = np.full((*sizes[index], 3), index, np.uint8)
            return Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))

    kept = with_cached_images(Blank(), "memory", room=room)
    for index in range(len(sizes)):
        assert (kept.read(index) == index).all()
    number, taken = 0, 0
    while number < len(sizes) and taken + 3 * sizes[number][0] * sizes[number][1] <= room:
        taken += 3 * sizes[number][0] * sizes[number][1]
        number += 1
    assert kept.kept.tolist() == [index < number for index in range(len(sizes))]
    assert kept.num_bytes == taken
    assert with_cached_images(Blank(), "disk", room=room).num_bytes == 0  # they are no files


def test_later_runs_use_the_files_until_an_image_changes(decoded: Counter[str], tmp_path: Path) -> None:
    def read_all() -> list[Any]:
        kept = with_cached_images(opened(tmp_path), "disk", room=10**6, folder=tmp_path / "kept")
        return [kept.read(index) for index in range(5)]

    before = read_all()
    for ours, theirs in zip(read_all(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(decoded.values()) == {1}
    file = tmp_path / "images" / "1.png"
    time = file.stat().st_mtime_ns
    write_image(file, SIZES[1], 99)
    os.utime(file, ns=(time + 1, time + 1))
    after = read_all()
    np.testing.assert_array_equal(after[1], read_image(file))
    assert (after[1] != before[1]).any()
    assert decoded["1.png"] == 2
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 6  # what was there before is not deleted


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", None])
def test_damaged_files_are_written_anew(decoded: Counter[str], tmp_path: Path, content: bytes | None) -> None:
    kept = with_cached_images(opened(tmp_path), "disk", room=10**6, folder=tmp_path / "kept")
    first = kept.read(2)
    (file,) = (tmp_path / "kept").rglob("*.npy")
    file.write_bytes(file.read_bytes()[:-7] if content is None else content)
    for _ in range(2):
        np.testing.assert_array_equal(kept.read(2), first)
    assert decoded["2.png"] == 2


def test_a_full_disk_is_reported_once_and_reading_goes_on(
    decoded: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = opened(tmp_path)
    kept = with_cached_images(source, "disk", room=10**6, folder=tmp_path / "kept")
    kept.read(0)

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING, "yolov7_jax"):
        assert_same(kept, source)
    (said,) = caplog.messages
    assert said.startswith("no more images are cached: ")
    assert "No space left on device" in said
    names = [image_cache._name(source.path(index)) for index in (0, 1)]
    folders = [tmp_path / "kept" / str(name)[:2] for name in names]  # two, but by a chance of one in 256
    assert set((tmp_path / "kept").rglob("*")) == {*folders, folders[0] / f"{names[0]}.npy"}


def test_an_image_that_is_gone_is_said_as_ever(decoded: Counter[str], tmp_path: Path) -> None:
    kept = with_cached_images(opened(tmp_path), "disk", room=10**6, folder=tmp_path / "kept")
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3\.png: cannot be read"):
        kept.read(3)


def test_the_folder_is_the_users_cache_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = complete(DrawnSource())
    monkeypatch.setattr(
        DrawnSource,
        "labels",
        lambda self, index: Labels(size=(4, 4), class_ids=np.zeros(0, np.int32), boxes_xyxy_px=np.zeros((0, 4))),
        raising=False,
    )
    monkeypatch.delenv(image_cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert with_cached_images(source, "disk", room=0).where == str(tmp_path / "yolov7_jax" / "images")
    monkeypatch.setenv(image_cache.VARIABLE, str(tmp_path / "elsewhere"))
    assert with_cached_images(source, "disk", room=0).where == str(tmp_path / "elsewhere")

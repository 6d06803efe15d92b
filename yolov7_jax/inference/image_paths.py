"""Which images the sources of a command line name."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES
from yolov7_jax.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The images that sources name: in the order of the sources, in each in natural order (2 before 10), each once.

    A source is an image (of any ending), a folder (the images in it, not in folders below), a glob (`**` goes
    through folders below), or a .txt file with an image on each line, relative to the place of the .txt file.

    Raises:
        DataError: a source is not there, has no images, or is a video; names the source, and the line of a list.
    """
    found: dict[Path, Path] = {}
    for source in map(str, sources):
        try:
            for path in _expand(source):
                found.setdefault(path.resolve(), path)
        except OSError as error:
            raise DataError(f"{source}: cannot be read ({error.strerror}); expected images") from error
    return list(found.values())


def refuse_address(source: str | Path) -> None:
    """Says what to do with an address, which would be taken for a file that is not there.

    Raises:
        DataError: it is one.
    """
    if "://" in str(source) and isinstance(source, str):
        raise DataError(
            f"{source}: images are not fetched from the network; download it first (curl -O '{source}') and give the "
            "file"
        )


def _expand(source: str) -> list[Path]:
    refuse_address(source)
    path = Path(source)
    if source and path.is_dir():
        return _images((inside for inside in path.iterdir() if not inside.name.startswith(".")), source)
    if path.suffix.lower() == ".txt" and path.is_file():
        return _listed(path)
    if source and path.exists():
        return [_checked(path, source)]
    if any(sign in source for sign in "*?["):
        matches = glob.iglob(source, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
        return _images(map(Path, matches), source)
    raise DataError(
        f"'{source}' is not there; expected an image, a folder, a pattern such as 'shots/*.jpg' or a .txt list"
    )


def _images(paths: Iterable[Path], source: str) -> list[Path]:
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not images:
        raise DataError(f"{source}: no images here; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(images, key=_natural)


def _listed(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; expected the path of an image on each line") from error
    entries = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise DataError(f"{path}: is empty; expected the path of an image on each line")
    return [_checked(path.parent / entry, f"{path}, line {number}: {entry}") for number, entry in entries]


def _checked(path: Path, source: str) -> Path:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise DataError(f"{source}: is a video; only images can be given, so save its frames as images first")
    if not path.is_file():
        raise DataError(f"{source}: {'is no file' if path.exists() else 'is not there'}; expected an image")
    return path


def _natural(path: Path) -> tuple[list[int | str], str]:
    """A key of order that takes digits as numbers; text and numbers alternate, so that like meets like."""
    parts = re.split(r"([0-9]+)", str(path))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(path)

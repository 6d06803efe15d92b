"""New folders that appear whole or not at all, and the image files put into them."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolov7_jax.datasets.image_files import IMAGE_SUFFIXES
from yolov7_jax.datasets.writers.content import Item, Losses
from yolov7_jax.errors import DataError
from yolov7_jax.image import read_image, write_image

RENAMED = "images renamed, as another has their name or readers would not find it"
_CONVERTED = "images saved anew as PNG, as their names have no ending that readers know"


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its name at the end of the block; after an error nothing is left of it.

    Raises:
        DataError: the target is there and not empty, or something cannot be written, as when the disk is full.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"{target}: is there already; name a new folder, or remove this one")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error}); make room or choose another place: "
            "nothing of it was kept"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class ImageFiles:
    """Puts image files into folders: as hard links where that can be, else as copies; no two of a stem."""

    def __init__(self, *, link: bool, losses: Losses) -> None:
        self._link, self._losses = link, losses
        self._taken: dict[Path, set[str]] = defaultdict(set)

    def put(self, item: Item, folder: Path) -> Path:
        """Puts the image of an item into a folder; returns its file there, whose stem no other file there has.

        Raises:
            DataError: the image cannot be read.
        """
        known = item.path.suffix.lower() in IMAGE_SUFFIXES
        file = folder / f"{self._new_stem(item.path.stem, folder)}{item.path.suffix if known else '.png'}"
        self._losses[_CONVERTED] += not known
        folder.mkdir(parents=True, exist_ok=True)
        if item.read is not None or not known:
            write_image(file, item.read() if item.read is not None else read_image(item.path))
        else:
            self._copy(item.path, file)
        return file

    def _new_stem(self, stem: str, folder: Path) -> str:
        plain, taken = _plain(stem), self._taken[folder]
        new, number = plain, 1
        while new.casefold() in taken:  # some disks make no difference between a and A
            number += 1
            new = f"{plain}_{number}"
        taken.add(new.casefold())
        self._losses[RENAMED] += new != stem
        return new

    def _copy(self, path: Path, file: Path) -> None:
        if not path.is_file():
            raise DataError(f"{path}: the image is not there; data check --fix leaves such images out")
        if self._link:
            try:
                os.link(path.resolve(), file)
            except OSError:  # another disk, or one without links
                pass
            else:
                return
        shutil.copyfile(path, file)


def _plain(stem: str) -> str:
    """A stem that lists of images and listings of folders give back as it is."""
    plain = "".join(letter if letter.isprintable() else "_" for letter in stem.strip().lstrip("."))
    if Path(plain).suffix.lower() in IMAGE_SUFFIXES:
        plain = plain.replace(".", "_")
    return plain or "image"

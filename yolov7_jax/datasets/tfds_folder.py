"""Where TensorFlow Datasets put a data set that it prepared."""

from __future__ import annotations

import os
from pathlib import Path

from yolov7_jax.errors import DataError

PREFIX = "tfds:"
FOLDER_VARIABLE = "TFDS_DATA_DIR"
INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"


def prepared_folder(name: str) -> Path:
    """The folder of a version of a data set.

    Raises:
        DataError: it is not prepared, or its configuration has to be named; says how.
    """
    is_place = name.startswith((".", "~", "/")) or Path(name).is_absolute()
    home = Path(os.environ.get(FOLDER_VARIABLE) or "~/tensorflow_datasets").expanduser()
    base = Path(name).expanduser() if is_place else home / name.replace(":", "/")
    for folder in (base, *sorted(_subfolders(base), key=_version, reverse=True)):
        if (folder / INFO_FILE).is_file() and (folder / FEATURES_FILE).is_file():
            return folder.absolute()
    inner = [
        folder.name for folder in _subfolders(base) if any((it / INFO_FILE).is_file() for it in _subfolders(folder))
    ]
    if inner:
        raise DataError(f"{PREFIX}{name}: name one of its kinds: {', '.join(f'{PREFIX}{name}/{it}' for it in inner)}")
    if is_place:
        raise DataError(
            f"{base}: no prepared data set; expected {INFO_FILE} and {FEATURES_FILE} in it or in its last version"
        )
    raise DataError(
        f"{PREFIX}{name} is not prepared in {home}; set {FOLDER_VARIABLE} to the folder where it is, or prepare it "
        '(which alone needs TensorFlow): pip install tensorflow && python -c "import '
        f"tensorflow_datasets as tfds; tfds.builder('{name}', file_format='array_record', data_dir='{home}')"
        '.download_and_prepare()"'
    )


def _subfolders(folder: Path) -> list[Path]:
    return sorted(it for it in folder.iterdir() if it.is_dir()) if folder.is_dir() else []


def _version(folder: Path) -> tuple[int, ...]:
    """1.10.0 comes after 1.9.0."""
    numbers = folder.name.split(".")
    return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else ()

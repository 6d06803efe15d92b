"""Files that TensorFlow Datasets wrote: where a data set is, and the records of TFRecord files in random access."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


_HEAD = struct.Struct("<Q4x")  # the length of the content, then its checksum
_TAIL_BYTES = 4  # the checksum of the content


class Stretch(NamedTuple):
    """Some records of a file that has `total` of them: `take`, from number `skip` on."""

    file: Path
    skip: int
    take: int
    total: int


@dataclass(frozen=True, eq=False)
class TfRecords:
    """The records of stretches of files, one after another; threads may share it, and it is quick to pickle.

    file_of: int32 [n], which of the files each is in. starts, lengths: int64 [n], where its content is, in bytes.
    """

    files: tuple[Path, ...]
    file_of: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, stretches: Sequence[Stretch]) -> TfRecords:
        """Reads the beginning of every record, to know where it is.

        Raises:
            DataError: a file cannot be read, is cut off, or has not as many records as it should; names it.
        """
        places = [_places(stretch) for stretch in stretches]
        return cls(
            tuple(stretch.file for stretch in stretches),
            np.repeat(np.arange(len(places), dtype=np.int32), [len(place) for place in places]),
            np.concatenate([np.zeros(0, np.int64), *(place[:, 0] for place in places)]),
            np.concatenate([np.zeros(0, np.int64), *(place[:, 1] for place in places)]),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        """The content of a record.

        Raises:
            DataError: the file cannot be read any more.
        """
        file = self.files[self.file_of[index]]
        try:
            with file.open("rb", buffering=0) as stream:
                stream.seek(self.starts[index])
                content = stream.read(self.lengths[index])
        except OSError as error:
            raise _unreadable(file, error) from error
        if len(content) < self.lengths[index]:
            raise _cut_off(file, f"record {index + 1}")
        return content


def _places(stretch: Stretch) -> NDArray[np.int64]:
    """Where the content of each record of a stretch begins, and its length: int64 [take, 2]."""
    places, at = [], 0
    try:
        size = stretch.file.stat().st_size
        with stretch.file.open("rb", buffering=0) as stream:
            while at < size:
                stream.seek(at)
                head = stream.read(_HEAD.size)
                length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else size
                places.append((at + _HEAD.size, length))
                at += _HEAD.size + length + _TAIL_BYTES
    except OSError as error:
        raise _unreadable(stretch.file, error) from error
    if at > size:
        raise _cut_off(stretch.file, f"record {len(places)} of {stretch.total}")
    if len(places) != stretch.total:
        raise DataError(
            f"{stretch.file}: has {len(places)} records, but the data set says {stretch.total}; copy the file again or "
            "prepare the data set anew",
            kind="unreadable shard",
        )
    return np.array(places, np.int64).reshape(-1, 2)[stretch.skip : stretch.skip + stretch.take]


def _unreadable(file: Path, error: OSError) -> DataError:
    return DataError(f"{file}: cannot be read ({error.strerror}); expected a TFRecord file", kind="unreadable shard")


def _cut_off(file: Path, where: str) -> DataError:
    return DataError(
        f"{file}: is cut off or damaged at {where}; copy the file again or prepare the data set anew",
        kind="unreadable shard",
    )

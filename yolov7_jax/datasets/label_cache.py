"""Caches the labels of a data set and its issues between runs, until a file of it changes."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from yolov7_jax.datasets.audit import Findings, audit_labels
from yolov7_jax.datasets.table import LabelTable
from yolov7_jax.errors import InputError
from yolov7_jax.files import cache_folder, write_atomically
from yolov7_jax.prefetch import ProgressBar, no_progress, of_each
from yolov7_jax.source import SourceMixin
from yolov7_jax.types import Issue

CacheMode = Literal["times", "hashes", "off"]
"""What tells that files are the same: sizes and times of change, or hashes of their content; or nothing is kept."""

VARIABLE = "YOLOV7_JAX_LABEL_CACHE"
"""Environment variable: the folder to keep findings in, else labels in yolov7_jax in the user's cache folder."""

_SETTLED_NS = 2_000_000_000
"""Files that changed later than this before they were examined may change again within a tick of their clock."""
_MOST_KEPT = 32  # data sets; those used last stay


def cached_findings(
    source: SourceMixin, *, mode: CacheMode, folder: Path | None = None, progress: ProgressBar = no_progress
) -> Findings:
    """What `audit_labels` finds, or found before in the same files; a source without files is read each time.

    Args:
        source: whose labels to read.
        mode: what the files are known by again.
        folder: where findings are kept; see VARIABLE. One that cannot be written to does no harm.
        progress: a display of progress.
    """
    began, files = time.time_ns(), list(dict.fromkeys(source.files()))
    if mode == "off" or not files:
        return audit_labels(source, progress=progress)
    times = list(of_each(_times, files))
    key = _key(source, mode, files, times if mode == "times" else list(of_each(_content, files)))
    file = (folder or cache_folder("labels", VARIABLE)) / f"{key}.npz"
    findings = _read(file)
    if findings is None:
        findings = audit_labels(source, progress=progress)
        newest = max((changed for *_, changed in times), default=0)
        if began - newest > _SETTLED_NS and list(of_each(_times, files)) == times:
            _write(file, findings)
    return findings


def _key(source: SourceMixin, mode: CacheMode, files: Sequence[Path], states: Sequence[object]) -> str:
    """A hash of all that findings follow from."""
    known = [_code(), mode, type(source).__name__, source.names, source.on_error, source.image_ids, source.settings]
    digest = hashlib.sha256(json.dumps(known).encode())
    for file, state in zip(files, states, strict=True):
        digest.update(f"{file.absolute()}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@cache
def _code() -> str:
    """A hash of the code that findings are made by: other code may find something else in the same files."""
    here = Path(__file__).parent
    digest = hashlib.sha256(f"{np.__version__}\n".encode())
    for file in sorted(here.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _times(file: Path) -> tuple[int, int, int]:
    """Size in bytes, time of change of content and of anything in ns; of a file that is not there -1, the reason, 0."""
    try:
        found = file.stat()
    except OSError as error:
        return -1, error.errno or 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _content(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"error {error.errno}"


def _read(file: Path) -> Findings | None:
    """Findings that were kept; nothing where there are none or the file is damaged."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        os.utime(file)  # used last
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return None
    try:
        unusable = {index: Issue(*issue) for index, issue in json.loads(found.pop("unusable").tobytes())}
        return Findings(LabelTable.from_arrays(found), unusable)
    except (KeyError, ValueError, TypeError):
        return None


def _write(file: Path, findings: Findings) -> None:
    """Keeps findings, whole or not at all."""
    text = json.dumps([[index, list(issue)] for index, issue in findings.unusable.items()])
    arrays: dict[str, Any] = findings.table.arrays() | {"unusable": np.frombuffer(text.encode(), np.uint8)}
    try:
        content = BytesIO()
        np.savez(content, **arrays)
        write_atomically(file, content.getvalue())
        _forget_oldest(file.parent)
    except (InputError, OSError):
        return  # a cache that cannot be written is none


def _forget_oldest(folder: Path) -> None:
    kept: Sequence[Path] = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in kept[_MOST_KEPT:]:
        file.unlink(missing_ok=True)

"""The data YAML that users of yolov5 and yolov7 have: names of classes, and where the images of a split are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolov7_jax.datasets.image_files import list_images, present
from yolov7_jax.errors import DataError
from yolov7_jax.files import read_yaml
from yolov7_jax.types import OnError

SPLITS = ("train", "val", "test")


def read_data_yaml(file: Path) -> dict[str, Any]:
    """The content of a data YAML.

    Raises:
        InputError: the file cannot be read. DataError: it is not a mapping.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected the keys train, val and names, found {type(content).__name__}")
    return content


def class_names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    """Names of the classes, given as a list or as {number: name}, checked against nc where that is given.

    Raises:
        DataError: names missing, with gaps, not text, or not as many as nc says.
    """
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(
                f"{file}: the numbers of names must be 0 to {len(names) - 1} without gaps, found {list(names)}"
            )
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: the key names is missing; expected a list of class names such as names: [cat, dog]")
    for number, name in enumerate(names):
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            raise DataError(f"{file}: name {number} is read as {name!r}; put it in quotes")
    num_classes = content.get("nc", len(names))
    if num_classes != len(names):
        raise DataError(f"{file}: nc says {num_classes} classes but names lists {len(names)}; make them agree")
    return tuple(str(name) for name in names)


def split_images(content: dict[str, Any], split: str, file: Path, *, on_error: OnError = "stop") -> list[Path]:
    """The image files of a split: a folder, a .txt file with one path a line, or a list of these.

    Relative places are looked for from `path` (itself relative to the YAML's folder, else to the working directory), or
    without `path` from these two. A leading ../ that leads nowhere is left out, as some exporters write one too many.
    If errors are skipped, listed images that are not there are in the result; reading them reports it.

    Raises:
        DataError: no such split, no such place, no images, or a listed image is missing (names the line).
    """
    entries = content.get(split)
    if entries is None or entries == "":
        known = [name for name in SPLITS if content.get(name)]
        raise DataError(
            f"{file}: no split {split!r}; it has {', '.join(known) or 'none'}: add the key or choose another"
        )
    entries = entries if isinstance(entries, list) else [entries]
    bases = _bases(content, file)
    images: list[Path] = []
    for entry in entries:
        if not isinstance(entry, str):
            raise DataError(f"{file}: {split} names {entry!r}; expected a folder or a .txt file")
        place = _find(entry, bases, f"{file}: {split}")
        images += list_images(place) if place.is_dir() else _read_list(place, bases, on_error)
    return images


def _bases(content: dict[str, Any], file: Path) -> list[Path]:
    root = content.get("path")
    if root is not None and not isinstance(root, str):
        raise DataError(f"{file}: path is {root!r}; expected a folder")
    starts = [file.parent, Path.cwd()]
    return [start / Path(root).expanduser() for start in starts] if root else starts


def _find(entry: str, bases: list[Path], what: str) -> Path:
    relative = Path(entry).expanduser()
    tried = [base / relative for base in bases]
    if relative.parts[:1] == ("..",):
        tried += [base / Path(*relative.parts[1:]) for base in bases]
    for place in tried:
        if place.exists():
            return place
    where = " nor ".join(dict.fromkeys(map(str, tried)))
    raise DataError(f"{what} names {entry}, which is not there (neither {where}); correct the path")


def _read_list(file: Path, bases: list[Path], on_error: OnError) -> list[Path]:
    numbered = numbered_lines(file, expected="a folder or a text file of image paths")
    if not numbered:
        raise DataError(f"{file}: lists no images; expected one path a line")
    # All lines are relative to one place, so one look decides, however many lines there are.
    decisive = numbered[:1] if on_error == "stop" else numbered
    places = (base for _, line in decisive for base in (file.parent, *bases) if (base / line).exists())
    place = next(places, None)
    if place is None:
        number, first = numbered[0]
        raise DataError(f"{file}, line {number}: the image {first} is not there; correct the path")
    images = [place / line for _, line in numbered]
    if on_error == "stop":
        for (number, line), there in zip(numbered, present(images), strict=True):
            if not there:
                raise DataError(f"{file}, line {number}: the image {line} is not there; correct or remove the line")
    return images


def numbered_lines(file: Path, *, expected: str) -> list[tuple[int, str]]:
    """The lines that are not blank, without blanks around them, and their numbers.

    Raises:
        DataError: the file cannot be read or is not text; says what was expected.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}); expected {expected}") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]

"""Text files with one entry a line."""

from __future__ import annotations

from pathlib import Path

from yolov7_jax.errors import DataError


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

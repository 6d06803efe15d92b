"""Files that are there whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from yolov7_jax.errors import InputError


def write_atomically(file: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8; makes its folder. Readers see the old content or the new, never a part of it.

    Raises:
        InputError: it cannot be written; names it and says why.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")  # several processes may write the same file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}); make room, or choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)

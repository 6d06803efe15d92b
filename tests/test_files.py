import errno
from pathlib import Path

import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.files import write_atomically


@pytest.mark.parametrize("content", ["größer\n", b"\x00\xff"])
def test_a_file_is_written_and_replaced(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "new" / "a.txt"
    write_atomically(file, "before")
    write_atomically(file, content)
    assert file.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(file.parent.iterdir()) == [file]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, "before")

    def interrupted(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(InputError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        write_atomically(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]

import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.files import write_atomically, write_json


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


def test_json_has_null_for_what_is_not_finite_and_text_for_what_it_does_not_know(tmp_path: Path) -> None:
    settings = {"data": Path("data.yaml"), "size": (640, np.int64(640)), "iou": np.float32(0.5), "rect": True}
    rows = [{"name": "犬", "AP": math.nan, "boxes": 0}]
    write_json(
        tmp_path / "run" / "metrics.json", {"AP": 0.25, "AR": -math.inf, "per_class": rows, "settings": settings}
    )
    text = (tmp_path / "run" / "metrics.json").read_text(encoding="utf-8")
    assert "犬" in text
    assert json.loads(text, parse_constant=pytest.fail) == {
        "AP": 0.25,
        "AR": None,
        "per_class": [{"name": "犬", "AP": None, "boxes": 0}],
        "settings": {"data": "data.yaml", "size": [640, 640], "iou": 0.5, "rect": True},
    }


@pytest.mark.parametrize("rows", [[], [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 2, "bbox": [1, 2, 3, 4]}]])
def test_lists_are_written_with_a_row_on_each_line(tmp_path: Path, rows: list):
    write_json(tmp_path / "detections.json", rows)
    text = (tmp_path / "detections.json").read_text(encoding="utf-8")
    assert json.loads(text) == rows
    assert len(text.splitlines()) == max(len(rows), 1) + 2

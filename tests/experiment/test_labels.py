import json
from pathlib import Path

import pytest

from tests.experiment.small_run import write_data
from yolov7_jax.cli.main import main
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import label_statistics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_the_command_counts_draws_and_writes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("YOLOV7_JAX_COMPILATION_CACHE", "off")
    assert main(["data", "stats", str(data), "--size", "64", "--output", str(tmp_path / "stats")]) == 0
    output = capsys.readouterr().out
    assert "20 objects in 10 images: 2.0 an image, 2 at most, 0 images have none" in output
    assert "2 classes: bright 10, dark 10" in output
    read = json.loads((tmp_path / "stats" / "stats.json").read_text())
    assert read["class_objects"] == [10, 10]
    assert read["small"] == 20  # squares of 12 to 27 pixels
    assert sorted(file.name for file in (tmp_path / "stats").iterdir()) == ["classes.png", "labels.png", "stats.json"]


def test_without_a_folder_nothing_is_written(data: Path) -> None:
    done = label_statistics(data)
    assert (done.folder, done.counts.size, done.issues) == (None, 640, ())
    assert label_statistics(data, model="yolov7-w6").counts.size == 1280


def test_images_that_cannot_be_used_are_left_out_and_told(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    (tmp_path / "images" / "3.png").write_bytes(b"")
    done = label_statistics(data)
    assert (done.counts.images, done.counts.objects) == (9, 18)
    assert len(done.issues) == 1
    assert "3.png: is empty" in done.issues[0]


def test_a_size_that_is_none_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="the size is 0; expected a number of pixels"):
        label_statistics(data, size=0)

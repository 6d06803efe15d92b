from pathlib import Path

import numpy as np
import pytest

from tests.experiment.small_run import write_data
from yolov7_jax.cli.main import main
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import show_labels
from yolov7_jax.image import read_image
from yolov7_jax.viz.draw import class_color


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLOV7_JAX_COMPILATION_CACHE", "off")
    return write_data(tmp_path / "data", images=20)


def test_the_command_draws_a_data_set_as_it_is(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(data), "--num-images", "18", "--output", str(tmp_path / "show")]) == 0
    files = [tmp_path / "show" / f"labels-{number}.png" for number in (1, 2)]
    assert capsys.readouterr().out.split() == [str(file) for file in files]
    cell = (320 + 2 * 28 + 8, 320 + 8)  # 64 pixels five times, two lines of heading, a gap
    assert read_image(files[0]).shape == (4 * cell[0] + 8, 4 * cell[1] + 8, 3)
    sheet = read_image(files[1])
    assert sheet.shape == (cell[0] + 8, 2 * cell[1] + 8, 3)
    for class_id in (0, 1):  # of each of two images four edges of 60 pixels and more
        assert (sheet == class_color(class_id)).all(axis=-1).sum() > 2 * 4 * 60


def test_the_seed_chooses(data: Path, tmp_path: Path) -> None:
    shown = [show_labels(data, tmp_path / "show", images=3, seed=seed).files for seed in (0, 0, 1)]
    first, again, other = (read_image(file) for (file,) in shown)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_all_images_are_shown_if_there_are_fewer(data: Path, tmp_path: Path) -> None:
    assert len(show_labels(data, tmp_path / "show", images=1000).files) == 2


def test_images_with_issues_come_first(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, line in ((7, "9 0.5 0.5 0.2 0.2"), (11, "0 0.5 0.5 0.2 0")):
        with (data.parent / "labels" / f"{number}.txt").open("a") as file:
            file.write(f"\n{line}\n")
    (data.parent / "images" / "2.png").write_bytes(b"")
    arguments = ["data", "show", str(data), "--num-images", "2", "--issues-first", "--output", str(tmp_path / "show")]
    assert main(arguments) == 0
    told = capsys.readouterr().err
    assert "2.png: is empty" in told
    assert "7.txt, line 3: class 9 is not one of the 2 classes" in told
    shown = read_image(tmp_path / "show" / "labels-1.png")
    inner = [shown[64 + 28 : 64 + 290, left : left + 320] for left in (8, 8 + 328)]
    given = [read_image(data.parent / "images" / f"{number}.png").repeat(5, 0).repeat(5, 1) for number in (7, 11)]
    scores = [[(part == whole[28 : 28 + 262]).all(-1).mean() for whole in given] for part in inner]
    assert sorted(np.argmax(scores, axis=1).tolist()) == [0, 1]  # both, in either order
    assert np.max(scores, axis=1).min() > 0.5


def test_an_image_that_cannot_be_decoded_is_left_out_and_told(data: Path, tmp_path: Path) -> None:
    content = bytearray((data.parent / "images" / "2.png").read_bytes())
    content[60:-60] = bytes(len(content) - 120)  # both ends are whole
    (data.parent / "images" / "2.png").write_bytes(content)
    done = show_labels(data, tmp_path / "show", images=20)
    assert len(done.files) == 2
    (told,) = done.issues
    assert "2.png" in told


def test_a_json_file_and_a_folder_are_data_sets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(tmp_path)]) == 2
    assert "not a data set known here" in capsys.readouterr().err
    assert main(["data", "show", "absent.json"]) == 2
    assert "absent.json" in capsys.readouterr().err


def test_settings_are_for_configurations(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(data), "train.size=64"]) == 2
    assert f"name a configuration, and the data as data.path={data}" in capsys.readouterr().err


def test_a_name_is_that_of_a_configuration(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "finetun"]) == 2
    assert "no configuration is named 'finetun' (did you mean 'finetune'" in capsys.readouterr().err


def test_no_images_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 images were asked for; expected at least 1"):
        show_labels(data, tmp_path / "show", images=0)
    assert not (tmp_path / "show").exists()

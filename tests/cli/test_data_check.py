from pathlib import Path

import pytest

from tests.datasets.labeled_images import write_png, write_text
from yolov7_jax.cli.main import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight images with an object each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for number in range(8):
        write_png(tmp_path / f"images/scene{number // 2}_{number}.png", value=number)
        write_text(tmp_path / f"labels/scene{number // 2}_{number}.txt", f"{number % 2} 0.5 0.5 0.5 0.5\n")
    write_text(tmp_path / "data.yaml", "train: images\nnames: [cat, dog]\n")
    return tmp_path


def run(*arguments: str) -> int:
    return main(["--no-compilation-cache", "data", *arguments])


def test_warnings_do_not_fail(data: Path, capsys: pytest.CaptureFixture[str]):
    assert run("check", "data.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "warning, tiny image: images/scene0_0.png: has 40 x 20 pixels only"
    assert "warning, tiny image: and 3 more; --all lists them" in lines
    assert [line.split() for line in lines[-4:-1]] == [
        ["kind", "train", "all"],
        ["tiny", "image", "warning", "8"],
        ["class", "with", "few", "objects", "warning", "2"],
    ]
    assert lines[-1] == "8 images (train 8): 0 errors, 10 warnings"
    assert run("check", "data.yaml", "--all") == 0
    assert sum("tiny image: images/" in line for line in capsys.readouterr().out.splitlines()) == 8


def test_errors_fail_and_can_be_left_out(data: Path, capsys: pytest.CaptureFixture[str]):
    write_text(data / "labels/scene0_0.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    (data / "images/scene0_1.png").write_bytes(b"")
    assert run("check", "data.yaml", "--fix", "fixed", "--quick") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("class out of range: labels/scene0_0.txt, line 2: class 7 is not one of the 2 classes")
    assert lines[1] == "empty image: images/scene0_1.png: is empty; expected an image"
    assert "8 images (train 8): 2 errors, 9 warnings" in lines
    assert set(lines[-3:]) == {
        "images left out, empty image: 1",
        "objects left out, as something is wrong with them: 1",
        "see fixed/data.yaml",
    }
    assert run("check", "fixed/data.yaml") == 0


def test_convert_says_what_is_lost(data: Path, capsys: pytest.CaptureFixture[str]):
    write_text(data / "labels/scene0_0.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    assert run("convert", "data.yaml", "voc", "--to", "voc", "--copy") == 0
    assert capsys.readouterr().out.splitlines() == ["polygons left out, as Pascal VOC has boxes only: 1", "see voc"]
    assert run("convert", "voc", "coco", "--to", "coco", "--split", "train") == 0
    assert capsys.readouterr().out.splitlines() == ["see coco/annotations/instances_train.json"]


def test_split_prints_the_classes_of_each(data: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ("--fractions", "0.5,0.5", "--names", "train,val", "--group", "(scene.)", "--seed", "1")
    assert run("split", "data.yaml", "out", *arguments) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["class", "train", "%", "val", "%"],
        ["images", "4", "50.0", "4", "50.0"],
        ["cat", "2", "50.0", "2", "50.0"],
        ["dog", "2", "50.0", "2", "50.0"],
        ["see", "out/data.yaml"],
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("check", "absent.yaml"), "absent.yaml: cannot be read"),
        (("convert", "data.yaml", "images", "--to", "voc"), "images: is there already"),
        (("convert", "data.yaml", "out", "--to", "voc", "--split", "val"), "no split 'val'"),
        (("split", "data.yaml", "out", "--group", "(scene)"), "leave none for"),
        (("split", "data.yaml", "out", "--fractions", "80,20", "--names", "a,b"), "fractions must be positive"),
    ],
)
def test_wrong_input_gets_one_sentence_and_status_2(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
):
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("yolov7-jax: ")
    assert sentence in error


def test_fractions_that_are_no_numbers_show_the_usage(data: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        run("split", "data.yaml", "out", "--fractions", "most,rest")
    assert left.value.code == 2
    assert "'most,rest' are no fractions; expected numbers such as 0.8,0.1,0.1" in capsys.readouterr().err

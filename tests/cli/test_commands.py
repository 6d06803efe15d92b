import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.small_networks import noise, small_weights
from yolov7_jax.cli import detect
from yolov7_jax.cli.main import main
from yolov7_jax.convert.load import load
from yolov7_jax.convert.weights_file import save
from yolov7_jax.image import write_image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with weights, images and a data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLOV7_JAX_COMPILATION_CACHE", "off")
    save("net.safetensors", small_weights())
    (tmp_path / "labels").mkdir()
    for number in range(3):
        write_image(tmp_path / f"images/{number}.png", noise(40, 64, number))
        (tmp_path / f"labels/{number}.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("val: images\nnames: [ant, bee, cat]\n")
    return tmp_path


def run(*arguments: str) -> int:
    return main([str(argument) for argument in arguments])


def test_detect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("detect", "net.safetensors", "--classes", "bee,0", "images", "--output", "out") == 0
    assert " objects in 3 images; see out" in capsys.readouterr().out
    assert len(list((folder / "out/images").iterdir())) == 3
    images = json.loads(Path("out/detections.json").read_text())["images"]
    found = {row["class"] for image in images for row in image["detections"]}
    assert found <= {"bee", "ant"}
    assert found


def test_classes_have_commas_between_them_and_leave_the_sources_alone() -> None:
    parser = argparse.ArgumentParser()
    detect.configure(parser)
    parsed = parser.parse_args(["net.pt", "--classes", "traffic light, dog", "--classes", "3", "bus.jpg", "zoo.jpg"])
    assert parsed.classes == ["traffic light", "dog", "3"]
    assert parsed.sources == ["bus.jpg", "zoo.jpg"]


def test_detect_goes_on_after_unreadable_images_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "images/empty.png").touch()
    assert run("detect", "net.safetensors", "images", "--no-images", "--no-rect", "--batch-size", "2") == 1
    output = capsys.readouterr()
    assert "in 3 images" in output.out
    assert "skipped: images/empty.png: is empty; expected an image" in output.err
    assert not (folder / "runs/detect/images").exists()


def test_val(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("val", "net.safetensors", "--data", "data.yaml", "--rect", "--batch-size", "2") == 0
    output = capsys.readouterr().out
    assert "AP_small" in output
    assert "bee" in output
    assert 0 <= json.loads((folder / "runs/val/metrics.json").read_text())["AP"] <= 1
    assert (folder / "runs/val/confusion.png").exists()


@pytest.mark.parametrize(
    ("names", "by_number"),
    [("[cat, bee, ant]", False), ("[ant, bee]", False), ("[ant, bee, dog]", True)],
)
def test_val_says_when_classes_are_taken_by_their_number(
    folder: Path, capsys: pytest.CaptureFixture[str], names: str, by_number: bool
) -> None:
    (folder / "data.yaml").write_text(f"val: images\nnames: {names}\n")
    assert run("val", "net.safetensors", "--data", "data.yaml", "--batch-size", "2") == 0
    assert ("classes are taken by their number" in capsys.readouterr().err) == by_number


def test_val_of_all_classes_as_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "data.yaml").write_text("val: images\nnames: [one, two]\n")
    assert run("val", "net.safetensors", "--data", "data.yaml", "--single-class", "--batch-size", "2") == 0
    output = capsys.readouterr()
    assert "object" in output.out
    assert "classes are taken by their number" not in output.err
    rows = json.loads((folder / "runs/val/detections.json").read_text())
    assert {row["category_id"] for row in rows} == {1}


def test_single_class_is_short_for_the_setting(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (([], False), (["--single-class"], True)):
        assert run("train", "debug", "--settings", *arguments) == 0
        assert f"data.single_class={expected} " in capsys.readouterr().out


def test_convert_there_and_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("convert", "net.safetensors", "torch.safetensors", "--naming", "torch") == 0
    output = capsys.readouterr().out
    assert "tensors matched" in output
    assert "\ntraining form\n" in output  # of no network that has a name
    assert "model.0.conv.weight" in load_file("torch.safetensors")
    assert run("convert", "torch.safetensors", "back.safetensors") == 0
    ours, back = load_file("net.safetensors"), load_file("back.safetensors")
    assert {k: v.tobytes() for k, v in ours.items()} == {k: v.tobytes() for k, v in back.items()}


def test_reparam(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("reparam", "net.safetensors", "folded.safetensors") == 0
    assert "outputs on a random image are the same" in capsys.readouterr().out
    assert load("folded.safetensors").graph.folded
    assert run("reparam", "folded.safetensors", "again.safetensors") == 0
    assert "inference form already" in capsys.readouterr().out
    assert all(np.array_equal(a, load_file("again.safetensors")[k]) for k, a in load_file("folded.safetensors").items())


def test_summary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("summary", "yolov7-tiny") == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["sum", "78", "layers", "6,228,762", "13.701", "6,219,709", "13.701"]
    assert run("summary", "net.safetensors", "--size", "64") == 0
    assert "3 classes, 64 × 64 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["detect", "absent.pt", "images"], "absent.pt"),
        (["detect", "net.safetensors", "nowhere"], "nowhere"),
        (["detect", "net.safetensors", "images", "--size", "65"], "the image size must be a multiple of 8"),
        (["detect", "net.safetensors", "images", "--size", "0"], "the image size must be a multiple of 8, got 0"),
        (["summary", "yolov7", "--size", "0"], "the image size must be a multiple of 32, got 0"),
        (
            ["val", "net.safetensors", "--data", "data.yaml", "--output", "data.yaml/val"],
            "data.yaml/val: cannot be made",
        ),
        (["detect", "net.safetensors", "images", "--confidence", "25"], "confidence must be a fraction"),
        (["detect", "net.safetensors", "images", "--classes", "dog"], "class 'dog' is not known"),
        (["detect", "data.yaml", "images"], "data.yaml"),
        (["detect", "images/0.png", "images"], "images/0.png"),
        (["val", "net.safetensors", "--data", "absent.yaml"], "absent.yaml"),
        (["val", "net.safetensors", "--data", "net.safetensors"], "net.safetensors"),
        (["val", "net.safetensors", "--data", "data.yaml", "--split", "test"], "test"),
        (["convert", "net.safetensors", "out.pt"], "weights are written as .safetensors"),
        (["convert", "data.yaml", "out.safetensors"], "data.yaml"),
        (["summary", "yolov7-huge"], "no network is named 'yolov7-huge'"),
        (["summary", "data.yaml"], "data.yaml: the key 'anchors' is missing"),
        (["summary", "yolov7", "--size", "100"], "multiple of 32"),
        (["summary", "--all", "--size", "416"], "the image size must be a multiple of 64, got 416"),
        (["summary", "yolov7", "--classes", "0"], "number of classes must be at least 1"),
        (["ablate", "2"], "there is no ablation table '2'; expected one of 3, 4, 5, 6, 7, 8, 10"),
    ],
)
def test_wrong_input_gets_one_sentence_and_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("yolov7-jax: ")
    assert sentence in error
    assert "\n" not in error


def test_wrong_arguments_show_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["detect"])
    assert left.value.code == 2
    assert "usage: yolov7-jax detect" in capsys.readouterr().err


def test_a_full_disk_is_no_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "runs/detect/labels/0.txt")

    monkeypatch.setattr("yolov7_jax.experiment.detect", full)
    assert run("detect", "net.safetensors", "images") == 2
    assert capsys.readouterr().err.startswith("yolov7-jax: runs/detect/labels/0.txt: No space left on device; ")


def test_interrupting_is_no_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yolov7_jax.experiment.detect", interrupted)
    assert run("detect", "net.safetensors", "images") == 130
    assert capsys.readouterr().err.strip().endswith("interrupted")


def test_summary_of_all_networks_is_a_table(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yolov7_jax.graph.zoo.zoo_names", lambda: ("yolov7-tiny", "yolov5n6"))
    assert run("summary", "--all") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-2] == ["yolov7-tiny", "8,", "16,", "32", "640", "78", "6,228,762", "6,219,709", "13.701"]
    assert rows[-1] == ["yolov5n6", "8,", "16,", "32,", "64", "1280", "34", "3,246,940", "3,239,884", "18.236"]
    assert run("summary", "--all", "--size", "640", "--classes", "3") == 0
    tiny, n6 = (line.split()[-5:] for line in capsys.readouterr().out.splitlines()[-2:])
    fewer = 3 * 77 * (128 + 256 + 512 + 3)  # weights and bias of 77 classes
    assert tiny == ["640", "78", f"{6_228_762 - fewer - 3 * 231:,}", f"{6_219_709 - fewer:,}", "13.038"]
    assert n6[0] == "640"


def test_summary_shows_repeats_and_levels_for_training_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("summary", "yolov3") == 0
    assert "Bottleneck × 8" in capsys.readouterr().out
    assert run("summary", "yolov7-w6") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    auxiliary = next(line.split() for line in lines if line.startswith("121 "))
    assert auxiliary == ["121", "Conv", "47", "20", "×", "20", "×", "1280", "5,900,800", "4.719", "-", "-"]


@pytest.mark.parametrize("arguments", [[], ["yolov7", "--all"]])
def test_summary_is_of_one_network_or_of_all(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run("--no-compilation-cache", "summary", *arguments) == 2
    assert "either a MODEL or --all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("theirs", "ours"), [("--conf-thres", "--confidence"), ("--save-conf", None), ("--nosave", "--no-images")]
)
def test_options_of_other_programs_are_named(
    theirs: str, ours: str | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if ours is None:  # the beginning of a name will do
        assert run("detect", "net.safetensors", "images/0.png", theirs) == 0
        return
    with pytest.raises(SystemExit):
        run("detect", "net.safetensors", "images", theirs)
    assert f"{theirs}: it is called {ours} here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("abc", "JAX finds no 'abc' here, but cpu"),
        ("cpu:9", "'9' is no number from 0 to 3"),
        ("cpu:x", "'x' is no number"),
    ],
)
def test_devices_that_are_not_there(
    device: str, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("detect", "net.safetensors", "images", "--device", device) == 2
    assert sentence in capsys.readouterr().err


def test_devices_are_chosen(folder: Path) -> None:
    assert run("detect", "net.safetensors", "images/0.png", "--device", "cpu:1,2", "--half") == 0

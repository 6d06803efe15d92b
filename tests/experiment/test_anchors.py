from pathlib import Path

import pytest

from tests.experiment.small_run import write_data
from yolov7_jax.cli.main import main
from yolov7_jax.config_file import read_config
from yolov7_jax.datasets import open_source
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import fit_anchors
from yolov7_jax.experiment.preparation import starting_weights
from yolov7_jax.graph.zoo import zoo


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLOV7_JAX_COMPILATION_CACHE", "off")
    return tmp_path


def test_the_written_configuration_trains_with_the_new_anchors(data: Path, tmp_path: Path) -> None:
    done = fit_anchors(data, output=tmp_path / "new folder" / "anchors.yaml", size=320, generations=5)
    config = read_config(tmp_path / "new folder" / "anchors.yaml")
    assert config.model.anchors == tuple(tuple(side for pair in level for side in pair) for level in done.found.anchors)
    assert (config.model.name, config.data.path, config.train.size) == ("yolov7-tiny", str(data), 320)
    assert config.train.epochs == read_config("finetune").train.epochs
    comment = done.file.read_text().splitlines()[:4]
    assert all(line.startswith("# ") for line in comment)
    assert f"#   yolov7-jax train '{done.file}'" in comment


def test_boxes_are_measured_at_the_training_size(data: Path) -> None:
    source = open_source(data, "train")
    areas = [
        (box[2] - box[0]) * (box[3] - box[1]) * 10**2  # images of 64 pixels become 640
        for index in range(len(source))
        for box in source.labels(index).boxes_xyxy_px
    ]
    done = fit_anchors(data, generations=0)
    assert done.found.given.boxes == len(areas) == 20
    assert done.file is None
    found = [w * h for level in done.found.anchors for w, h in level]
    # k-means centers lie among the boxes; sides are rounded to a tenth of some hundred pixels.
    assert min(areas) * 0.998 <= min(found) <= max(found) <= max(areas) * 1.002
    assert done.size == 640


def test_the_size_is_that_of_the_network(data: Path) -> None:
    done = fit_anchors(data, "yolov7-w6", generations=0)
    assert done.size == 1280
    assert [len(level) for level in done.found.anchors] == [3, 3, 3, 3]


def test_the_command_prints_both_fits_and_writes_the_file(
    data: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(data.parent / "model.yaml")
    assert main(["anchors", str(data), "--model", model, "--size", "64", "--generations", "20"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("20 boxes of 10 images, whose longer side becomes 64 pixels\n")
    assert "stride 8           8×8  16×16" in output
    assert "see anchors.yaml" in output
    config = read_config("anchors.yaml")
    assert config.model.name == model
    weights, _ = starting_weights(config, ("bright", "dark"))
    assert (
        tuple(tuple(side for pair in level for side in pair) for level in weights.graph.anchors) == config.model.anchors
    )


def test_a_file_is_not_written_over(data: Path, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("anchors.yaml").write_text("mine")
    assert main(["anchors", str(data)]) == 2
    assert "anchors.yaml: is there already; name another file, or remove it" in capsys.readouterr().err
    assert Path("anchors.yaml").read_text() == "mine"


def test_nothing_is_written_where_the_network_has_the_best_anchors(
    tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, images=9)
    pairs = [pair for level in zoo("yolov7-tiny").anchors for pair in level]
    for number, (width, height) in enumerate(pairs):
        label = f"0 0.5 0.5 {width / 640:.9f} {height / 640:.9f}\n"
        (tmp_path / "labels" / f"{number}.txt").write_text(label)
    assert main(["anchors", str(tmp_path / "data.yaml"), "--generations", "2"]) == 0
    assert "No better anchors were found: keep the network's own." in capsys.readouterr().out
    assert not Path("anchors.yaml").exists()


def test_issues_are_told(tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    with (tmp_path / "labels" / "0.txt").open("a") as file:
        file.write("\n7 0.5 0.5 0.5 0.5\n")
    assert main(["anchors", str(tmp_path / "data.yaml"), "--generations", "0"]) == 0
    assert "1 objects or images with errors were left out; the first: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "yolov7-tiniest"}, "no network is named 'yolov7-tiniest'"),
        ({"size": 100}, "multiple of 32, got 100"),
        ({"split": "test"}, "test"),
        ({"output": "anchors.txt"}, "anchors.txt: a configuration is a YAML file"),
        ({"model": {"nc": 1}, "output": "anchors.yaml"}, "a configuration names its network"),
        ({"size": 32, "model": "yolov7-w6"}, "multiple of 64, got 32"),
    ],
)
def test_wrong_wishes_are_refused(data: Path, outside: Path, options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        fit_anchors(data, **options)


def test_too_few_boxes_are_refused_with_the_name_of_the_data(tmp_path: Path) -> None:
    data = write_data(tmp_path, images=4)
    with pytest.raises(InputError, match=r"data.yaml \(train\) at 640 pixels: 8 boxes .* too few for 9 anchors"):
        fit_anchors(data)


def test_data_without_objects_are_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path, images=2)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("")
    with pytest.raises(InputError, match=r"data.yaml \(train\): its 2 images have no objects"):
        fit_anchors(data)

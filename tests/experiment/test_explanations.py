import argparse
from pathlib import Path

import numpy as np
import pytest

from tests.small_networks import noise, small_weights
from yolov7_jax.cli.explaining import add_explaining, check_explaining, explain_detected
from yolov7_jax.config import Options
from yolov7_jax.errors import GraphError, InputError
from yolov7_jax.experiment.explanations import explain_images
from yolov7_jax.image import read_image, write_image
from yolov7_jax.inference.detector import Detector
from yolov7_jax.inference.explain import explain, objectness_maps
from yolov7_jax.prefetch import no_progress
from yolov7_jax.viz.draw import draw_detections, draw_heat
from yolov7_jax.viz.sheet import draw_heats


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(small_weights())


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Two of one stem, and one that cannot be read."""
    paths = [tmp_path / "a.png", tmp_path / "more/a.png", tmp_path / "bad.png"]
    for seed, path in enumerate(paths[:2]):
        write_image(path, noise(64, 64, seed))
    paths[2].touch()
    return paths


def test_drawings_lie_in_a_folder_of_each_image(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    run = explain_images(detector, images, tmp_path / "out", limit=2)
    assert run.folder == tmp_path / "out"
    names = ["detection-1.png", "detection-2.png", "objectness.png"]
    assert run.files == {
        images[0]: [tmp_path / "out/a" / name for name in names],
        images[1]: [tmp_path / "out/a-2" / name for name in names],
    }
    assert list(run.failures) == [images[2]]
    assert run.nothing_found == []
    expected = explain(detector, images[1], limit=2)
    drawn = [read_image(file) for file in run.files[images[1]]]
    for number, found in enumerate(drawn[:2]):
        heat = draw_heat(expected.image, expected[number])
        assert np.array_equal(found, draw_detections(heat, expected.of(number)))
        assert not np.array_equal(found, heat)
    maps = objectness_maps(detector, images[1])
    captions = ["objectness, stride 8", "objectness, all levels"]
    assert np.array_equal(drawn[2], draw_heats(maps.image, [*maps.levels, maps.combined], captions))


def test_by_principal_components_an_image_has_one_map(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    run = explain_images(detector, images[:1], tmp_path / "out", method="eigencam", layer="0")
    assert [file.name for file in run.files[images[0]]] == ["eigencam.png", "objectness.png"]
    expected = explain(detector, images[0], method="eigencam", layer="0")
    drawn = draw_detections(draw_heat(expected.image, expected[0]), expected.detections)
    assert np.array_equal(read_image(run.files[images[0]][0]), drawn)


def test_images_without_detections_are_listed(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    run = explain_images(detector, images[:1], tmp_path / "out", options=Options(confidence=1.0))
    assert run.nothing_found == images[:1]
    assert [file.name for file in run.files[images[0]]] == ["objectness.png"]


def test_what_cannot_be_done_leaves_no_folder(detector: Detector, images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no layer '7'"):
        explain_images(detector, images, tmp_path / "out", layer="7")
    assert not (tmp_path / "out").exists()


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_explaining(parser)
    return parser.parse_args(arguments)


def test_arguments_of_the_command(
    detector: Detector, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = parsed("--explain", "--layer", "0", "--method", "eigencam")
    check_explaining(asked, detector)
    explain_detected(asked, detector, images[:1], tmp_path, Options(confidence=1.0), no_progress)
    folder = tmp_path / "explanations"
    assert (folder / "a/eigencam.png").exists()
    told = capsys.readouterr()
    assert told.out == f"1 images explained; see {folder}\n"
    assert told.err == "1 images with nothing to explain: lower --confidence\n"
    explain_detected(parsed(), detector, images[:1], tmp_path / "none", Options(), no_progress)
    assert not (tmp_path / "none").exists()
    check_explaining(parsed(), detector)
    with pytest.raises(InputError, match="--method says how to explain detections; give --explain too"):
        check_explaining(parsed("--method", "gradcam"), detector)
    with pytest.raises(GraphError, match="no layer 'neck'"):
        check_explaining(parsed("--explain", "--layer", "neck"), detector)

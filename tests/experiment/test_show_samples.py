from pathlib import Path

import pytest

from tests.experiment.small_run import small_config, write_data
from yolov7_jax.cli.main import main
from yolov7_jax.config_file import config_dict
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import show_samples
from yolov7_jax.files import yaml_text
from yolov7_jax.image import read_image

AUX_MODEL = """
nc: 2
anchors: [[8, 8, 16, 16], [24, 24, 40, 40]]
backbone:
  - [-1, 1, Conv, [8, 3, 4]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[1, 2, 1, 2], 1, AuxDetect, [nc, anchors]]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), images=20)


def test_samples_and_their_cells_are_drawn_by_the_command(data: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml_text(config_dict(small_config(data))))
    arguments = ["data", "show", str(tmp_path / "config.yaml"), "--num-images", "17"]
    arguments += ["--output", str(tmp_path / "show")]
    assert main([*arguments, "--assign"]) == 0
    files = sorted(file.name for file in (tmp_path / "show").iterdir())
    assert files == sorted([f"assigned-{n}.png" for n in range(1, 18)] + ["samples-1.png", "samples-2.png"])
    one_level = (320 + 8, 320 + 8 + 28)
    height, width, _ = read_image(tmp_path / "show" / "assigned-1.png").shape
    assert (width, height) == (2 * one_level[0] + 8, one_level[1] + 8)  # two levels, one head


@pytest.mark.parametrize("aux", ["coarse_to_fine", "lead_guided", "independent"])
def test_auxiliary_heads_have_a_row_of_their_own(data: Path, tmp_path: Path, aux: str) -> None:
    (tmp_path / "aux.yaml").write_text(AUX_MODEL)
    config = small_config(data, model={"name": str(tmp_path / "aux.yaml")}, loss={"aux": aux})
    *_, file = show_samples(config, tmp_path / "show", images=1, assign=True)
    assert read_image(file).shape[0] == 2 * (320 + 8 + 28) + 8


def test_no_images_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 images were asked for; expected at least 1"):
        show_samples(small_config(data), tmp_path / "show", images=0)
    assert not (tmp_path / "show").exists()

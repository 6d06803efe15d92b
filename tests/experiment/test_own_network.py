"""A network that a user put together: layers of all families, trained, folded, written for PyTorch and read again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import yolov7_jax as yolo
from tests.experiment.small_run import small_config, write_data
from yolov7_jax.cli.main import main
from yolov7_jax.experiment import train

OWN = """
nc: 2
anchors: 2
depth_multiple: 0.5
width_multiple: 0.5
activation: nn.Hardswish()
backbone:
  - [-1, 1, ReOrg, []]                               # 0, YOLOR
  - [-1, 1, Conv, [16, 3, 1, None, 1, nn.Mish()]]    # 1, YOLOv4
  - [-1, 2, GhostBottleneck, [8, 3, 1]]              # 2, stacked once: round(2 * 0.5)
  - [-1, 1, DownC, [32]]                             # 3, YOLOv7-E6
  - [-1, 2, RepBottleneckCSPB, [32, {identity: false, reversed: true}]]
  - [-1, 2, C3TR, [32]]                              # 5, YOLOv5
  - [-2, 1, Conv, [32, [3, 3], 2]]                   # 6
  - [-1, 2, BottleneckCSP, [32]]                     # 7, YOLOv5 before v4
  - [-1, 2, ResCSPC, [64]]                           # 8, R50-CSP
head:
  - [-1, 1, SPPCSPC, [32]]                           # 9
  - [-1, 1, nn.Upsample, [None, 2, 'nearest']]       # 10
  - [[-1, 5], 1, Concat, [1]]                        # 11
  - [-1, 3, RepConv, [32]]                           # 12, stacked
  - [[12, 5], 1, Shortcut, [1]]                      # 13
  - [-1, 1, Chuncat, [1]]                            # 14
  - [9, 1, Conv, [32, 3, 1]]                         # 15
  - [14, 1, DWConv, [32, 3]]                         # 16, auxiliary
  - [7, 1, Conv, [32]]                               # 17, auxiliary
  - [[14, 15, 16, 17], 1, IAuxDetect, [nc, anchors]]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    data = write_data(folder, images=4)
    (folder / "own.yaml").write_text(OWN)
    config = small_config(data, model={"name": str(folder / "own.yaml")}, train={"epochs": 1, "val_every_epochs": 0})
    return train(config, folder / "run").folder


def test_it_is_trained_folded_and_written_for_pytorch(run: Path, tmp_path: Path) -> None:
    weights = yolo.load(run)
    assert weights.graph.has_aux
    assert [node.repeat for node in weights.graph][12] == 2  # round(3 · 0.5)
    graph, variables = yolo.reparam(weights.graph, weights.variables)
    assert {"16", "17"}.isdisjoint(node.name for node in graph)
    for name, other in (("trained", weights), ("folded", replace(weights, graph=graph, variables=variables))):
        file = tmp_path / f"{name}.safetensors"
        yolo.save(file, other, naming="torch")
        again = yolo.load(file, model=run.parent / "own.yaml")
        for mine, theirs in zip(
            sorted(yolo.to_torch_state(other.graph, other.variables).items()),
            sorted(yolo.to_torch_state(again.graph, again.variables).items()),
            strict=True,
        ):
            assert mine[0] == theirs[0]
            assert np.array_equal(mine[1], theirs[1])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("SPPCSPC, [32]", "SPPCSPX, [32]", "line 18: layer 9: layer kind 'SPPCSPX' is not known"),
        ("[[12, 5], 1, Shortcut", "[[14, 5], 1, Shortcut", "line 22: layer 13: 'from' names layer 14"),
        ("[[12, 5], 1, Shortcut", "[[12, 11], 1, Shortcut", "line 22: layer 13 (Shortcut): it adds two inputs of the"),
        ("[-1, 2, RepBottleneckCSPB, [32, {identity", "[-1, 2, RepBottleneckCSPB, [32, {idntity", "line 12: layer 4:"),
    ],
)
def test_a_broken_one_is_refused_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, sentence: str
) -> None:
    assert old in OWN
    (tmp_path / "own.yaml").write_text(OWN.replace(old, new))
    assert main(["summary", str(tmp_path / "own.yaml")]) == 2
    assert sentence in capsys.readouterr().err

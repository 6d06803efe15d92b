"""Ablations whose networks, data and tables are small; every run takes a second."""

import csv
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

import yolov7_jax as yolo
from tests.experiment.small_run import small_config, write_data
from tests.small_networks import small_weights
from yolov7_jax.cli.main import main
from yolov7_jax.config import Config
from yolov7_jax.config_file import config_dict
from yolov7_jax.errors import InputError
from yolov7_jax.experiment import ablate
from yolov7_jax.experiment.ablations import jobs, tables
from yolov7_jax.experiment.ablations import run as ablation_run
from yolov7_jax.experiment.ablations.results import Results
from yolov7_jax.experiment.ablations.tables import AblationRow, Table
from yolov7_jax.experiment.training import TrainingRun, with_whole_paths
from yolov7_jax.files import new_folder
from yolov7_jax.training.callbacks import Callback, RunInfo
from yolov7_jax.training.log import read_log

TRAINED, EVALUATED = 41, 42


class Listener(Callback):
    """Keeps what is said, counts steps, and interrupts after a number of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notes: list[str] = []
        self.steps = 0
        self.stop_after = stop_after

    def log(self, text: str) -> None:
        self.notes.append(text)

    def on_step(self, _step, _steps, _metrics) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    @property
    def begun(self) -> list[str]:
        return [note for note in self.notes if note.startswith("table ")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a configuration without data, and two tables of this test."""
    data = write_data(tmp_path, images=4)
    settings = config_dict(small_config(data, train={"epochs": 2, "val_every_epochs": 1}))
    settings["data"]["path"] = ""
    small = tmp_path / "small.yaml"
    small.write_text(yolo.yaml_text(settings))
    network = f"model.name={tmp_path / 'model.yaml'}"
    rows = (
        AblationRow("plain", str(small), (network,), (50.0,)),
        AblationRow("one way (round)", str(small), (network, "augment.fliplr=0"), (51.0,), base="plain"),
    )
    trained = Table(TRAINED, "Trained", "nowhere", ("AP",), rows, small=str(small))
    versions = tuple(
        AblationRow(f"IoU {iou}", str(small), (network, f"val.iou={iou}"), (50.0,), base=base)
        for iou, base in ((0.65, ""), (0.1, "IoU 0.65"))
    )
    evaluated = Table(EVALUATED, "Evaluated", "nowhere", ("AP",), versions, trains=False)
    monkeypatch.setattr(tables, "tables", lambda: {TRAINED: trained, EVALUATED: evaluated})
    monkeypatch.setattr(ablation_run, "TRAIN_IMAGES", 4)
    monkeypatch.setattr(ablation_run, "VAL_IMAGES", 2)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of training: what it leaves when it is done, with an AP by seed and row."""

    def leave(config: Config, folder: Path, *, callbacks: Sequence[Callback], progress: object) -> TrainingRun:
        folder = new_folder(folder)
        (folder / "checkpoints/2").mkdir(parents=True)
        (folder / "config.yaml").write_text(yolo.yaml_text(config_dict(with_whole_paths(config))))
        score = 0.25 + 0.125 * config.train.seed + 0.5 * config.augment.fliplr
        row = {"kind": "val", "step": 2, "epoch": config.train.epochs, "AP": score, "AR_1": 0.5}
        (folder / "metrics.jsonl").write_text(json.dumps(row))
        for callback in callbacks:
            callback.on_start(RunInfo(folder, config, steps=2, step=0))
            callback.on_step(2, 2, dict.fromkeys(("box", "obj", "cls", "overflow_boxes"), 0.0))
        return TrainingRun(folder, 2, score, 2, "fitness", True, None)

    monkeypatch.setattr(jobs, "train", leave)


def precision(results: Results) -> list[dict[int, float]]:
    return [result.values("AP") for result in results.rows]


def test_every_row_is_run_for_every_seed_once(home: Path, quick: None) -> None:
    data = f"data.path={home / 'data.yaml'}"
    first = Listener()
    results = ablate(TRAINED, home / "out", seeds=1, overrides=[data], callbacks=[first])
    assert first.begun == ["table 41: plain, seed 0 (1 of 2)", "table 41: one way (round), seed 0 (2 of 2)"]
    assert precision(results) == [{0: 0.5}, {0: 0.25}]
    for run, share in (("plain", 0.5), ("one-way-round", 0.0)):
        assert yolo.read_config(home / "out/runs" / run / "seed-0/config.yaml").augment.fliplr == share

    more = Listener()
    results = ablate(TRAINED, home / "out", seeds=2, overrides=[data], callbacks=[more])
    assert more.begun == ["table 41: plain, seed 1 (2 of 4)", "table 41: one way (round), seed 1 (4 of 4)"]
    assert precision(results) == [{0: 0.5, 1: 0.625}, {0: 0.25, 1: 0.375}]
    lines = list(csv.DictReader((home / "out/table.csv").read_text().splitlines()))
    assert [(line["row"], line["seed"]) for line in lines] == [
        *(("plain", "0"), ("plain", "1")),
        *(("one way (round)", "0"), ("one way (round)", "1")),
    ]
    assert "| 2 of 2 |" in (home / "out/table.md").read_text()
    assert (home / "out/table.png").stat().st_size > 1000

    again = Listener()
    assert precision(ablate(TRAINED, home / "out", seeds=2, overrides=[data], callbacks=[again])) == precision(results)
    assert again.begun == []
    with pytest.raises(InputError, match=r"was made with loss.anchor_t=4.0, not 3.0; .*--output"):
        ablate(TRAINED, home / "out", seeds=2, overrides=[data, "loss.anchor_t=3.0"], callbacks=[again])
    assert again.steps == 0
    ablate(TRAINED, home / "out", seeds=2, overrides=[data, "data.workers=0"], callbacks=[again])
    assert again.steps == 0


def test_what_was_interrupted_is_resumed(home: Path) -> None:
    asked = {"seeds": 1, "rows": ["plain"], "overrides": [f"data.path={home / 'data.yaml'}"]}
    stopped = ablate(TRAINED, home / "out", **asked, callbacks=[Listener(stop_after=1)])
    assert stopped.signal == signal.SIGTERM
    assert precision(stopped) == [{}, {}]
    on = Listener()
    whole = ablate(TRAINED, home / "out", **asked, callbacks=[on])
    assert whole.signal is None
    assert on.steps < 2  # of two steps one at least was done before
    run = home / "out/runs/plain/seed-0"
    assert precision(whole) == [{0: read_log(run / "metrics.jsonl")[-1]["AP"]}, {}]

    # The last thing that a run does is to save: without that it is not finished.
    (run / "checkpoints/2").rename(home / "gone")
    late = Listener()
    assert precision(ablate(TRAINED, home / "out", **asked, callbacks=[late])) == precision(whole)
    assert late.begun == ["table 41: plain, seed 0 (1 of 1)"]


def test_a_row_by_itself_and_a_folder_that_was_only_made(home: Path, quick: None) -> None:
    asked = {"seeds": 1, "overrides": [f"data.path={home / 'data.yaml'}"]}
    (home / "out/runs/one-way-round/seed-0").mkdir(parents=True)
    heard = Listener()
    results = ablate(TRAINED, home / "out", rows=["one-way-round"], **asked, callbacks=[heard])
    assert heard.begun == ["table 41: one way (round), seed 0 (1 of 1)"]
    assert [sorted(scores) for scores in precision(results)] == [[], [0]]
    assert sorted(path.name for path in (home / "out/runs/one-way-round").iterdir()) == ["seed-0"]


def test_processes_share_the_runs_and_the_last_one_has_the_whole_table(home: Path, quick: None, monkeypatch) -> None:
    asked = {"seeds": 2, "overrides": [f"data.path={home / 'data.yaml'}"]}
    expected = ablate(TRAINED, home / "alone", **asked)
    begun = []
    for number in (2, 0, 1):
        heard = Listener()
        results = ablate(TRAINED, home / "out", **asked, share=(number, 3), callbacks=[heard])
        begun.append([note.partition(" (")[0] for note in heard.begun if "round" not in note])
    assert begun == [[], ["table 41: plain, seed 0"], ["table 41: plain, seed 1"]]
    assert precision(results) == precision(expected)
    for file in ("table.md", "table.csv"):
        assert (home / "out" / file).read_bytes() == (home / "alone" / file).read_bytes()
    with pytest.raises(InputError, match="process 3 of 3 was asked for; expected a number from 0 to 2"):
        ablate(TRAINED, home / "out", **asked, share=(3, 3))


def test_a_table_is_written_again_where_another_process_finished_meanwhile(
    home: Path, quick: None, monkeypatch
) -> None:
    asked = {"seeds": 1, "overrides": [f"data.path={home / 'data.yaml'}"]}
    write, tables = ablation_run.write_atomically, []

    def slowly(file: Path, content: str) -> None:
        if file.suffix == ".md":
            tables.append(content)
            if len(tables) == 2:  # the last one, of the first process
                ablate(TRAINED, home / "out", **asked, share=(1, 2))
        write(file, content)

    monkeypatch.setattr(ablation_run, "write_atomically", slowly)
    ablate(TRAINED, home / "out", **asked, share=(0, 2))
    assert (home / "out/table.md").read_text().count("| 1 of 1 |") == 2


def test_processes_that_draw_at_once_leave_one_drawing(home: Path, quick: None, monkeypatch) -> None:
    draw, asked = ablation_run.write_scenes, {"seeds": 1, "overrides": ["train.epochs=1"]}

    def meanwhile(folder: Path, **options) -> Path:
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 0)
            other.setattr(ablation_run, "write_scenes", draw)
            ablate(TRAINED, home / "out", **asked, share=(1, 2))
        return draw(folder, **options)

    monkeypatch.setattr(ablation_run, "write_scenes", meanwhile)
    ablate(TRAINED, home / "out", **asked, share=(0, 2))
    assert [path.name for path in (home / "out").iterdir() if "scenes" in path.name] == ["scenes"]


def test_without_data_images_are_drawn_once(home: Path, quick: None) -> None:
    (home / "out/scenes.part/images").mkdir(parents=True)  # of a drawing that was interrupted
    ablate(TRAINED, home / "out", rows=["plain"], seeds=1, overrides=["train.epochs=1"])
    drawn = {path: path.stat().st_mtime_ns for path in (home / "out/scenes").rglob("*.png")}
    assert len(drawn) == 6
    ablate(TRAINED, home / "out", rows=["one-way-round"], seeds=1, overrides=["train.epochs=1"])
    assert {path: path.stat().st_mtime_ns for path in (home / "out/scenes").rglob("*.png")} == drawn


def test_an_evaluation_evaluates_given_weights(home: Path) -> None:
    weights = home / "weights.safetensors"
    yolo.save(weights, small_weights(2))
    given = [f"model.weights={weights}", f"data.path={home / 'data.yaml'}"]
    results = ablate(EVALUATED, home / "out", overrides=given)
    detector, expected = yolo.Detector.load(weights), []
    for iou in (0.65, 0.1):
        options = yolo.Options(confidence=0.001, iou=iou, multi_label=True, rect=False, batch_size=2)
        found = yolo.validate(detector, yolo.open_source(home / "data.yaml"), options=options)
        expected.append({0: found.result.AP})
    assert expected[0] != expected[1]
    assert precision(results) == expected
    file = home / "out/runs/iou-0-1/seed-0/result.json"
    stored = json.loads(file.read_text())
    assert stored["config"]["val"]["iou"] == 0.1
    stored["numbers"]["AP"] = 0.125
    file.write_text(json.dumps(stored))
    assert precision(ablate(EVALUATED, home / "out", overrides=given))[1] == {0: 0.125}  # it is not done again
    with pytest.raises(InputError, match=r"was made with val.confidence=0.001, not 0.5"):
        ablate(EVALUATED, home / "out", overrides=[*given, "val.confidence=0.5"])


@pytest.mark.parametrize(
    ("table", "arguments", "sentence"),
    [
        (9, [], "there is no ablation table '9'; expected one of 41, 42"),
        (TRAINED, ["--row", "absent"], "table 41 has no row 'absent'; expected one of 'plain', 'one way (round)'"),
        (TRAINED, ["--seeds", "0"], "0 seeds were asked for; expected at least 1"),
        (TRAINED, ["loss.topp=1"], "loss has no key 'topp' (did you mean 'top_k'?"),
        (TRAINED, ["loss.iou_cost=much"], "loss.iou_cost is 'much'; expected a number"),
        (TRAINED, ["augment.fliplr=1"], "augment.fliplr belongs to the rows of table 41; leave it out"),
        (TRAINED, ["train.seed=5"], "train.seed is what --seeds is for; leave it out"),
        (TRAINED, ["model.weights=a.pt"], "model.weights belongs to the rows of table 41; leave it out"),
        (TRAINED, ["train.val_every_epochs=0"], "train.val_every_epochs=0 leaves nothing to compare"),
        (TRAINED, ["train.size=100"], "multiple of 16, got 100"),
        (TRAINED, ["--scale", "paper"], "data.path is not set; name the data"),
        (
            EVALUATED,
            [],
            "table 42 evaluates weights of YOLOv7-X and trains nothing; name them: model.weights=yolov7x.pt",
        ),
        (EVALUATED, ["model.weights=a.pt"], "data.path is not set; name the data"),
        (TRAINED, ["data.path=absent.yaml"], "absent.yaml"),
    ],
)
def test_wrong_input_gets_one_sentence_and_nothing_is_written(home, capsys, table, arguments, sentence) -> None:
    assert main(["ablate", str(table), *arguments, "--output", str(home / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "\n" not in error
    assert not (home / "out").exists()


def test_the_command(
    home: Path, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert main(["ablate", "41", "--plan"]) == 0
    plan = capsys.readouterr().out
    assert "one way (round)" in plan
    assert "51.0" in plan
    assert not (home / "runs").exists()
    asked = ["ablate", "41", "data.path=data.yaml", "--seeds", "1", "--row", "plain"]
    assert main(asked) == 0
    assert "see runs/ablate/41-small" in capsys.readouterr().out
    assert "1 of 1" in (home / "runs/ablate/41-small/table.md").read_text()
    assert main([*asked, "--processes", "2"]) == 2
    assert "--processes and --process-id belong together" in capsys.readouterr().err
    shares = []
    monkeypatch.setattr(
        "yolov7_jax.experiment.ablate", lambda *_, share=None, **__: shares.append(share) or ablate(TRAINED)
    )
    assert main([*asked, "--processes", "2", "--process-id", "1"]) == 0
    with monkeypatch.context() as slurm:
        for key, value in (("STEP_NUM_TASKS", "4"), ("STEP_NODELIST", "a,b"), ("PROCID", "3")):
            slurm.setenv(f"SLURM_{key}", value)
        assert main(asked) == 0
    assert [share for share in shares if share] == [(1, 2), (3, 4)]
    monkeypatch.setattr("yolov7_jax.experiment.ablate", ablate)

    monkeypatch.setattr("yolov7_jax.experiment.ablations.run.run_job", lambda *_: signal.SIGTERM)
    assert main([*asked[:-1], "one-way-round"]) == 128 + signal.SIGTERM
    assert "saved; the same command resumes" in capsys.readouterr().out

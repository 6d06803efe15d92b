import csv
import math
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="pip install optuna")

from tests.experiment.small_run import small_config, write_data
from tests.experiment.tuning.quick_search import EPOCHS, SPACE, QuickRuns, config, replace_runs, true_score
from yolov7_jax.cli.main import main
from yolov7_jax.config_file import config_dict, read_config
from yolov7_jax.errors import DataError, InputError, InstallationError
from yolov7_jax.experiment import train, tune, tune_report
from yolov7_jax.experiment.tuning.space import with_settings
from yolov7_jax.experiment.tuning.study import OwnTrial
from yolov7_jax.training.log import read_log
from yolov7_jax.training.loop import DivergedError

SCRIPT = Path(__file__).with_name("quick_search.py")


@pytest.fixture
def runs(monkeypatch) -> QuickRuns:
    return replace_runs(QuickRuns(), monkeypatch.setattr)


class Lines:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text):
        self.lines.append(text)


def states(found) -> list[str]:
    return [trial.state for trial in found.trials]


def test_the_first_trial_has_the_defaults_and_the_best_is_as_good_as_any(runs, tmp_path):
    lines = Lines()
    found = tune(config(), SPACE, tmp_path / "a", trials=12, pruner="none", callbacks=[lines])
    assert states(found) == ["complete"] * 12
    assert runs.begun[0][1] == config()
    assert found.trials[0].settings == {"optim.lr0": 0.01, "augment.degrees": 0.0}
    assert found.trials[0].score == pytest.approx(0.45)
    # Scores by what the runs had, not by what the study says.
    scores = [true_score(given) for _, given in runs.begun]
    assert [trial.score for trial in found.trials] == pytest.approx(scores)
    assert found.score == pytest.approx(max(scores))
    assert found.score > 0.45
    assert found.settings == found.trials[scores.index(max(scores))].settings
    assert all(1e-4 <= trial.settings["optim.lr0"] <= 1 for trial in found.trials)
    assert len({trial.settings["optim.lr0"] for trial in found.trials}) == 12
    assert found.counts == {"complete": 12}
    assert any("trial 0: complete, fitness 0.4500; best so far 0.4500 (trial 0); 1 of 12" in x for x in lines.lines)
    assert "left" not in lines.lines[-1]


def test_the_best_configuration_and_the_table_are_those_of_the_best_trial(runs, tmp_path):
    found = tune(config(batch_size=4), SPACE, tmp_path, trials=5, pruner="none")
    best = found.best.number
    assert read_config(tmp_path / "best.yaml") == runs.begun[best][1]
    assert read_config(tmp_path / "trials" / f"{best:03d}" / "config.yaml") == runs.begun[best][1]
    with (tmp_path / "trials.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["optim.lr0"]) for row in rows] == [given.optim.lr0 for _, given in runs.begun]
    assert [float(row["fitness"]) for row in rows] == [trial.score for trial in found.trials]


def test_only_the_best_trial_keeps_weights(runs, tmp_path):
    found = tune(config(), SPACE, tmp_path / "few", trials=4, pruner="none")
    kept = {path.parent.name for path in (tmp_path / "few").rglob("best.safetensors")}
    assert (
        kept == {path.parent.name for path in (tmp_path / "few").rglob("checkpoints")} == {f"{found.best.number:03d}"}
    )
    assert len(list((tmp_path / "few/trials").glob("*/metrics.jsonl"))) == 4
    tune(config(), SPACE, tmp_path / "all", trials=4, pruner="none", keep_all=True)
    assert len(list((tmp_path / "all").rglob("best.safetensors"))) == 4


def test_a_second_call_goes_on_to_so_many_in_all_as_one_call_would(runs, tmp_path):
    tune(config(), SPACE, tmp_path / "twice", trials=3, pruner="none")
    twice = tune(config(), SPACE, tmp_path / "twice", trials=12, pruner="none")  # from the eleventh on, by TPE's model
    once = tune(config(), SPACE, tmp_path / "once", trials=12, pruner="none")
    assert [trial.settings for trial in twice.trials] == [trial.settings for trial in once.trials]
    assert len(runs.begun) == 24
    again = tune(config(), SPACE, tmp_path / "once", trials=12, pruner="none")
    assert len(runs.begun) == 24
    assert again.trials == once.trials
    other = tune(config(), SPACE, tmp_path / "other", trials=2, pruner="none", seed=1)
    assert other.trials[1].settings != once.trials[1].settings


@pytest.mark.parametrize("sampler", ["random", "qmc", "cmaes"])
def test_other_samplers(runs, tmp_path, sampler):
    found = tune(config(), {**SPACE, "optim.name": ["sgd", "adam"]}, tmp_path, trials=4, sampler=sampler, pruner="none")
    assert states(found) == ["complete"] * 4
    assert len({trial.settings["optim.lr0"] for trial in found.trials}) == 4


def test_trials_below_the_median_of_others_end_where_they_fall_behind(runs, tmp_path):
    found = tune(config(), SPACE, tmp_path, trials=12, sampler="random", pruner="median")
    assert states(found)[:5] == ["complete"] * 5
    assert "pruned" in states(found)
    for trial in found.trials[5:]:
        before = [other for other in found.trials[: trial.number] if other.state == "complete"]
        behind = [
            epoch
            for epoch in range(1, EPOCHS)  # at the end there is nothing to be gained
            if true_score(runs.begun[trial.number][1]) * epoch / EPOCHS
            < statistics.median(other.values[epoch] for other in before)
        ]
        assert trial.state == ("pruned" if behind else "complete")
        assert max(trial.values) == (behind[0] if behind else EPOCHS)
        assert trial.score == trial.values[max(trial.values)]


def test_hyperband_prunes_too(runs, tmp_path):
    found = tune(config(), SPACE, tmp_path, trials=12, sampler="random", pruner="hyperband")
    assert "pruned" in states(found)


def test_the_defaults_are_not_pruned_and_a_trial_of_a_living_process_is_left_to_it(runs, tmp_path):
    start = with_settings(config(), {"optim.lr0": 2e-4})  # behind all others
    options = {"sampler": "random", "pruner": "median"}
    runs.signal_at = (0, 1)
    tune(start, SPACE, tmp_path, trials=7, **options)
    runs.signal_at = None
    with closing(sqlite3.connect(tmp_path / "claims/000", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = tune(start, SPACE, tmp_path, trials=7, **options)
        assert states(found) == ["running", *["complete"] * 6]
        assert runs.resumed == []
    found = tune(start, SPACE, tmp_path, trials=7, **options)
    assert runs.resumed == [("000", 1)]
    assert states(found) == ["complete"] * 7
    assert found.trials[0].score < min(trial.score for trial in found.trials[1:])


def test_trials_that_fail_are_reported_and_the_search_goes_on(runs, tmp_path):
    lines = Lines()
    runs.raises = {1: DivergedError("10 losses in a row were not finite"), 2: ValueError("too large")}
    found = tune(config(), SPACE, tmp_path, trials=4, pruner="none", callbacks=[lines])
    assert states(found) == ["complete", "fail", "fail", "complete"]
    assert found.trials[1].failure == "10 losses in a row were not finite"
    assert "ValueError: too large" in found.trials[2].failure
    assert any(line.startswith("trial 1: fail (10 losses in a row were not finite)") for line in lines.lines)


def test_what_stops_the_defaults_stops_the_search_and_other_settings_may_come(runs, tmp_path):
    runs.raises = {0: DataError("mine.yaml: cannot be read")}
    with pytest.raises(DataError, match="cannot be read"):
        tune(config(), SPACE, tmp_path, trials=4)
    runs.raises = {}
    found = tune(config(batch_size=8), SPACE, tmp_path, trials=2)
    assert states(found) == ["complete"] * 2
    assert runs.begun[-1][1].train.batch_size == 8


def test_three_failures_in_a_row_end_the_search(runs, tmp_path):
    runs.raises = dict.fromkeys(range(1, 9), OSError("disk is full"))
    with pytest.raises(InputError, match=r"(?s)3 trials in a row failed, the last one: .*disk is full"):
        tune(config(), SPACE, tmp_path, trials=9)
    assert states(tune_report(tmp_path)) == ["complete", "fail", "fail", "fail"]
    runs.raises = dict.fromkeys(range(1, 9), DivergedError("not finite"))  # which says nothing of other settings
    assert states(tune(config(), SPACE, tmp_path, trials=8)) == ["complete", *["fail"] * 7]


def test_a_signal_stops_the_search_and_the_same_call_resumes_the_trial(runs, tmp_path):
    runs.signal_at = (1, 2)
    stopped = tune(config(), SPACE, tmp_path, trials=3, pruner="none")
    assert (stopped.signal, states(stopped)) == (15, ["complete", "running"])
    runs.signal_at = None
    found = tune(config(), SPACE, tmp_path, trials=3, pruner="none")
    assert runs.resumed == [("001", 2)]
    assert states(found) == ["complete"] * 3
    assert found.trials[1].settings == stopped.trials[1].settings
    assert sorted(found.trials[1].values) == [1, 2, 3, 4]


def test_another_search_does_not_come_into_the_same_folder(runs, tmp_path):
    tune(config(), SPACE, tmp_path, trials=1)
    with pytest.raises(InputError, match=r"was made with train.batch_size=16, not 4; choose another folder"):
        tune(config(batch_size=4), SPACE, tmp_path, trials=2)
    with pytest.raises(InputError, match="was made with another space"):
        tune(config(), {"optim.lr0": SPACE["optim.lr0"]}, tmp_path, trials=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/study.db").write_text("no database" * 100)
    with pytest.raises(InputError, match=r"study.db: is no study \(.*\); choose another folder"):
        tune(config(), SPACE, tmp_path / "other")
    with pytest.raises(InputError, match=r"has no study.db; expected the folder of a search"):
        tune_report(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"trials": 0}, "0 trials with seed 0"),
        ({"seed": -1}, "seed -1"),
        ({"sampler": "gp"}, "sampler is 'gp'; expected one of tpe, random, qmc, cmaes"),
        ({"pruner": "best"}, "pruner is 'best'; expected one of median, hyperband, none"),
    ],
)
def test_options_are_checked(tmp_path, options, problem):
    with pytest.raises(InputError, match=problem):
        tune(config(), SPACE, tmp_path, **options)
    with pytest.raises(InputError, match="leaves nothing to compare"):
        tune(config(val_every_epochs=0), SPACE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_optuna_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InstallationError, match=r"pip install 'yolov7-jax\[tune\]'"):
        tune(config(), SPACE, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_searches_reports_and_says_what_is_wrong(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text("optim.lr0: {low: 1e-4, high: 1.0, log: true}\naugment.degrees: {low: 0, high: 9}\n")
    command = ["--no-compilation-cache", "tune", "finetune", "--space", "space.yaml", "--pruner", "none", "--trials"]
    runs.signal_at = (2, 3)
    assert main([*command, "3", "--output", "out", "train.epochs=4"]) == 128 + 15
    assert "saved; the same command goes on" in capsys.readouterr().out
    runs.signal_at = None
    assert main([*command, "6", "train.epochs=4", "--output", "out"]) == 0
    searched = capsys.readouterr()
    assert "6 of 6 done" in searched.err
    assert main(["tune", "--report", "--output", "out"]) == 0
    reported = capsys.readouterr().out
    assert reported == searched.out
    best = tune_report("out").best
    assert f"best: trial {best.number}, fitness {best.score:.4f} (trial 0: 0.4500)" in reported
    assert "importance: optim.lr0 " in reported
    assert main(["tune", "--report"]) == 2
    assert "runs/tune: has no study.db" in capsys.readouterr().err
    assert main(["tune"]) == 2
    assert "give a configuration" in capsys.readouterr().err


def test_importance_is_where_a_made_score_has_it(runs, tmp_path):
    found = tune(config(), SPACE, tmp_path, trials=25, sampler="random", pruner="none")
    assert found.ranked()[0] == "optim.lr0"
    assert found.importances["optim.lr0"] > 0.7
    assert math.fsum(found.importances.values()) == pytest.approx(1)
    few = tune(config(), SPACE, tmp_path / "few", trials=4, pruner="none")
    assert few.importances == {}


def start(folder: Path, trials: int, seconds: float) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(trials), str(seconds)],
        env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_share_a_search_and_a_killed_one_leaves_its_trial_to_the_other(runs, tmp_path):
    first, second = start(tmp_path, 12, 0.6), start(tmp_path, 12, 0.6)
    evaluations = 0
    for line in first.stdout:
        evaluations += line.startswith("evaluated")
        if evaluations == 2 * EPOCHS + 2:  # in the middle of its third trial
            first.send_signal(signal.SIGKILL)
            break
    first.communicate()
    out, _ = second.communicate(timeout=120)
    did = out.splitlines()[-1].split()[1:]
    assert second.returncode == 0
    found = tune_report(tmp_path)
    assert states(found) == ["complete"] * 12
    assert len(did) == len(set(did)) <= 10  # the first one did two or more, alone
    assert all(sorted(trial.values) == [1, 2, 3, 4] for trial in found.trials)
    for trial in found.trials:  # none was trained by both, or twice
        rows = read_log(tmp_path / "trials" / f"{trial.number:03d}" / "metrics.jsonl")
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert len({trial.settings["optim.lr0"] for trial in found.trials}) == 12


def test_runs_in_earnest(tmp_path, monkeypatch):
    """Trial 0 is what `train` gives; a pruned one ends in its epoch, also where a kill left an empty folder of it."""
    base = small_config(write_data(tmp_path / "data"))
    space = {"augment.degrees": {"low": 0.0, "high": 20.0}, "augment.fliplr": {"low": 0.0, "high": 1.0}}
    monkeypatch.setattr(OwnTrial, "is_hopeless", lambda self: self.number == 1)
    (tmp_path / "search/trials/001").mkdir(parents=True)  # before there is a config.yaml
    found = tune(base, space, tmp_path / "search", trials=2)
    assert states(found) == ["complete", "pruned"]
    assert found.trials[0].score == train(base, tmp_path / "alone").best_score
    assert sorted(found.trials[0].values) == [2, 4]
    assert sorted(found.trials[1].values) == [2]
    assert (tmp_path / "search/report.png").stat().st_size > 10_000
    assert config_dict(read_config(tmp_path / "search/best.yaml")) == config_dict(
        read_config(tmp_path / "search/trials/000/config.yaml")
    )

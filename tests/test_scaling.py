"""The start scripts of docs/scaling.md run by their own lines, with stand-ins for what a cluster has."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolov7_jax.cli.main import _parser
from yolov7_jax.datasets.label_cache import VARIABLE

ROOT = Path(__file__).resolve().parent.parent
SLURM = ROOT / "examples" / "slurm.sh"
JOBSET: Any = yaml.safe_load((ROOT / "examples" / "jobset.yaml").read_text(encoding="utf-8"))


def pod() -> Any:
    (hosts,) = JOBSET["spec"]["replicatedJobs"]
    return hosts["template"]["spec"]["template"]["spec"]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder with the commands that the scripts call; each writes down how it was called."""
    for name, status in {"srun": "${STATUS:-0}", "scontrol": "0", "yolov7-jax": "0"}.items():
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" > calls-{name}\nexit {status}\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def start(cluster: Path, *command: str, **variables: str) -> tuple[int, str]:
    """Status and errors."""
    environment = {**os.environ, "PATH": f"{cluster / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **variables}
    done = subprocess.run(command, cwd=cluster, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def start_pod(cluster: Path, index: str) -> tuple[int, str]:
    (container,) = pod()["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]} | {"RUN": "run"}
    return start(cluster, *container["command"], *container["args"], JOB_COMPLETION_INDEX=index, **variables)


def training(call: Path) -> Any:
    """What `train` was called with, as the command itself reads it."""
    words = call.read_text().splitlines()
    return _parser(["train"]).parse_args(words[words.index("train") :])


def test_under_slurm_a_run_begins_and_is_resumed(cluster):
    assert start(cluster, str(SLURM), "run", "finetune", "train.epochs=2") == (0, "")
    began = training(cluster / "calls-srun")
    assert (began.config, began.overrides, began.output) == ("finetune", ["train.epochs=2"], Path("run"))
    (cluster / "run").mkdir()
    assert start(cluster, str(SLURM), "run", "finetune") == (0, "")  # killed before it wrote anything
    assert training(cluster / "calls-srun").resume is None
    assert not (cluster / "run").exists()
    (cluster / "run").mkdir()
    (cluster / "run" / "config.yaml").touch()
    assert start(cluster, str(SLURM), "run", "finetune", "train.epochs=2") == (0, "")
    resumed = training(cluster / "calls-srun")
    assert (resumed.resume, resumed.config, resumed.overrides) == (Path("run"), None, [])
    assert not (cluster / "calls-scontrol").exists()


@pytest.mark.parametrize(("status", "requeued"), [("130", True), ("143", False), ("2", False)])
def test_what_was_saved_ahead_of_the_time_limit_is_requeued(cluster, status, requeued):
    assert start(cluster, str(SLURM), "run", "debug", STATUS=status)[0] == int(status)
    assert (cluster / "calls-scontrol").exists() == requeued


def test_scripts_refuse_a_folder_that_holds_something_else(cluster):
    (cluster / "run").mkdir()
    (cluster / "run" / "thesis.txt").touch()
    for status, errors in (start(cluster, str(SLURM), "run", "debug"), start_pod(cluster, "0")):
        assert status == 1
        assert "rmdir: " in errors
    assert not {"calls-srun", "calls-yolov7-jax"} & {file.name for file in cluster.iterdir()}
    assert "give the run folder" in start(cluster, str(SLURM))[1]


def test_pods_name_each_other_and_resume(cluster):
    assert start_pod(cluster, "1") == (0, "")
    began = training(cluster / "calls-yolov7-jax")
    job = JOBSET["spec"]["replicatedJobs"][0]
    work = job["template"]["spec"]
    assert began.coordinator == "{0}-{1}-0-0.{0}:8476".format(JOBSET["metadata"]["name"], job["name"])
    assert (began.process_id, began.processes, began.output) == (1, work["completions"], Path("run"))
    assert work["parallelism"] == work["completions"]
    assert began.resume is None
    (cluster / "run").mkdir()
    (cluster / "run" / "config.yaml").touch()
    assert start_pod(cluster, "0") == (0, "")
    resumed = training(cluster / "calls-yolov7-jax")
    assert (resumed.resume, resumed.config, resumed.process_id) == (Path("run"), None, 0)


def test_volumes_and_variables_of_pods_are_there():
    (container,) = pod()["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod()["volumes"]}
    assert VARIABLE in {entry["name"] for entry in container["env"]}


def test_sentences_of_symptoms_are_printed_somewhere():
    table = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").partition("## Symptoms")[2]
    sentences = [line.partition("`")[2].partition("`")[0] for line in table.splitlines() if line.startswith("| `")]
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "yolov7_jax").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    own = [
        re.sub(r" \(.*\)", "", text) for text in sentences if not text.startswith(("process 1", "rmdir", "Terminating"))
    ]
    assert len(own) == 10
    for sentence in own:
        for part in sentence.split("; name them"):
            assert part in code, sentence

import json

import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.training.log import Log, mean_row, read_log


def rows(folder):
    return [(row["kind"], row["step"]) for row in read_log(folder / "metrics.jsonl")]


def test_rows_come_back_and_numbers_that_are_none_become_null(tmp_path):
    log = Log(tmp_path)
    log.write({"kind": "train", "step": 1, "epoch": 0, "box": 0.1, "obj": float("nan")})
    log.close()
    assert read_log(log.file) == [{"kind": "train", "step": 1, "epoch": 0, "box": 0.1, "obj": None}]
    json.loads(log.file.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


@pytest.mark.parametrize(("evaluated", "kept"), [(True, 4), (False, 3)])
def test_rewinding_drops_what_will_come_again(tmp_path, evaluated, kept):
    log = Log(tmp_path)
    every = [("train", 3), ("val", 3), ("train", 6), ("val", 6), ("train", 7), ("nonfinite", 8)]
    for kind, step in every:
        log.write({"kind": kind, "step": step, "epoch": 0})
    log.rewind(6, evaluated=evaluated)
    assert rows(tmp_path) == every[:kept]


def test_rewinding_a_log_that_is_not_there_begins_it(tmp_path):
    Log(tmp_path).rewind(0, evaluated=False)
    assert rows(tmp_path) == []


def test_a_last_row_that_was_cut_off_is_left_out(tmp_path):
    log = Log(tmp_path)
    log.write({"kind": "train", "step": 1, "epoch": 0})
    with log.file.open("a") as stream:
        stream.write('{"kind": "tr')
    assert rows(tmp_path) == [("train", 1)]


def test_a_broken_row_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": \n{"kind": "train", "step": 1}\n')
    with pytest.raises(InputError, match=r"metrics.jsonl, line 1"):
        rows(tmp_path)


def test_rates_and_counters_are_the_last_the_rest_are_means():
    steps = [{"box": 1.0, "lr/bias": 0.1, "updates": 1.0}, {"box": 2.0, "lr/bias": 0.2, "updates": 2.0}]
    assert mean_row(steps) == {"box": 1.5, "lr/bias": 0.2, "updates": 2.0}

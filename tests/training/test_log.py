import json
import resource
from contextlib import contextmanager

import pytest

from yolov7_jax.errors import InputError
from yolov7_jax.training.log import Log, mean_row, read_log


@contextmanager
def file_size_limit(most):
    """No file grows over some bytes: what fits is written and the rest fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def rows(folder):
    return [(row["kind"], row["step"]) for row in read_log(folder / "metrics.jsonl")]


def test_rows_come_back_and_numbers_that_are_none_become_null(tmp_path):
    log = Log(tmp_path)
    log.write({"kind": "train", "step": 1, "epoch": 0, "box": 0.1, "obj": float("nan")})
    assert read_log(log.file) == [{"kind": "train", "step": 1, "epoch": 0, "box": 0.1, "obj": None}]
    json.loads(log.file.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


def test_rewinding_drops_what_will_come_again(tmp_path):
    log = Log(tmp_path)
    every = [("train", 3), ("val", 3), ("train", 6), ("val", 6), ("train", 7), ("nonfinite", 8)]
    for kind, step in every:
        log.write({"kind": kind, "step": step, "epoch": 0})
    log.rewind(6)
    assert rows(tmp_path) == every[:4]


def test_rewinding_a_log_that_is_not_there_begins_it(tmp_path):
    Log(tmp_path).rewind(0)
    assert rows(tmp_path) == []


def test_rows_that_cannot_be_written_come_with_the_next(tmp_path):
    log = Log(tmp_path)
    log.write({"kind": "train", "step": 1, "epoch": 0})
    text = log.file.read_bytes()
    with file_size_limit(len(text) + 10), pytest.raises(InputError, match=r"metrics\.jsonl: cannot be written"):
        log.write({"kind": "train", "step": 2, "epoch": 0})
    assert log.file.read_bytes() == text  # nothing of the row that did not fit
    log.write({"kind": "train", "step": 3, "epoch": 0})
    assert rows(tmp_path) == [("train", 1), ("train", 2), ("train", 3)]


def test_a_last_row_that_was_cut_off_is_left_out(tmp_path):
    log = Log(tmp_path)
    log.write({"kind": "train", "step": 1, "epoch": 0})
    with log.file.open("a") as stream:
        stream.write('{"kind": "tr')
    assert rows(tmp_path) == [("train", 1)]


def test_a_broken_row_in_the_middle_is_named(tmp_path):
    for broken in (b'{"kind": ', b"\xff\xfe"):
        (tmp_path / "metrics.jsonl").write_bytes(broken + b'\n{"kind": "train", "step": 1}\n')
        with pytest.raises(InputError, match=r"metrics.jsonl, line 1"):
            rows(tmp_path)


def test_rates_and_counters_are_the_last_the_rest_are_means():
    steps = [{"box": 1.0, "lr/bias": 0.1, "updates": 1.0}, {"box": 2.0, "lr/bias": 0.2, "updates": 2.0}]
    assert mean_row(steps) == {"box": 1.5, "lr/bias": 0.2, "updates": 2.0}

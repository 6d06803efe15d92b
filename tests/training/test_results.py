import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.training.log import mean_row
from yolov7_jax.training.results import COLUMNS, results_csv


def table(rows: list[dict]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(results_csv(rows))))


def train(step: int, epoch: int, **values: float | None) -> dict:
    return {"kind": "train", "step": step, "epoch": epoch, "box": 1.0, "lr/weight": step / 100} | values


def test_columns_are_those_of_the_guide():
    assert ",".join(COLUMNS) == (
        "epoch,step,box,obj,cls,total,val_box,val_obj,val_cls,val_total,AP,AP50,AP75,AP_small,AP_medium,AP_large,"
        "AR_1,AR_10,AR_100,AR_small,AR_medium,AR_large,precision,recall,f1,confidence,lr/weight,lr/norm,lr/bias,"
        "images_per_second,waiting,seconds"
    )
    assert results_csv([]) == ",".join(COLUMNS) + "\n"


def test_an_epoch_by_hand():
    rows = [
        train(10, 1, box=2.0, seconds=1.0, images_per_second=40.0, waiting=0.5),
        train(13, 1, box=4.0, seconds=2.0, images_per_second=10.0, waiting=0.1),
        {"kind": "val", "step": 13, "epoch": 1, "AP": 0.25, "f1": None, "AP_of_class": {"cat": 0.25}, "seconds": 9.0},
        train(20, 2, box=8.0),
    ]
    first, second = table(rows)
    assert (first["epoch"], first["step"], first["AP"], first["f1"], first["seconds"]) == ("1", "13", "0.25", "", "2.0")
    assert float(first["box"]) == pytest.approx((10 * 2 + 3 * 4) / 13)
    # Of 13 steps 10 took 10 / 40 and 3 took 3 / 10 of the time that one image takes.
    assert float(first["images_per_second"]) == pytest.approx(13 / (10 / 40 + 3 / 10))
    assert float(first["waiting"]) == pytest.approx((0.5 * 10 / 40 + 0.1 * 3 / 10) / (10 / 40 + 3 / 10))
    assert first["lr/weight"] == "0.13"
    assert (second["step"], second["box"], second["AP"], second["images_per_second"]) == ("20", "8.0", "", "")


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=60), st.integers(1, 17), st.integers(1, 10))
def test_losses_are_means_over_the_steps_of_an_epoch(losses: list[float], per_epoch: int, of_a_row: int):
    """The rows are made as the loop makes them; the means are over the steps themselves."""
    rows: list[dict] = []
    pending: list[dict] = []
    for step, loss in enumerate(losses, start=1):
        epoch = (step - 1) // per_epoch + 1
        if math.isnan(loss):
            rows.append({"kind": "nonfinite", "step": step, "epoch": epoch})
        else:
            pending.append({"box": loss})
        if pending and (len(pending) >= of_a_row or step % per_epoch == 0):
            rows.append({"kind": "train", "step": step, "epoch": epoch, **mean_row(pending)})
            pending = []
    for row in table(rows):
        epoch = int(row["epoch"])
        last = max(r["step"] for r in rows if r["kind"] == "train" and r["epoch"] == epoch)
        own = np.array(losses[(epoch - 1) * per_epoch : last])
        assert float(row["box"]) == pytest.approx(own[~np.isnan(own)].mean(), abs=1e-12)


def test_of_steps_that_are_repeated_the_last_count():
    rows = [
        train(10, 1, box=1.0),
        train(20, 1, box=1.0),
        train(20, 1, box=5.0),
        {**train(20, 1), "kind": "val", "AP": 1},
    ]
    rows.append({**rows[-1], "AP": 0.5})
    (row,) = table(rows)
    assert (row["box"], row["AP"]) == ("3.0", "0.5")


def test_an_epoch_without_a_finite_loss_has_its_evaluation():
    rows = [{"kind": "nonfinite", "step": 1, "epoch": 1}, {"kind": "val", "step": 1, "epoch": 1, "AP": 0.1}]
    (row,) = table(rows)
    assert (row["epoch"], row["step"], row["box"], row["AP"]) == ("1", "1", "", "0.1")
    rows.append(train(3, 2, box=0.5))
    assert table(rows)[1]["box"] == "0.5"


def test_numbers_keep_all_their_digits():
    value = 0.1 + 0.2
    assert float(table([train(1, 1, box=value)])[0]["box"]) == value

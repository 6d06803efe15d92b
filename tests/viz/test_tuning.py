import numpy as np
import pytest

from yolov7_jax.viz.figures import save_figure
from yolov7_jax.viz.tuning import SHOWN, TrialPoint, tuning_figure

TRIALS = [
    TrialPoint(0, 0.4, False, {"a": 0.1, "b": "x", "c": 1}),
    TrialPoint(2, 0.3, True, {"a": 0.01, "b": "y", "c": 2}),
    TrialPoint(3, 0.6, False, {"a": 1.0, "b": "y", "c": 3}),
    TrialPoint(4, 0.5, False, {"a": 0.5, "b": "z", "c": 3}),
]


def dots(axes) -> dict[str, list[list[float]]]:
    return {drawn.get_label(): np.asarray(drawn.get_offsets()).tolist() for drawn in axes.collections}


def test_history_has_every_trial_and_the_best_so_far_of_complete_ones():
    figure = tuning_figure(TRIALS, {"a": 0.8, "b": 0.2, "c": 0.0}, {"a"}, "fitness")
    history = figure.axes[0]
    assert dots(history) == {"complete": [[0, 0.4], [3, 0.6], [4, 0.5]], "pruned": [[2, 0.3]]}
    (line,) = history.get_lines()
    assert [list(part) for part in line.get_data()] == [[0, 3, 4], [0.4, 0.6, 0.6]]


def test_importances_are_bars_from_the_top():
    figure = tuning_figure(TRIALS, {"b": 0.75, "a": 0.25}, set(), "AP")
    bars = figure.axes[1]
    assert [bar.get_width() for bar in bars.patches] == [0.75, 0.25]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["b", "a"]
    assert bars.yaxis_inverted()


def test_settings_have_panels_by_importance():
    figure = tuning_figure(TRIALS, {"b": 0.75, "a": 0.25}, {"a"}, "AP")
    choices, numbers = figure.axes[2:]
    assert [axes.get_title(loc="left") for axes in (choices, numbers)] == ["b", "a"]
    assert [label.get_text() for label in choices.get_xticklabels()] == ["x", "y", "z"]
    assert dots(choices)["complete"] == [[0, 0.4], [1, 0.6], [2, 0.5]]
    assert dots(numbers)["pruned"] == [[0.01, 0.3]]
    assert numbers.get_xscale() == "log"


@pytest.mark.parametrize("trials", [[], TRIALS[:1], [TRIALS[1]]])
def test_there_is_a_figure_from_the_beginning(tmp_path, trials):
    figure = tuning_figure(trials, {}, {"a"}, "AP")
    assert "too few trials are complete" in [text.get_text() for text in figure.axes[1].texts]
    save_figure(figure, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 5000


def test_many_settings_leave_room():
    trials = [TrialPoint(0, 0.5, False, {f"key{k}": k for k in range(30)})]
    figure = tuning_figure(trials, {f"key{k}": 1 / 30 for k in range(30)}, set(), "AP")
    assert len(figure.axes) == 2 + SHOWN

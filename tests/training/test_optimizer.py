"""Schedules against recorded trainings, optimizers and the moving average against the formulas of PyTorch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolov7_jax.config import OptimConfig
from yolov7_jax.errors import InputError
from yolov7_jax.training.optimizer import FROZEN, Schedule, averaged, check_freeze, make_optimizer, parameter_labels
from yolov7_jax.types import Rates

RECORDED = ("tiny_warmup", "tiny_adam", "tiny_late_accumulate", "tiny_plain_loss", "w6_aux")


def recorded_training(shared: Path, name: str) -> tuple[dict[str, Any], OptimConfig]:
    facts = json.loads((shared / "goldens" / "train" / f"{name}.json").read_text())
    hyp = facts["hyp"]
    config = OptimConfig(
        name="adam" if facts["adam"] else "sgd",
        nominal_batch_size=facts["nbs"],
        **{key: hyp[key] for key in ("lr0", "lrf", "momentum", "warmup_epochs", "warmup_momentum", "warmup_bias_lr")},
    )
    return facts, config


@pytest.mark.shared
@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("traced", [False, True])
def test_rates_equal_recorded_trainings(shared: Path, name: str, traced: bool) -> None:
    facts, config = recorded_training(shared, name)
    at = Schedule(config, facts["iterations_per_epoch"], facts["epochs"], batch_size=64).rates
    at = jax.jit(at) if traced else at
    for offset, expected in enumerate(facts["lr_per_iteration_other_weight_bias_momentum"]):
        iteration = facts["start_iteration"] + offset
        now = np.array(at(jnp.int32(iteration) if traced else iteration))
        # float64 on both sides; within a compiled step float32, whose cosine loses an ulp of 1.
        tolerance = 1e-6 if traced else 1e-12
        np.testing.assert_allclose(now[:3], expected[:3], rtol=tolerance, atol=1e-12)
        np.testing.assert_allclose(now[3], config.momentum if facts["adam"] else expected[3], rtol=tolerance)


@pytest.mark.shared
@pytest.mark.parametrize("name", RECORDED)
def test_updates_happen_where_recorded_trainings_have_them(shared: Path, name: str) -> None:
    facts, config = recorded_training(shared, name)
    for offset, stepped in enumerate(facts["optimizer_stepped"]):
        iteration = facts["start_iteration"] + offset
        schedule = Schedule(config, facts["iterations_per_epoch"], facts["epochs"], batch_size=facts["image"][0])
        assert (iteration % schedule.accumulation(iteration) == 0) == stepped


def test_accumulation_grows_linearly_and_stays_at_its_end() -> None:
    config = OptimConfig(warmup_min_steps=0, warmup_epochs=2)
    # 10 iterations from 1 to 8: 1, 1.7, 2.4, … 8; of 4.5 the even neighbor, as round() of Python.
    expected = [1, 2, 2, 3, 4, 4, 5, 6, 7, 7, 8, 8, 8]
    schedule = Schedule(config, steps_per_epoch=5, epochs=3, batch_size=8)
    at = schedule.accumulation
    assert [int(at(i)) for i in range(13)] == expected
    assert [int(jax.jit(at)(jnp.int32(i))) for i in range(13)] == expected
    assert schedule.full_accumulation == 8
    assert replace(schedule, batch_size=100).full_accumulation == 1
    assert {int(replace(schedule, batch_size=48).accumulation(i)) for i in range(13)} == {1}


def test_warm_up_can_be_left_out_and_the_line_ends_at_lrf() -> None:
    config = OptimConfig(warmup_min_steps=0, warmup_epochs=0, schedule="linear", lr0=0.5, lrf=0.2)
    rates = Schedule(config, steps_per_epoch=7, epochs=4, batch_size=64).rates
    first, last = rates(0), rates(27)
    assert first == Rates(0.5, 0.5, 0.5, 0.937)
    np.testing.assert_allclose(last[:3], 0.1, rtol=1e-15)
    assert rates(6) == first  # rates change from epoch to epoch
    np.testing.assert_allclose(rates(7).weight, 0.5 * (1 - 0.8 / 3))  # three falls in four epochs


def tree(seed: int) -> dict[str, Any]:
    draws = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return draws.normal(size=shape).astype(np.float32)

    return {
        "0": {"conv": {"kernel": draw(2, 3)}, "bn": {"scale": draw(3), "bias": draw(3)}},
        "1": {"m": {"0": {"kernel": draw(2), "bias": draw(2)}}, "im": {"0": {"implicit": draw(2)}}},
    }


GROUP_OF = {"kernel": "weight", "bias": "bias", "scale": "norm", "implicit": "norm"}


def by_pytorch(name: str, steps: list[tuple[Rates, Any]], leaf: str, p: np.ndarray, decay: float) -> np.ndarray:
    """torch.optim.SGD(nesterov=True), Adam and AdamW, written out from their documentation, in float64."""
    p = p.astype(np.float64)
    first = second = np.zeros_like(p)
    for count, (now, gradient) in enumerate(steps, start=1):
        g, rate, beta = gradient.astype(np.float64), getattr(now, GROUP_OF[leaf]), now.momentum
        if name == "adamw":
            p = p - rate * decay * p
        else:
            g = g + decay * p
        if name == "sgd":
            first = g if count == 1 else beta * first + g
            p = p - rate * (g + beta * first)
        else:
            first = beta * first + (1 - beta) * g
            second = 0.999 * second + 0.001 * g**2
            p = p - rate * (first / (1 - beta**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
    return p


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers_follow_the_formulas_of_pytorch_at_changing_rates(name: Any) -> None:
    config = Schedule(OptimConfig(name=name, weight_decay=0.3), 5, 3, batch_size=48).update_config
    params, labels = tree(0), parameter_labels(tree(0))
    traces = []

    @jax.jit
    def update(params: Any, state: Any, gradients: Any, now: Rates) -> Any:
        traces.append(now)
        changes, state = make_optimizer(config)(now, labels, config).update(gradients, state, params)
        return optax.apply_updates(params, changes), state

    state = make_optimizer(config)(Rates(0.0, 0.0, 0.0, 0.0), labels, config).init(params)
    steps = []
    for i in range(4):
        momentum = 0.8 + 0.05 * i if name == "sgd" else 0.937  # Adam's never changes
        steps.append((Rates(0.01 * i, 0.02 * i, 0.1 - 0.01 * i, momentum), tree(i + 1)))
    ours = params
    for now, gradients in steps:
        ours, state = update(ours, state, gradients, now)
    assert len(traces) == 1
    for keys, start in jax.tree_util.tree_leaves_with_path(params):
        history = [(now, _at(gradients, keys)) for now, gradients in steps]
        # Images of an update over the nominal batch: 48 / 64.
        decay = 0.3 * 0.75 if keys[-1].key == "kernel" else 0.0
        expected = by_pytorch(name, history, keys[-1].key, start, decay)
        # float32 against float64 over four steps of size 0.1.
        np.testing.assert_allclose(_at(ours, keys), expected, rtol=1e-5, atol=1e-6)


def _at(branch: Any, keys: Any) -> Any:
    for key in keys:
        branch = branch[key.key]
    return branch


def test_frozen_weights_have_no_update_no_decay_and_no_optimizer_state() -> None:
    config = OptimConfig(weight_decay=0.3)
    params, labels = tree(0), parameter_labels(tree(0), freeze=r"0/.*")
    assert labels["0"] == {"conv": {"kernel": FROZEN}, "bn": {"scale": FROZEN, "bias": FROZEN}}
    assert labels["1"] == {"m": {"0": {"kernel": "weight", "bias": "bias"}}, "im": {"0": {"implicit": "norm"}}}
    transform = make_optimizer(config)(Rates(0.1, 0.1, 0.1, 0.9), labels, config)
    state = transform.init(params)
    changes, _ = transform.update(tree(1), state, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(changes["0"]))
    assert all(np.all(leaf) for leaf in jax.tree.leaves(changes["1"]))
    momenta = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sum(leaf.size for leaf in momenta) == sum(leaf.size for leaf in jax.tree.leaves(params["1"]))


def test_the_moving_average_by_hand() -> None:
    config = OptimConfig(ema_decay=0.9, ema_ramp=2.0)
    ema = {"a": jnp.float32(1.0)}
    expected = 1.0
    for update, value in enumerate((3.0, -2.0, 5.0), start=1):
        ema = averaged(ema, {"a": jnp.float32(value)}, jnp.int32(update), config)
        decay = 0.9 * (1 - np.exp(-update / 2.0))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(ema["a"], expected, rtol=1e-6)


def test_a_network_without_one_of_the_groups_is_refused() -> None:
    with pytest.raises(InputError, match=r"parameter group 'norm'.*training form"):
        parameter_labels({"0": {"conv": {"kernel": 1, "bias": 1}}})
    with pytest.raises(InputError, match="the weight 0/table is in no parameter group"):
        parameter_labels(tree(0) | {"0": {"table": np.zeros(2)}})


def test_what_cannot_be_frozen_is_said() -> None:
    variables = {"params": tree(0), "batch_stats": {"0": {"bn": {"mean": np.zeros(3), "var": np.ones(3)}}}}
    check_freeze("", variables)
    check_freeze("0/.*|1/im/.*", variables)
    check_freeze("0/bn/(mean|var)", variables)
    with pytest.raises(InputError, match=r"optim\.freeze: '0/con' .*nearest are 0/conv/kernel"):
        check_freeze("0/con", variables)
    with pytest.raises(InputError, match=r"optim\.freeze: '\(0' is not a regular expression"):
        check_freeze("(0", variables)
    with pytest.raises(InputError, match=r"optim\.freeze: '\.\*' describes every weight"):
        check_freeze(".*", variables)


@pytest.mark.parametrize("name", ["nadamw", "lion", "adafactor"])
def test_optimizers_of_optax_go_downhill_in_all_groups(name: str) -> None:
    rng = np.random.default_rng(0)
    shapes = {"conv": {"kernel": (3, 3, 4, 8), "bias": (8,)}, "bn": {"scale": (8,), "bias": (8,)}}
    params: Any = {"0": jax.tree.map(lambda shape: rng.normal(size=shape), shapes, is_leaf=lambda x: type(x) is tuple)}
    config = OptimConfig(name=name, weight_decay=0.0)
    transform = make_optimizer(config)(Rates(0.01, 0.01, 0.01, 0.9), parameter_labels(params, freeze=""), config)

    def distance(params: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.square(leaf - 1).sum(), params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        gradients = jax.grad(lambda params: sum(jax.tree.leaves(distance(params))))(params)
        changes, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, changes), state

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    before, state = distance(params), transform.init(params)
    for _ in range(60):
        params, state = step(params, state)
    for start, end in zip(jax.tree.leaves(before), jax.tree.leaves(distance(params)), strict=True):
        assert end < 0.6 * start

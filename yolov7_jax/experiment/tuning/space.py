"""What a search varies: settings, each with an interval of numbers or a list of choices, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from yolov7_jax.config import Config
from yolov7_jax.config_file import check_config, config_dict, find_named
from yolov7_jax.errors import InputError
from yolov7_jax.experiment.setup import check_names
from yolov7_jax.files import read_yaml
from yolov7_jax.registry import nearest

MEASURE = ("train.best_by", "data.val_path", "data.val_images", "data.val_split")
"""Settings that say what a score is: those of two trials that differ in them cannot be compared."""

_KEYS = ("low", "high", "log", "step")
_EXPECTED = "expected {low: …, high: …} for numbers, or a list of choices"

_CHOSEN: Mapping[type, str] = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}

Number = int | float
Value = str | bool | int | float


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high, both included.

    step: between two neighbors, else all are possible (of whole numbers each). log: drawn evenly by their logarithm.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    def __contains__(self, value: Any) -> bool:
        if not self.low <= value <= self.high:
            return False
        return self.step is None or _is_multiple(value, self.low, self.step)

    def __str__(self) -> str:
        step = "" if self.step is None else f" in steps of {self.step:g}"
        return f"from {self.low:g} to {self.high:g}{step}"

    def ends(self) -> tuple[Value, ...]:
        """The values that say whether a setting can have all of them."""
        return self.low, self.high

    def plain(self) -> dict[str, Any]:
        """As a file has it."""
        given = {"low": self.low, "high": self.high, "log": self.log or None, "step": self.step}
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class Choices:
    """One of some values, between which there is no order."""

    values: tuple[Value, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"

    def ends(self) -> tuple[Value, ...]:
        """All, as none lies between two."""
        return self.values

    def plain(self) -> list[Value]:
        """As a file has it."""
        return list(self.values)


Space = Mapping[str, Interval | Choices]
"""By setting, such as optim.lr0."""


def read_space(source: Path | str | Mapping[str, Any], config: Config) -> Space:
    """What a search varies, checked with the configuration that it varies.

    Args:
        source: a name in configs/spaces, a YAML file, or its content: setting → {low, high, log, step} or choices.
        config: has the settings of the first trial, which have to lie in the space.

    Raises:
        InputError: no such file, a setting is unknown or does not have these values, or the configuration's own is not
            among them; names file and setting.
    """
    content: Any = source
    where = "space"
    if not isinstance(source, Mapping):
        file = find_named(str(source), room="spaces", what="space")
        content, where = read_yaml(file), str(file)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{where}: expected settings such as optim.lr0: {{low: 0.001, high: 0.1}}, found {content!r}")
    space = {str(key): _domain(str(key), given, config, where) for key, given in content.items()}
    for key, domain in space.items():
        if (own := setting(config, key)) not in domain:
            raise InputError(
                f"{where}: {key} is {domain}, and the configuration, which is the first trial, has {own}; widen the "
                f"range, or set {key} to a value in it"
            )
    return space


def setting(config: Config, key: str) -> Any:
    """The value of a setting, such as optim.lr0."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def with_settings(config: Config, values: Mapping[str, Value]) -> Config:
    """The configuration with other values of some settings, which are not checked."""
    sections: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return replace(config, **{name: replace(getattr(config, name), **given) for name, given in sections.items()})


def space_dict(space: Space) -> dict[str, Any]:
    """A space as plain values, such as `read_space` takes."""
    return {key: domain.plain() for key, domain in space.items()}


def _domain(key: str, given: Any, config: Config, where: str) -> Interval | Choices:
    if key in MEASURE:
        raise InputError(f"{where}: {key} says what a score is, so trials cannot differ in it; leave it out")
    kind = _kind(key, config, where)
    if isinstance(given, Mapping):
        domain: Interval | Choices = _interval(key, given, kind, where)
    elif isinstance(given, list):
        domain = _choices(key, given, kind, where)
    else:
        raise InputError(f"{where}: {key} is {given!r}; {_EXPECTED}")
    for value in domain.ends():
        varied = with_settings(config, {key: value})
        check_config(varied, where=where)
        try:
            check_names(varied)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return domain


def _kind(key: str, config: Config, where: str) -> type:
    """The type of a setting's values."""
    known = [f"{section}.{name}" for section, content in config_dict(config).items() for name in content]
    if key not in known:
        near = nearest(key, known) or "; yolov7-jax train --settings lists them"
        raise InputError(f"{where}: {key} is not a setting{near}")
    return type(setting(Config(), key))


def _interval(key: str, given: Mapping[Any, Any], kind: type, where: str) -> Interval:
    if kind not in (int, float):
        raise InputError(f"{where}: {key} is no number; expected a list of choices")
    if unknown := [str(name) for name in given if name not in _KEYS]:
        raise InputError(f"{where}: {key} has no key {unknown[0]!r}{nearest(unknown[0], _KEYS)}; {_EXPECTED}")
    if missing := [name for name in ("low", "high") if name not in given]:
        raise InputError(f"{where}: {key} has no {missing[0]}; {_EXPECTED}")
    numbers = {name: _number(given[name], kind, f"{where}: {name} of {key}") for name in given if name != "log"}
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}: log of {key} is {log!r}; expected true or false")
    interval = Interval(log=log, **numbers)
    if problem := _problem(interval):
        raise InputError(f"{where}: {key}: {problem}")
    return interval


def _problem(interval: Interval) -> str:
    """What is wrong with an interval, if anything."""
    low, high, step = interval.low, interval.high, interval.step
    if low >= high:
        return f"low is {low:g} and high {high:g}; expected low below high"
    if interval.log and low <= 0:
        return f"low is {low:g}, which has no logarithm; expected a number above 0, or no log"
    if interval.log and step is not None:
        return "log and step are both given; expected one of them"
    if step is not None and (step <= 0 or not _is_multiple(high, low, step)):
        return f"step is {step:g}; expected a number that leads from {low:g} to {high:g}"
    return ""


def _is_multiple(value: Number, low: Number, step: Number) -> bool:
    """Whether whole steps lead from low to a value, as the numbers are written."""
    return (Decimal(str(value)) - Decimal(str(low))) % Decimal(str(step)) == 0


def _choices(key: str, given: list[Any], kind: type, where: str) -> Choices:
    values = [_number(value, kind, f"{where}: a choice of {key}") if kind in (int, float) else value for value in given]
    if kind not in _CHOSEN:
        raise InputError(f"{where}: {key} is a list, which cannot be varied; leave it out")
    for value in values:
        if not isinstance(value, kind):
            raise InputError(f"{where}: {key} has the choice {value!r}; expected {_CHOSEN[kind]}")
    if len(set(values)) < max(2, len(values)):
        raise InputError(f"{where}: {key} has the choices {given}; expected two or more that differ")
    return Choices(tuple(values))


def _number(value: Any, kind: type, where: str) -> Number:
    """A number of a setting's kind; YAML takes 1e-5 for text."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        number = value
    if isinstance(number, bool) or not isinstance(number, int | float) or (kind is int and number != int(number)):
        raise InputError(f"{where} is {value!r}; expected {'a whole number' if kind is int else 'a number'}")
    return int(number) if kind is int else float(number)

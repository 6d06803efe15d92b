"""Configurations as text: YAML files that differ a little from a base, overrides, errors, and what settings mean."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from yolov7_jax.config import AUTO_BATCH, Config, ranges
from yolov7_jax.config_peers import peer_argument, read_hyp
from yolov7_jax.errors import InputError
from yolov7_jax.files import read_yaml
from yolov7_jax.registry import nearest

_FOLDERS = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
"""Where the built-in configurations are: in an installed wheel, in a checkout."""

_BASE = "base"
_SUFFIXES = (".yaml", ".yml")

_KINDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple[float, ...]: "a list of numbers such as [0.5, 1]",
    tuple[str, ...]: "a list of names such as [tensorboard, wandb]",
    tuple[tuple[float, ...], ...]: "a list of lists of numbers such as [[1, 2], [3, 4]]",
}

REPLACED = {"train.tensorboard": "train.loggers, a list of names such as [tensorboard]"}
"""Settings of older versions, and what says the same now."""

_WORDS: Mapping[tuple[str, str], Mapping[str, Any]] = {("train", "batch_size"): {"auto": AUTO_BATCH}}
"""What else can be written for some values of a setting."""


def config_names(room: str = "") -> tuple[str, ...]:
    """The names of the built-in configurations, or of the files in a room beside them."""
    return tuple(sorted({file.stem for folder in _FOLDERS for file in (folder / room).glob("*.yaml")}))


def read_config(
    source: Path | str,
    overrides: Sequence[str] = (),
    *,
    hyp: Path | str | None = None,
    report: Callable[[str], object] = warnings.warn,
) -> Config:
    """The settings of a configuration, given by its name or its YAML file.

    A file has the sections of `Config`, each with some of its keys, and may name another configuration as its `base`:
    what it does not say is the base's. A model YAML that it names may stand beside it.

    Args:
        source: a name of `config_names`, or a YAML file.
        overrides: texts such as "train.batch_size=8", which come last.
        hyp: a hyper-parameter file of yolov5 or yolov7, which comes over the configuration and below overrides.
        report: gets a sentence for each key of `hyp` that has no effect; by default it is a warning.

    Raises:
        InputError: no such configuration, an unknown key, or a value of the wrong kind or out of range; names the file
            or the override and the key, and what was expected.
    """
    file = find_named(str(source))
    settings = _read_with_bases(file, ())
    if hyp is not None:
        above = read_hyp(hyp, report)
        make_config(above, where=str(hyp))  # an error names this file
        settings = _merged(settings, above)
    return make_config(_merged(settings, _parse_overrides(overrides)), where=str(file))


def make_config(settings: Mapping[str, Mapping[str, Any]], *, where: str) -> Config:
    """The configuration with these settings, the rest being defaults; `where` they come from begins every error.

    Raises:
        InputError: an unknown key, or a value of the wrong kind or out of range.
    """
    _check_keys(settings, where)
    settings = _without_words(settings)
    config = _parsed(settings)
    if config is None:
        section, key, value = next((s, k, v) for s, k, v in _leaves(settings) if _parsed({s: {k: v}}) is None)
        raise InputError(f"{where}: {section}.{key} is {value!r}; expected {_expected(section, key)}")
    check_config(config, where=where)
    return config


def _without_words(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    def value_of(section: str, key: str, value: Any) -> Any:
        return _WORDS.get((section, key), {}).get(value, value) if isinstance(value, str) else value

    return {
        section: {key: value_of(section, key, value) for key, value in keys.items()}
        for section, keys in settings.items()
    }


def config_dict(config: Config) -> dict[str, dict[str, Any]]:
    """All settings as plain values (lists, not tuples), such as `make_config` takes."""
    settings: dict[str, dict[str, Any]] = _plain(dataclasses.asdict(config))
    return settings


def by_name(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of sections by names such as train.epochs."""
    return {f"{section}.{key}": value for section, keys in settings.items() for key, value in keys.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def find_named(source: str, *, room: str = "", what: str = "configuration") -> Path:
    """The file of a configuration, or of what else comes along in a room beside them.

    Args:
        source: a name of `config_names`, or a YAML file, which need not be there.
        room: the folder in configs/.
        what: it is, for the sentence of the error.

    Raises:
        InputError: nothing has this name.
    """
    if source.endswith(_SUFFIXES):
        return Path(source)
    for folder in _FOLDERS:
        if (folder / room / f"{source}.yaml").is_file():
            return folder / room / f"{source}.yaml"
    names = config_names(room)
    raise InputError(
        f"no {what} is named {source!r}{nearest(source, names)}; expected a YAML file or one of {', '.join(names)}"
    )


def _read_with_bases(file: Path, seen: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    if file in seen:
        raise InputError(
            f"{file}: is its own base ({' → '.join(map(str, seen))}); take the key base out of one of them"
        )
    content = {} if (read := read_yaml(file)) is None else read
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected sections such as train: and data:, found {type(content).__name__}")
    base = content.pop(_BASE, None)
    _check_keys(content, str(file))
    content = _with_model_beside(file, content)
    if base is None:
        return content
    if not isinstance(base, str):
        raise InputError(f"{file}: base is {base!r}; expected a name or a file of another configuration")
    base_file = file.parent / base if base.endswith(_SUFFIXES) else find_named(base)
    return _merged(_read_with_bases(base_file, (*seen, file)), content)


def _with_model_beside(file: Path, content: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of a file with the whole path of a model YAML that stands beside it."""
    name = content.get("model", {}).get("name")
    if not isinstance(name, str) or not name.endswith(_SUFFIXES) or not (file.parent / name).is_file():
        return content
    return _merged(content, {"model": {"name": str((file.parent / name).absolute())}})


def _parse_overrides(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for text in overrides:
        path, equals, value = text.lstrip("-").partition("=")
        section, dot, key = path.partition(".")
        if not dot and (known := peer_argument(text)):
            raise InputError(f"{text}: {known}")
        if not equals or not dot:
            raise InputError(f"{text}: not a setting; expected section.key=value such as train.batch_size=8")
        make_config({section: {key: value}}, where=text)  # an error names what was typed
        settings.setdefault(section, {})[key] = value
    return settings


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {section: {**below.get(section, {}), **above.get(section, {})} for section in {**below, **above}}


@cache
def _sections() -> dict[str, dict[str, Any]]:
    """The kinds of all values: {section: {key: type}}."""
    return {name: get_type_hints(section) for name, section in get_type_hints(Config).items()}


def _check_keys(settings: Mapping[str, Any], where: str) -> None:
    sections = _sections()
    for section, content in settings.items():
        if section not in sections:
            near = nearest(str(section), [*sections, *(f"{s}.{key}" for s, keys in sections.items() for key in keys)])
            raise InputError(f"{where}: no section is named {section!r}{near}; expected {', '.join(sections)}")
        if not isinstance(content, Mapping):
            raise InputError(
                f"{where}: {section} is {content!r}; expected keys such as {next(iter(sections[section]))}:"
            )
        for key in content:
            if now := REPLACED.get(f"{section}.{key}"):
                raise InputError(f"{where}: {section}.{key} is of an older version; set {now}, in its place")
            if key not in sections[section]:
                peer = peer_argument(str(key))
                near = f"; {peer}" if peer else nearest(str(key), sections[section])
                near = near or f"; expected {', '.join(sections[section])}"
                raise InputError(f"{where}: {section} has no key {key!r}{near}")


def _leaves(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for section, content in settings.items():
        for key, value in content.items():
            yield section, key, value


@cache
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    return parser


def _parsed(settings: Mapping[str, Mapping[str, Any]]) -> Config | None:
    """The configuration, None if a value is of the wrong kind."""
    try:
        return _parsed_text(json.dumps(settings))
    except TypeError:  # a value is nothing that a file can say
        return _parse(settings)


@lru_cache(maxsize=1024)
def _parsed_text(settings: str) -> Config | None:
    """As JSON, since a tenth of a second is much where the same few are asked for again and again."""
    return _parse(json.loads(settings))


def _parse(settings: Mapping[str, Mapping[str, Any]]) -> Config | None:
    if any(value is None for *_, value in _leaves(settings)):  # which the parser lets through
        return None
    try:
        return Config(**vars(_parser().instantiate(_parser().parse_object(dict(settings)))))
    except ArgumentError:
        return None


def _expected(section: str, key: str) -> str:
    kind = _sections()[section][key]
    return f"one of {', '.join(map(str, get_args(kind)))}" if get_origin(kind) is Literal else _KINDS[kind]


def check_config(config: Config, *, where: str) -> None:
    """Refuses numbers that mean nothing, and settings that cannot be together.

    Raises:
        InputError: a number is out of its range; names it. Or train.rect and train.multi_scale are both on.
    """
    for section in dataclasses.fields(config):
        settings = getattr(config, section.name)
        for key, allowed in ranges(type(settings)).items():
            setting = getattr(settings, key)
            if setting in _WORDS.get((section.name, key), {}).values():
                continue
            for value in setting if isinstance(setting, tuple) else (setting,):
                if not (allowed.low <= value <= allowed.high and math.isfinite(value)):
                    expected = f"numbers, each {allowed}" if isinstance(setting, tuple) else f"a number {allowed}"
                    raise InputError(f"{where}: {section.name}.{key} is {setting}; expected {expected}")
        for key, kind in _sections()[section.name].items():
            if get_origin(kind) is Literal and getattr(settings, key) not in get_args(kind):
                value = getattr(settings, key)
                raise InputError(f"{where}: {section.name}.{key} is {value!r}; expected {_expected(section.name, key)}")
    if config.train.rect and config.train.multi_scale:
        raise InputError(f"{where}: train.rect and train.multi_scale are both on; batches can have one or the other")


def settings_text(config: Config) -> str:
    """All settings of a configuration as lines `section.key=value  # meaning`."""
    return "\n".join(
        f"{f'{section}.{key}={value}':<32}{meaning}".rstrip() for section, key, value, meaning in _rows(config)
    )


def _rows(config: Config) -> Iterator[tuple[str, str, Any, str]]:
    for section in dataclasses.fields(config):
        settings = getattr(config, section.name)
        meanings = _meanings(type(settings))
        for field in dataclasses.fields(settings):
            meaning = meanings.get(field.name, "")
            value = getattr(settings, field.name)
            shown = json.dumps(value) if isinstance(value, tuple) else value  # as a list
            yield section.name, field.name, shown, f"# {meaning}" if meaning else ""


def _meanings(section: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = str(below.value.value)
    return found

"""What configurations may name: one dictionary for each kind of part, filled by `register_*`, built-in parts too.

A text names a part, with arguments of its own where it has some: `loss.assigner=ota`, or
`loss.assigner='task_aligned(top_k=13, alpha=1.0)'`. Arguments are literals, never evaluated.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from yolov7_jax.errors import InputError

Factory = TypeVar("Factory", bound=Callable[..., Any])
Table = dict[str, Callable[..., Any]]

ASSIGNERS: Table = {}
LOGGERS: Table = {}
LOSSES: Table = {}
OPTIMIZERS: Table = {}
SOURCES: Table = {}
TRANSFORMS: Table = {}


def register_assigner(name: str) -> Callable[[Factory], Factory]:
    """Gives a name to a function (LossConfig) → `Assigner`; a decorator."""
    return _register(ASSIGNERS, name)


def register_logger(name: str) -> Callable[[Factory], Factory]:
    """Gives a name to a function () → `Callback`, such as a subclass of it; a decorator."""
    return _register(LOGGERS, name)


def register_loss(name: str) -> Callable[[Factory], Factory]:
    """Gives a name to a function (LossConfig, LossSetup) → `LossFn`; a decorator."""
    return _register(LOSSES, name)


def register_optimizer(name: str) -> Callable[[Factory], Factory]:
    """Gives a name to an `OptimizerFactory` (Rates, labels, OptimConfig) → optax transformation; a decorator."""
    return _register(OPTIMIZERS, name)


def register_source(name: str) -> Callable[[Factory], Factory]:
    """Gives a name to a function (place, split, *, on_error) → `Source`, which `data.path=NAME:PLACE` calls."""
    return _register(SOURCES, name)


def register_transform(name: str) -> Callable[[Factory], Factory]:
    """Gives a name to a `Transform`, a function (rng, sample) → sample, and of further arguments by name; a decorator.

    `augment.transforms=[NAME]` calls it, and `augment.transforms=[NAME(limit=7)]` gives it the argument `limit`.
    """
    return _register(TRANSFORMS, name)


def look_up(table: Mapping[str, Callable[..., Any]], text: str, *, where: str) -> Callable[..., Any]:
    """What a text names, with its arguments bound.

    Args:
        table: one of the dictionaries here.
        text: a name, or a name with keyword arguments such as "ota(top_k=5)".
        where: what asks, for the sentence of the error: "loss.assigner".

    Raises:
        InputError: no such name (lists the known ones and the nearest), or the arguments are no literals.
    """
    name, options = _parsed(text, where)
    if name not in table:
        raise InputError(f"{where}: {name!r} is not known{nearest(name, table)}; expected one of {', '.join(table)}")
    return partial(table[name], **options) if options else table[name]


def import_modules(names: Iterable[str]) -> None:
    """Imports modules of a user, which register their parts; the working directory is looked in too.

    Raises:
        InputError: there is no such module, or it raised something: the sentence then ends in its traceback.
    """
    for name in names:
        if (folder := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, folder)
        try:
            importlib.import_module(name)
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
                raise InputError(
                    f"--import {name}: there is no module {error.name!r}; expected one that is installed or in {folder}"
                ) from error
            ours = "<frozen importlib", importlib.__file__, __file__
            raise InputError(
                f"--import {name}: the module failed; correct it\n{own_traceback(error, *ours)}"
            ) from error


def own_traceback(error: Exception, *ours: str) -> str:
    """The traceback of a user's error, from the first frame that is in no file whose path begins like these."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(ours):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def nearest(word: str, known: Iterable[str]) -> str:
    """A question in parentheses after the nearest known word: by itself, or by what follows its last dot."""
    words = list(known)
    last = {name.rpartition(".")[2]: name for name in reversed(words)}
    near = [last[word]] if word in last else difflib.get_close_matches(word, words, n=1)
    near = near or [last[name] for name in difflib.get_close_matches(word, list(last), n=1)]
    return f" (did you mean {near[0]!r}?)" if near else ""


def _register(table: Table, name: str) -> Callable[[Factory], Factory]:
    if not name.isidentifier():
        raise ValueError(f"a name is letters, digits and underscores, got {name!r}")

    def add(factory: Factory) -> Factory:
        table[name] = factory
        return factory

    return add


def _parsed(text: str, where: str) -> tuple[str, dict[str, Any]]:
    if "(" not in text:
        return text, {}
    try:
        call = ast.parse(text, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args):
            raise ValueError
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        if len(options) < len(call.keywords):  # twice the same, or **
            raise ValueError
        return call.func.id, options
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"{where}: {text!r} cannot be read; expected a name with arguments such as ota(top_k=5)"
        ) from error

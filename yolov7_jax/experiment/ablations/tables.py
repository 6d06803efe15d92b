"""The ablations of YOLOv7 (arXiv 2207.02696) as data (tables.yaml): what rows differ in, and what is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from yolov7_jax.convert.load import resolve
from yolov7_jax.errors import InputError
from yolov7_jax.files import read_yaml
from yolov7_jax.graph.rewrite import inference_form, with_width
from yolov7_jax.nn.summary import summarize

AP = "AP"
"""The measure that rows are compared by."""

_MILLION, _GIGA = 1e6, 1e9


class Size(NamedTuple):
    """Of a network in inference form: parameters in millions, 10⁹ operations for an image."""

    parameters_m: float
    gflops: float


@dataclass(frozen=True)
class AblationRow:
    """A row of a table.

    name: as in the paper. config: the configuration that it is trained with at the paper's scale. overrides: what it
    sets beside that, as in `read_config`. precision: average precision on COCO val2017 in per cent, as published, in
    the order of `Table.measures`. size: as published, of this row or of the network that it is in inference form.
    base: name of the row that it is compared with; empty for such a row itself.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    precision: tuple[float, ...]
    size: Size | None = None
    base: str = ""

    @property
    def slug(self) -> str:
        """The name as the name of a folder."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.name.lower()).split()
        return "-".join(words)

    @property
    def network(self) -> str:
        """The zoo name of its network."""
        settings = dict(text.split("=", 1) for text in self.overrides)
        return settings["model.name"]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    measures: average precisions that the paper gives. notes: what a reader of the results should know. trains: its rows
    are trained, else they are evaluations of given weights. small: the configuration of its small scale.
    """

    number: int
    title: str
    section: str
    measures: tuple[str, ...]
    rows: tuple[AblationRow, ...]
    notes: tuple[str, ...] = ()
    trains: bool = True
    small: str = "ablation-small"

    def row(self, name: str) -> AblationRow:
        """The row of a name, whatever its capitals; its folder's name will do too.

        Raises:
            InputError: there is none; names those that are.
        """
        found = [row for row in self.rows if name.lower() in (row.name.lower(), row.slug)]
        if not found:
            names = ", ".join(repr(row.name) for row in self.rows)
            raise InputError(f"table {self.number} has no row {name!r}; expected one of {names}")
        return found[0]

    @property
    def decimals(self) -> int:
        """With how many decimals the paper gives average precision."""
        return max(len(str(value).partition(".")[2]) for row in self.rows for value in row.precision)

    @property
    def varied(self) -> frozenset[str]:
        """The settings that rows differ in."""
        return frozenset(text.partition("=")[0] for row in self.rows for text in row.overrides)


def _table(
    *, config: str, measures: Sequence[str], rows: Sequence[dict[str, Any]], notes: Sequence[str] = (), **others: Any
) -> Table:
    """A table from its entry in tables.yaml."""
    read = tuple(_row(**{"config": config, **row}) for row in rows)
    return Table(measures=tuple(measures), rows=read, notes=tuple(notes), **others)


def _row(
    *,
    name: str,
    config: str,
    network: str,
    precision: Sequence[float],
    settings: Sequence[str] = (),
    size: Sequence[float] | None = None,
    base: str = "",
) -> AblationRow:
    overrides = (f"model.name={network}", *settings)
    return AblationRow(name, config, overrides, tuple(precision), Size(*size) if size else None, base)


@lru_cache
def tables() -> Mapping[int, Table]:
    """All tables by their numbers."""
    return {entry["number"]: _table(**entry) for entry in read_yaml(Path(__file__).with_name("tables.yaml"))}


@lru_cache
def network_size(network: str, *, classes: int | None = None, width: float = 1.0, side: int | None = None) -> Size:
    """The size of a network of the zoo; by default of the paper's, for images of the size it is made for.

    Raises:
        GraphError: the network cannot see images with this side.
    """
    graph = inference_form(with_width(resolve(network, num_classes=classes), width))
    if side is not None:
        graph.check_side(side)
    summary = summarize(graph, image_size=None if side is None else (side, side))
    return Size(summary.parameters / _MILLION, summary.flops / _GIGA)


def find_table(number: Any) -> Table:
    """The table of a number, given as a number or a text.

    Raises:
        InputError: there is none.
    """
    text = str(number)
    if not text.isdecimal() or int(text) not in tables():
        raise InputError(f"there is no ablation table {text!r}; expected one of {', '.join(map(str, tables()))}")
    return tables()[int(text)]

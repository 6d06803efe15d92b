"""The ablations of YOLOv7 (arXiv 2207.02696) as data: what the rows of each table differ in, and what is published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from yolov7_jax.errors import InputError

AP, AP50, AP75, AP_SMALL, AP_MEDIUM, AP_LARGE = "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"
THREE = (AP, AP50, AP75)
SIX = (*THREE, AP_SMALL, AP_MEDIUM, AP_LARGE)


class Size(NamedTuple):
    """Of a network in inference form: parameters in millions, 10⁹ operations for an image."""

    parameters_m: float
    gflops: float


@dataclass(frozen=True)
class Row:
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
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    trains: bool = True
    small: str = "ablation-small"

    def row(self, name: str) -> Row:
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


_LIGHT = "base (v7-X light)"
_X = Size(71.3, 189.9)
_E6 = Size(97.2, 515.2)
_E6E = Size(151.7, 843.2)
_YOLOR_W6 = Size(79.8, 453.2)
_YOLOR_CSP = Size(52.9, 120.4)


def _network(name: str, *more: str) -> tuple[str, ...]:
    return (f"model.name={name}", *more)


SCALING = Table(
    3,
    "Model scaling",
    "section 5.4.1",
    THREE,
    (
        Row(_LIGHT, "yolov7x-coco", _network("yolov7x-light"), (51.7, 70.1, 56.0), Size(47.0, 125.5)),
        *(
            Row(name, "yolov7x-coco", _network(network), precision, size, _LIGHT)
            for name, network, precision, size in (
                ("width only", "yolov7x-wide", (52.4, 70.9, 57.1), Size(73.4, 195.5)),
                ("depth only", "yolov7x-deep", (52.7, 70.8, 57.3), Size(69.3, 187.6)),
                ("compound (v7-X)", "yolov7x", (52.9, 71.1, 57.5), _X),
            )
        ),
    ),
    small="ablation-small-wide",
)

_PLANNED = {
    "a": (52.18, 70.34, 56.90, 35.71, 56.83, 67.51),
    "b": (52.30, 70.30, 56.92, 35.76, 56.95, 67.74),
    "c": (52.33, 70.56, 56.91, 35.90, 57.06, 67.50),
    "d": (52.17, 70.32, 56.82, 35.33, 57.06, 68.09),
    "e": (52.23, 70.20, 56.81, 35.34, 56.97, 66.88),
}

CONCATENATION = Table(
    4,
    "Planned RepConv in a concatenation-based model",
    "section 5.4.2, figure 6",
    SIX,
    (
        Row("base", "yolov7x-coco", _network("yolov7x"), (52.26, 70.41, 56.77, 35.81, 57.00, 67.59)),
        *(
            Row(f"({letter})", "yolov7x-coco", _network(f"yolov7x-rep-{letter}"), precision, base="base")
            for letter, precision in _PLANNED.items()
        ),
    ),
    notes=(
        "The paper shows the positions (a) to (e) in a drawing only (figure 6). Which convolutions are RepConv here is "
        "our reading, not published: of the six 3×3 of every block, three stacks of two, (a) the first of each stack, "
        "(b) the second of each stack, (c) the first stack, (d) the last stack, (e) all.",
    ),
    small="ablation-small-p5",
)

RESIDUAL = Table(
    5,
    "Planned RepConv in a residual-based model",
    "section 5.4.2",
    SIX,
    (
        Row(
            "YOLOR-W6",
            "recipe-p6",
            _network("yolor-w6"),
            (54.82, 72.39, 59.95, 39.68, 59.38, 68.30),
            _YOLOR_W6,
        ),
        *(
            Row(name, "recipe-p6", _network(network), precision, base="YOLOR-W6")
            for name, network, precision in (
                ("RepCSP (YOLOR-W6)", "yolor-w6-repcsp", (54.67, 72.50, 59.58, 40.22, 59.61, 67.87)),
                ("RCSP (YOLOR-W6)", "yolor-w6-rcsp", (54.36, 71.95, 59.54, 40.15, 59.02, 67.44)),
                ("RepRCSP (YOLOR-W6)", "yolor-w6-reprcsp", (54.85, 72.51, 60.08, 40.53, 59.52, 68.06)),
            )
        ),
        Row(
            "YOLOR-CSP",
            "recipe-p5",
            _network("yolor-csp"),
            (50.81, 69.47, 55.28, 33.74, 56.01, 65.38),
            _YOLOR_CSP,
        ),
        Row(
            "RepRCSP (YOLOR-CSP)",
            "recipe-p5",
            _network("yolor-csp-reprcsp"),
            (50.91, 69.54, 55.55, 34.44, 55.74, 65.46),
            base="YOLOR-CSP",
        ),
    ),
    notes=(
        "The sizes published are those of YOLOR-W6 and YOLOR-CSP (table 1 and 2); the paper gives none of the others.",
    ),
)

_ALONE = Row("no auxiliary head", "yolov7-e6-coco", _network("yolov7-e6-no-aux"), (55.6, 73.2, 60.7), _E6)


def _with_auxiliary_head(setting: str, **published: tuple[str, tuple[float, ...]]) -> tuple[Row, ...]:
    """YOLOv7-E6 without an auxiliary head, and with one for each value of a setting: its row's name and precision."""
    varied = (
        Row(name, "yolov7-e6-coco", (*_network("yolov7-e6"), f"{setting}={value}"), precision, _E6, _ALONE.name)
        for value, (name, precision) in published.items()
    )
    return (_ALONE, *varied)


ASSIGNER = Table(
    6,
    "Auxiliary head and its assigner",
    "section 5.4.3",
    THREE,
    _with_auxiliary_head(
        "loss.aux",
        independent=("independent", (55.8, 73.4, 60.9)),
        lead_guided=("lead guided", (55.9, 73.5, 61.0)),
        coarse_to_fine=("coarse-to-fine lead guided", (55.9, 73.5, 61.1)),
    ),
)

BOUND = Table(
    7,
    "Bound of the auxiliary head's decoder",
    "section 5.4.3",
    THREE,
    _with_auxiliary_head(
        "loss.aux_center_bound",
        false=("auxiliary head without the bound", (55.9, 73.5, 61.0)),
        true=("auxiliary head with the bound", (55.9, 73.5, 61.1)),
    ),
)

PARTIAL = Table(
    8,
    "Partial auxiliary head",
    "section 5.4.3",
    THREE,
    (
        Row("no auxiliary head", "yolov7-e6e-coco", _network("yolov7-e6e-no-aux"), (56.3, 74.0, 61.5), _E6E),
        Row(
            "auxiliary head on the sum",
            "yolov7-e6e-coco",
            _network("yolov7-e6e-aux-sum"),
            (56.5, 74.0, 61.6),
            _E6E,
            "no auxiliary head",
        ),
        Row(
            "partial auxiliary head",
            "yolov7-e6e-coco",
            _network("yolov7-e6e"),
            (56.8, 74.4, 62.1),
            _E6E,
            "no auxiliary head",
        ),
    ),
)

EVALUATION = Table(
    10,
    "Evaluation of YOLOv7-X: precision of the computation, threshold of the suppression",
    "appendix",
    (AP,),
    tuple(
        Row(
            f"{name}, NMS IoU {iou}",
            "yolov7x-coco",
            _network("yolov7x", f"train.dtype={dtype}", f"val.iou={iou}"),
            (precision,),
            _X,
            base,
        )
        for name, dtype, iou, precision, base in (
            ("FP16", "bfloat16", "0.65", 52.9, ""),
            ("FP32", "float32", "0.65", 53.0, "FP16, NMS IoU 0.65"),
            ("FP16", "bfloat16", "0.70", 53.0, "FP16, NMS IoU 0.65"),
            ("FP32", "float32", "0.70", 53.1, "FP16, NMS IoU 0.65"),
        )
    ),
    notes=("Half precision is FP16 in the paper and bfloat16 here.",),
    trains=False,
)

TABLES: Mapping[int, Table] = {
    table.number: table for table in (SCALING, CONCATENATION, RESIDUAL, ASSIGNER, BOUND, PARTIAL, EVALUATION)
}


def find_table(number: Any) -> Table:
    """The table of a number, given as a number or a text.

    Raises:
        InputError: there is none.
    """
    text = str(number)
    if not text.isdecimal() or int(text) not in TABLES:
        raise InputError(f"there is no ablation table {text!r}; expected one of {', '.join(map(str, TABLES))}")
    return TABLES[int(text)]

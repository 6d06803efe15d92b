"""What a compiled program does, read from XLA's text of it: collectives, loops, convolutions, padded arrays.

The text is that of `jax.stages.Compiled.as_text()`: https://openxla.org/xla/operation_semantics names its operations.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_ASSIGNED = re.compile(r"  (ROOT )?%?([\w.\-]+) = (.*)")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_TILE = re.compile(r"T\(([\d,]+)\)")
_WITHOUT_MEMORY = ("parameter", "constant", "bitcast", "get-tuple-element", "tuple", "while", "conditional")
_IN_MEMORY = ("while", "conditional", "call", "async-start")
"""Operations whose computations keep their arrays in memory; those of fusions and reductions do not."""


class HloArray(NamedTuple):
    """An array as a program lays it out. dtype: as XLA names it (bf16, f32). layout: the text in braces."""

    dtype: str
    shape: tuple[int, ...]
    layout: str = ""

    @property
    def bytes(self) -> float:
        """Without padding."""
        return math.prod(self.shape) * _item_bytes(self.dtype)

    @property
    def padded_bytes(self) -> float:
        """With the tiles of its layout, such as T(8,128), filled up; they cover the minor axes."""
        order, _, rest = self.layout.partition(":")
        tile = _TILE.match(rest)
        if tile is None or not self.shape:
            return self.bytes
        sides = [self.shape[int(axis)] for axis in reversed(order.split(","))]  # major to minor
        tiles = [int(side) for side in tile[1].split(",")]
        sides = [1] * (len(tiles) - len(sides)) + sides
        tiles = [1] * (len(sides) - len(tiles)) + tiles
        filled = (-(-side // size) * size for side, size in zip(sides, tiles, strict=True))
        return math.prod(filled) * _item_bytes(self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
    """One line of a computation. rest: what follows its operands."""

    name: str
    arrays: tuple[HloArray, ...]
    op: str
    operands: tuple[str, ...]
    rest: str
    constant: str = ""
    root: bool = False

    @property
    def kind(self) -> str:
        """The operation, without the suffix of one that begins and ends apart."""
        return self.op.removesuffix("-start")

    @property
    def origin(self) -> str:
        """The path of what it came from in the traced program."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""


class Program(NamedTuple):
    """computations: their instructions by name. entry: the name of the first."""

    computations: Mapping[str, Mapping[str, Instruction]]
    entry: str


class Collective(NamedTuple):
    """What devices send each other at one place of a program.

    kind: one of `COLLECTIVES`. arrays: the whole ones, as before a reduction or after a gathering. in_loop: it is
    inside of one. trips: how often it runs in a step; None where the length of a loop depends on data.
    """

    kind: str
    arrays: tuple[HloArray, ...]
    in_loop: bool
    trips: int | None
    origin: str

    @property
    def bytes(self) -> float:
        """Of one run."""
        return sum(array.bytes for array in self.arrays)

    @property
    def dtypes(self) -> str:
        """Of its arrays, joined by commas."""
        return ", ".join(sorted({array.dtype for array in self.arrays}))


class Padded(NamedTuple):
    """An array that takes much more memory than its values. count: how many alike the program makes, one at a time."""

    array: HloArray
    count: int  # type: ignore[assignment]  # a field named as a method of tuples, which nothing calls
    origin: str


def parse_hlo(text: str) -> Program:
    """The instructions of XLA's text of a program."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", dict[str, Instruction]()
    for line in text.splitlines():
        if line.startswith("  ") and (assigned := _ASSIGNED.match(line)):
            current[assigned[2]] = _instruction(assigned[2], assigned[3], root=bool(assigned[1]))
        elif head := _HEAD.match(line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
    return Program(computations, entry)


def collectives(program: Program) -> list[Collective]:
    """Every one that the program has, in its order."""
    found = []
    for name, visit in _visits(program).items():
        computation = program.computations[name]
        for line in computation.values():
            if line.kind in COLLECTIVES:
                arrays = _whole(line, computation)
                found.append(Collective(line.kind, arrays, visit.loop, visit.trips, line.origin))
    return found


def convolutions(program: Program) -> dict[str, int]:
    """How many there are, also inside fusions, by the wider dtype of what is convolved."""
    counted = Counter[str]()
    for computation in program.computations.values():
        for line in computation.values():
            if line.op == "convolution":
                dtypes = [array.dtype for name in line.operands for array in computation[name].arrays]
                counted[max(dtypes, key=_item_bytes)] += 1
    return dict(counted)


def padded_arrays(program: Program, *, factor: float = 2, least: float = 2**20) -> list[Padded]:
    """Arrays in memory whose tiles take so many times their values and `least` bytes more; most waste first."""
    found: dict[HloArray, Padded] = {}
    for name in _visits(program, _IN_MEMORY):
        for line in program.computations[name].values():
            if len(line.arrays) != 1 or (
                line.op in _WITHOUT_MEMORY and (line.op, name) != ("parameter", program.entry)
            ):
                continue
            array = line.arrays[0]
            if array.padded_bytes >= factor * array.bytes and array.padded_bytes >= array.bytes + least:
                before = found.get(array, Padded(array, 0, line.origin))
                found[array] = before._replace(count=before.count + 1)
    return sorted(found.values(), key=lambda one: one.array.bytes - one.array.padded_bytes)


def _instruction(name: str, text: str, *, root: bool) -> Instruction:
    """From what stands right of the equals sign: types, operation(operands), rest."""
    types_end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    types, after = text[:types_end], text[types_end:].lstrip()
    begin = after.index("(")
    end = _closing(after, begin)
    given = after[begin + 1 : end - 1]
    arrays = tuple(
        HloArray(dtype, tuple(int(side.lstrip("<=")) for side in sides.split(",") if side), layout)
        for dtype, sides, layout in _ARRAY.findall(types)
        if dtype != "token"
    )
    op = after[:begin]
    constant = given if op == "constant" else ""
    return Instruction(name, arrays, op, tuple(_NAME.findall(given)), after[end:], constant, root)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at a place is closed again, one further."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return start + found.end()
    return len(text)


def _item_bytes(dtype: str) -> float:
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) / 8 if bits else 1  # pred


def _whole(line: Instruction, computation: Mapping[str, Instruction]) -> tuple[HloArray, ...]:
    """The arrays of a collective before they are reduced or scattered, or after they are gathered."""
    given = [array for name in line.operands for array in computation[name].arrays]
    if line.kind != "all-gather":
        return tuple(given)
    # One that begins apart has what it was given beside its result.
    return line.arrays[len(given) :] if line.op.endswith("-start") else line.arrays


class _Call(NamedTuple):
    """A computation that another one calls. trips: so often each time; None if that depends on data."""

    name: str
    loop: bool = False
    trips: int | None = 1


def _visits(program: Program, kinds: Sequence[str] | None = None) -> dict[str, _Call]:
    """Every computation that can be reached from the first, whether in a loop, and how often in all.

    kinds: operations to follow; by default all.
    """
    found: dict[str, _Call] = {}

    def visit(now: _Call) -> None:
        before = found.get(now.name, _Call(now.name, trips=0))
        found[now.name] = _Call(now.name, now.loop or before.loop, _both(int.__add__, now.trips, before.trips))
        for call in _calls(program, now.name, kinds):
            visit(_Call(call.name, now.loop or call.loop, _both(int.__mul__, now.trips, call.trips)))

    visit(_Call(program.entry))
    return found


def _both(operation: Callable[[int, int], int], first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else operation(first, second)


def _calls(program: Program, name: str, kinds: Sequence[str] | None) -> Iterator[_Call]:
    computation = program.computations[name]
    for line in computation.values():
        if kinds is None or line.op in kinds:
            loop = line.op == "while"
            trips = _trips(program, computation, line) if loop else 1
            for called in dict.fromkeys(_NAME.findall(line.rest)):
                if called in program.computations:
                    yield _Call(called, loop, trips)


def _trips(program: Program, computation: Mapping[str, Instruction], loop: Instruction) -> int | None:
    """How often a loop runs: said by the compiler, or a constant that its counter, from 0 by ones, is less than."""
    if said := _KNOWN_TRIPS.search(loop.rest):
        return int(said[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    lines = program.computations[condition[1]] if condition else {}
    last = next((line for line in lines.values() if line.root), None)
    if last is None or last.op != "compare" or "direction=LT" not in last.rest:
        return None
    bound = lines[last.operands[1]]
    if bound.op == "get-tuple-element" and (place := re.search(r"index=(\d+)", bound.rest)):
        start = computation[loop.operands[0]]  # what the loop begins with
        bound = computation[start.operands[int(place[1])]] if start.op == "tuple" else start
    return int(bound.constant) if bound.constant.isdecimal() else None

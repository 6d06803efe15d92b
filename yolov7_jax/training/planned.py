"""What is known of a compiled training step, and how it is said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from yolov7_jax.training.hlo import Collective, Padded
from yolov7_jax.training.memory import MEGABYTE, ProgramMemory
from yolov7_jax.training.roofline import Roofline, Scaling

_SHOWN = 5  # padded arrays


class Compilation(NamedTuple):
    """A batch size that was compiled. needed: bytes on each device; None: the compiler found no room for it."""

    batch_size: int
    needed: int | None
    seconds: float


@dataclass(frozen=True)
class PlannedStep:
    """What a compiled training step takes. Memory, operations, bytes and collectives are those of one device.

    network: its name. image_size: (h, w) in pixels. batch_size: images over all devices. on: the topology, or local.
    device_kind: as JAX names it. devices: how many. flops, bytes_moved: of a step, as XLA counts them. convolutions:
    how many of each dtype. collectives: what devices send each other. foreign: those among them that data parallelism
    has no need of, as they move neither sums nor weights. padded: arrays that take a multiple of their values, most
    waste first. capacity: bytes of memory of a device. roofline, scaling: like it for known chips alone, the last where
    devices send each other anything. compilations: all that were made. largest_batch: the largest that was found to
    fit, where it was looked for.
    """

    network: str
    image_size: tuple[int, int]
    batch_size: int
    dtype: str
    on: str
    device_kind: str
    devices: int
    memory: ProgramMemory | None
    flops: float
    bytes_moved: float
    convolutions: Mapping[str, int]
    collectives: tuple[Collective, ...]
    foreign: tuple[Collective, ...]
    padded: tuple[Padded, ...]
    capacity: float | None = None
    roofline: Roofline | None = None
    scaling: tuple[Scaling, ...] = ()
    compilations: tuple[Compilation, ...] = ()
    largest_batch: int | None = None

    def facts(self) -> dict[str, Any]:
        """The same in dicts, lists, texts and numbers, for JSON."""
        plain: dict[str, Any] = _plain(vars(self))
        return plain

    def lines(self) -> list[str]:
        """The same for people."""
        where = self.device_kind if self.on == "local" else f"{self.device_kind} ({self.on})"
        height, width = self.image_size
        head = f"{self.network}: a step of {self.batch_size} images of {width} × {height} pixels in {self.dtype}"
        kinds = ", ".join(f"{count} in {dtype}" for dtype, count in self.convolutions.items())
        parts: dict[str, Iterable[str]] = {
            "memory": _memory(self.memory, self.capacity),
            "operations": [f"{self.flops / 1e9:,.1f} GFLOP, {self.bytes_moved / 1e9:,.1f} GB read and written"],
            "convolutions": [kinds or "none of that name"],
            "collectives": _collectives(self.collectives, self.foreign),
            "padding": _padding(self.padded),
            "at least": [] if self.roofline is None else [_bounds(self.roofline)],
            "scaling": _scalings(self.scaling),
            "largest batch": _largest(self.largest_batch, self.compilations),
        }
        rows = [(name if not number else "", line) for name, all_ in parts.items() for number, line in enumerate(all_)]
        return [f"{head}, on {self.devices} × {where}; of each device:", *(f"{name:<14}{line}" for name, line in rows)]


def _memory(memory: ProgramMemory | None, capacity: float | None) -> list[str]:
    if memory is None:
        return ["the compiler does not tell"]
    sizes = {name: f"{getattr(memory, name) / MEGABYTE:,.0f}" for name in (*memory._fields, "needed")}
    of_all = "" if capacity is None else f" of {capacity / MEGABYTE:,.0f}"
    return [
        f"{sizes['needed']} MiB{of_all}: {sizes['arguments']} arguments, {sizes['outputs']} outputs "
        f"({sizes['aliased']} of them in place of arguments), {sizes['temporary']} temporary, {sizes['code']} program",
        *([f"{sizes['peak']} MiB in arrays at the worst moment"] if memory.peak else []),
    ]


def _collectives(found: Sequence[Collective], foreign: Sequence[Collective]) -> Iterator[str]:
    """A line for each kind, and for the largest of those in a loop and of those that are not needed."""
    groups = defaultdict[tuple[str, str], list[Collective]](list)
    for one in found:
        groups[one.kind, one.dtypes].append(one)
    for (kind, dtypes), alike in groups.items():
        arrays, size = sum(len(one.arrays) for one in alike), sum(one.bytes for one in alike)
        largest = max((array for one in alike for array in one.arrays), key=lambda array: array.bytes)
        yield f"{len(alike)} {kind} of {dtypes}: {arrays} arrays, {size / MEGABYTE:,.2f} MiB; the largest {largest}"
    if not found:
        yield "none"
        return
    yield from _largest_of([one for one in found if one.in_loop], _in_loop)
    yield from _largest_of(foreign, lambda _: "not sums or weights")
    if not foreign:
        yield "images and activations stay where they are: only sums" + (
            " are sent" if all(one.kind == "all-reduce" for one in found) else " and weights are sent"
        )


def _in_loop(one: Collective) -> str:
    times = "a number of times that depends on data" if one.trips is None else f"{one.trips} times"
    return f"inside a loop, {times}"


def _largest_of(found: Sequence[Collective], what: Callable[[Collective], str]) -> Iterator[str]:
    """A line for each, but that of many the largest alone are shown."""
    by_size = sorted(found, key=lambda one: -one.bytes)
    for one in by_size[:_SHOWN]:
        yield f"{what(one)}: {one.kind} of {', '.join(map(str, one.arrays))} ({one.origin})"
    if rest := by_size[_SHOWN:]:
        yield f"{what(rest[0])}: {len(rest)} others, {sum(one.bytes for one in rest) / MEGABYTE:,.2f} MiB"


def _padding(found: Sequence[Padded]) -> Iterator[str]:
    for one in found[:_SHOWN]:
        real, padded = one.array.bytes / MEGABYTE, one.array.padded_bytes / MEGABYTE
        times = f", made {one.count} times" if one.count > 1 else ""
        yield f"{one.array}: {real:,.1f} MiB of values take {padded:,.1f}{times} ({one.origin})"
    if len(found) > _SHOWN:
        yield f"and {len(found) - _SHOWN} others that take twice their values or more"


def _bounds(found: Roofline) -> str:
    return (
        f"{1e3 * found.step_s:,.1f} ms a step: its operations take {1e3 * found.compute_s:,.1f} ms at the chip's peak "
        f"in bfloat16, its bytes {1e3 * found.memory_s:,.1f} ms at full bandwidth"
    )


def _scalings(found: Sequence[Scaling]) -> Iterator[str]:
    if found:
        yield "chips   slice     transfers   efficiency: one after another   bytes behind the backward pass"
    for one in found:
        sides, spent = "x".join(map(str, one.sides)), f"{1e3 * one.communication_s:,.2f} ms"
        yield f"{one.chips:<8}{sides:<10}{spent:>9}{100 * one.worst:>30.1f} %{100 * one.best:>31.1f} %"


def _largest(found: int | None, compilations: Sequence[Compilation]) -> Iterator[str]:
    def tried(one: Compilation) -> str:
        needed = "no room" if one.needed is None else f"{one.needed / MEGABYTE:,.0f} MiB"
        return f"{one.batch_size} ({needed}, compiled in {one.seconds:.0f} s)"

    if found is not None:
        yield f"{found} images, of {', '.join(map(tried, compilations))}"


def _plain(value: Any) -> Any:
    """Of named tuples and dataclasses, their fields in dicts."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value

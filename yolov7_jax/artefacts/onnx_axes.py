"""Operations that move, cut or join axes: what each is in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from yolov7_jax.artefacts.onnx_graph import (
    TO_NCHW,
    Broadcast,
    Converter,
    Equation,
    Rule,
    Value,
    axes_of,
    integers,
    is_nchw,
    only,
    rule,
    sizes,
)

AXES: dict[str, Rule] = {}


@rule(AXES, "reshape")
def _reshape(c: Converter, equation: Equation) -> Any:
    (x,), (before,), shape = equation.inputs, equation.shapes, equation.shape
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, before).reshape(shape)
    if (factors := _repeats(x, shape)) is not None:
        assert x.broadcast is not None
        return _upsample(c, x.broadcast.source, factors)
    return Value(c.steps.op("Reshape", c.name(x), sizes(shape)))


def _repeats(x: Value, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """How often each row and column stands in what is made of a broadcast by a reshape, if that is all it does."""
    if x.broadcast is None or len(shape) != 4 or len(x.broadcast.source_shape) != 4:
        return None
    _, source, axes, full = x.broadcast
    rows, columns = (after // before for after, before in zip(shape[1:3], source[1:3], strict=True))
    factors = [(source[1], rows, 1), (source[2], columns, 2)]
    expected, places = [source[0]], [0]
    for size, factor, axis in factors:
        places.append(len(expected))
        has_factor = axes[axis] + 1 not in axes
        expected += [size, factor] if has_factor else [size]
        if not has_factor and factor != 1:
            return None
    places.append(len(expected))
    expected.append(source[3])
    merged = (source[0], source[1] * rows, source[2] * columns, source[3])
    return (rows, columns) if (tuple(expected), tuple(places), merged) == (full, axes, shape) else None


def _upsample(c: Converter, x: Value, factors: tuple[int, int]) -> Value:
    scales = np.array([1, 1, *factors], np.float32)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return Value(c.steps.op("Resize", c.name(x, nchw=True), "", scales, **how), nchw=True)


@rule(AXES, "broadcast_in_dim")
def _broadcast(c: Converter, equation: Equation) -> Any:
    x, shape, axes = equation.inputs[0], equation.shape, tuple(equation.params["broadcast_dimensions"])
    before = equation.shapes[0]
    if isinstance(x, np.ndarray):
        unit = np.ones(len(shape), int)
        unit[list(axes)] = x.shape
        return x.reshape(unit)
    origin = Broadcast(x, before, axes, shape)
    if x.broadcast is not None:
        origin = x.broadcast._replace(axes=tuple(axes[axis] for axis in x.broadcast.axes), shape=shape)
    if before == shape:
        return x
    unit_shape = tuple(before[axes.index(axis)] if axis in axes else 1 for axis in range(len(shape)))
    new = [axis for axis in range(len(shape)) if axis not in axes]
    name = c.name(x)
    name = c.steps.op("Unsqueeze", name, integers(*new)) if new else name
    return Value(name if unit_shape == shape else c.expanded(name, shape, unit_shape), broadcast=origin)


@rule(AXES, "squeeze")
def _squeeze(c: Converter, equation: Equation) -> Value:
    return Value(c.steps.op("Squeeze", c.input(equation, nchw=False)[0], integers(*equation.params["dimensions"])))


@rule(AXES, "transpose")
def _transpose(c: Converter, equation: Equation) -> Value:
    x, nchw = c.input(equation)
    order = axes_of(nchw, equation.params["permutation"])
    return Value(x if order == sorted(order) else c.steps.op("Transpose", x, perm=tuple(order)))


@rule(AXES, "concatenate")
def _concatenate(c: Converter, equation: Equation) -> Value:
    nchw = is_nchw(equation)
    parts = [c.input(equation, nchw=nchw, place=place)[0] for place in range(len(equation.inputs))]
    return Value(c.steps.op("Concat", *parts, axis=axes_of(nchw, [equation.params["dimension"]])[0]), nchw)


def _slice(c: Converter, x: str, nchw: bool, shape: Any, starts: Any, limits: Any, strides: Any) -> Value:
    """The part of a value from starts to limits; axes that stay whole are not mentioned."""
    parts = [(axis, *part) for axis, *part in zip(range(len(shape)), starts, limits, strides, shape, strict=True)]
    cut = [
        (axis, start, limit, step) for axis, start, limit, step, size in parts if (start, limit, step) != (0, size, 1)
    ]
    if not cut:
        return Value(x, nchw)
    axes, starts, limits, strides = zip(*cut, strict=True)
    where = integers(*starts), integers(*limits), integers(*axes_of(nchw, axes)), integers(*strides)
    return Value(c.steps.op("Slice", x, *where), nchw)


@rule(AXES, "slice")
def _static_slice(c: Converter, equation: Equation) -> Value:
    p, shape = equation.params, equation.shapes[0]
    return _slice(
        c, *c.input(equation), shape, p["start_indices"], p["limit_indices"], p["strides"] or (1,) * len(shape)
    )


@rule(AXES, "dynamic_slice")
def _dynamic_slice(c: Converter, equation: Equation) -> Value:
    only(equation, all(isinstance(start, np.ndarray) for start in equation.inputs[1:]), "with constant places")
    shape, size = equation.shapes[0], equation.params["slice_sizes"]
    starts = [min(max(int(at), 0), of - part) for at, of, part in zip(equation.inputs[1:], shape, size, strict=True)]  # type: ignore[arg-type]
    limits = [start + part for start, part in zip(starts, size, strict=True)]
    return _slice(c, *c.input(equation), shape, starts, limits, (1,) * len(shape))


@rule(AXES, "split")
def _split(c: Converter, equation: Equation) -> Any:
    x, nchw = c.input(equation)
    shape, axis = equation.shapes[0], equation.params["axis"]
    ends = np.cumsum(equation.params["sizes"]).tolist()
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        starts, limits = [0] * len(shape), list(shape)
        starts[axis], limits[axis] = start, end
        found.append(_slice(c, x, nchw, shape, starts, limits, (1,) * len(shape)))
    return found


@rule(AXES, "pad")
def _pad(c: Converter, equation: Equation) -> Value:
    x, nchw = c.input(equation)
    config = equation.params["padding_config"]
    only(equation, all(inner == 0 for _, _, inner in config), "around an array")
    order = TO_NCHW if nchw else range(len(config))
    pads = [config[axis][side] for side in (0, 1) for axis in order]
    return Value(c.steps.op("Pad", x, integers(*pads), c.name(equation.inputs[1]), mode="constant"), nchw)

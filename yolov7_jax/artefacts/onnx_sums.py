"""Reductions, pools, convolutions and products: what each is in ONNX."""

from __future__ import annotations

from functools import partial
from math import prod
from string import ascii_letters

import numpy as np

from yolov7_jax.artefacts.onnx_graph import (
    TO_NCHW,
    TO_NHWC,
    Converter,
    Equation,
    Rule,
    Value,
    axes_of,
    integers,
    only,
    rule,
)

SUMS: dict[str, Rule] = {}


def _reduction(op: str, c: Converter, equation: Equation) -> Value:
    x, nchw = c.input(equation)
    axes = tuple(equation.params["axes"])
    left = [axis for axis in TO_NCHW if axis not in axes]
    if nchw and left != sorted(left):
        x, nchw = c.steps.op("Transpose", x, perm=TO_NHWC), False
    places = axes_of(nchw, axes)
    if op == "ReduceSum":
        return Value(c.steps.op(op, x, integers(*places), keepdims=0))
    return Value(c.steps.op(op, x, axes=tuple(places), keepdims=0))


SUMS["reduce_sum"] = partial(_reduction, "ReduceSum")
SUMS["reduce_max"] = partial(_reduction, "ReduceMax")
SUMS["reduce_min"] = partial(_reduction, "ReduceMin")
SUMS["reduce_prod"] = partial(_reduction, "ReduceProd")


def _window(equation: Equation) -> dict[str, tuple[int, ...]]:
    """The attributes of a pool over rows and columns."""
    p = equation.params
    across = [p["window_dimensions"], p["window_strides"], p["base_dilation"], p["window_dilation"]]
    plain = all(sizes[0] == sizes[3] == 1 for sizes in across if len(sizes) == 4) and set(across[2] + across[3]) == {1}
    only(equation, len(across[0]) == 4 and plain, "over rows and columns")
    low, high = zip(*p["padding"][1:3], strict=True)
    return {"kernel_shape": across[0][1:3], "strides": across[1][1:3], "pads": (*map(int, low), *map(int, high))}


@rule(SUMS, "reduce_window_max")
def _max_pool(c: Converter, equation: Equation) -> Value:
    return Value(c.steps.op("MaxPool", c.input(equation, nchw=True)[0], **_window(equation)), nchw=True)


@rule(SUMS, "reduce_window_sum")
def _sum_pool(c: Converter, equation: Equation) -> Value:
    window = _window(equation)
    mean = c.steps.op("AveragePool", c.input(equation, nchw=True)[0], count_include_pad=1, **window)
    number = np.array(prod(window["kernel_shape"]), c.dtype(equation.outputs[0].dtype))
    return Value(c.steps.op("Mul", mean, number), nchw=True)


# Products


@rule(SUMS, "conv_general_dilated")
def _convolution(c: Converter, equation: Equation) -> Value:
    p = equation.params
    numbers = p["dimension_numbers"]
    nhwc = (numbers.lhs_spec, numbers.out_spec) == (TO_NCHW, TO_NCHW)
    only(equation, nhwc and set(p["lhs_dilation"]) == {1} and p["batch_group_count"] == 1, "of NHWC, not transposed,")
    kernel = equation.inputs[1]
    if isinstance(kernel, np.ndarray):
        weights = c.name(kernel.transpose(numbers.rhs_spec))
    else:
        weights = c.steps.op("Transpose", c.name(kernel), perm=tuple(numbers.rhs_spec))
    low, high = zip(*p["padding"], strict=True)
    attributes = {
        "strides": tuple(p["window_strides"]),
        "pads": (*map(int, low), *map(int, high)),
        "dilations": tuple(p["rhs_dilation"]),
        "group": p["feature_group_count"],
    }
    return Value(c.steps.op("Conv", c.input(equation, nchw=True)[0], weights, **attributes), nchw=True)


@rule(SUMS, "dot_general")
def _product(c: Converter, equation: Equation) -> Value:
    """A matrix product where the second input is a matrix, else a sum by letters: one for each axis."""
    (over, over_other), (batch, batch_other) = equation.params["dimension_numbers"]
    ranks = [len(shape) for shape in equation.shapes]
    x, y = (c.input(equation, nchw=False, place=place)[0] for place in (0, 1))
    if ranks[1] == 2 and (tuple(over), tuple(over_other), tuple(batch)) == ((ranks[0] - 1,), (0,), ()):
        return Value(c.steps.op("MatMul", x, y))
    letters = iter(ascii_letters)
    first = [next(letters) for _ in range(ranks[0])]
    shared = dict(zip((*over_other, *batch_other), (*over, *batch), strict=True))
    second = [first[shared[axis]] if axis in shared else next(letters) for axis in range(ranks[1])]
    left = [first[axis] for axis in batch]
    left += [letter for axis, letter in enumerate(first) if axis not in (*over, *batch)]
    left += [letter for axis, letter in enumerate(second) if axis not in shared]
    return Value(c.steps.op("Einsum", x, y, equation=f"{''.join(first)},{''.join(second)}->{''.join(left)}"))

"""Operations element by element: what each is in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from yolov7_jax.artefacts.onnx_graph import Converter, Equation, Rule, Value, is_nchw, rule

ELEMENTS: dict[str, Rule] = {}

_BY_ELEMENT = {
    "abs": "Abs",
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tan": "Tan",
    "tanh": "Tanh",
    "xor": "Xor",
}


def by_element(emit: Callable[..., str]) -> Rule:
    """The rule of an operation whose inputs have one shape, or that of a number: `emit` of steps and their names."""

    def apply(c: Converter, equation: Equation) -> Value:
        nchw = is_nchw(equation)
        given = zip(equation.inputs, equation.shapes, strict=True)
        names = [c.name(operand, nchw=nchw and len(shape) == 4) for operand, shape in given]
        return Value(emit(c.steps, *names), nchw)

    return apply


def _op(name: str, steps: Any, *inputs: str) -> str:
    found: str = steps.op(name, *inputs)
    return found


ELEMENTS.update({name: by_element(partial(_op, op)) for name, op in _BY_ELEMENT.items()})
ELEMENTS["ne"] = by_element(lambda s, x, y: s.op("Not", s.op("Equal", x, y)))
ELEMENTS["square"] = by_element(lambda s, x: s.op("Mul", x, x))
ELEMENTS["rsqrt"] = by_element(lambda s, x: s.op("Reciprocal", s.op("Sqrt", x)))
ELEMENTS["select_n"] = by_element(lambda s, which, no, yes: s.op("Where", which, yes, no))
ELEMENTS["clamp"] = by_element(lambda s, low, x, high: s.op("Min", s.op("Max", x, low), high))


@rule(ELEMENTS, "erfc")
def _erfc(c: Converter, equation: Equation) -> Value:
    one = np.ones((), c.dtype(equation.outputs[0].dtype))
    return by_element(lambda s, x: s.op("Sub", one, s.op("Erf", x)))(c, equation)  # type: ignore[return-value]


@rule(ELEMENTS, "log1p")
def _log1p(c: Converter, equation: Equation) -> Value:
    """Of small x too: with u the rounded 1 + x it is log(u) · x / (u − 1) (Kahan)."""
    one = np.ones((), c.dtype(equation.outputs[0].dtype))

    def emit(s: Any, x: str) -> str:
        u = s.op("Add", x, one)
        ratio = s.op("Div", s.op("Mul", s.op("Log", u), x), s.op("Sub", u, one))
        found: str = s.op("Where", s.op("Equal", u, one), x, ratio)
        return found

    return by_element(emit)(c, equation)  # type: ignore[return-value]


@rule(ELEMENTS, "expm1")
def _expm1(c: Converter, equation: Equation) -> Value:
    """Of small x too: with t = tanh(x / 2) it is 2t / (1 − t)."""
    half, one, two = (np.array(value, c.dtype(equation.outputs[0].dtype)) for value in (0.5, 1, 2))

    def emit(s: Any, x: str) -> str:
        t = s.op("Tanh", s.op("Mul", x, half))
        near = s.op("Div", s.op("Mul", t, two), s.op("Sub", one, t))
        far = s.op("Sub", s.op("Exp", x), one)
        found: str = s.op("Where", s.op("Less", s.op("Abs", x), one), near, far)
        return found

    return by_element(emit)(c, equation)  # type: ignore[return-value]


@rule(ELEMENTS, "integer_pow")
def _integer_pow(c: Converter, equation: Equation) -> Value:
    x, nchw = c.input(equation)
    exponent = np.array(equation.params["y"], c.dtype(equation.outputs[0].dtype))
    return Value(c.steps.op("Pow", x, exponent), nchw)


@rule(ELEMENTS, "convert_element_type")
def _convert(c: Converter, equation: Equation) -> Any:
    (x,) = equation.inputs
    dtype = np.dtype(equation.params["new_dtype"])
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    if equation.raw.invars[0].aval.dtype == dtype:
        return x
    return Value(c.steps.op("Cast", x.name, to=c.dtype(dtype)), x.nchw)


@rule(ELEMENTS, "copy", "copy_p", "name", "optimization_barrier", "reduce_precision", "stop_gradient")
def _same(_: Converter, equation: Equation) -> Any:
    return list(equation.inputs)

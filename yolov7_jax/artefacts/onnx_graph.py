"""A traced JAX function as ONNX operators.

Feature maps are [B, H, W, c] in the trace and [B, c, H, W] in ONNX. A value carries the flag `nchw` from where a
convolution or a pool made it through all that keeps its axes apart, so few transposes remain. What depends on constants
alone is computed while the graph is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from numpy.typing import NDArray

from yolov7_jax.artefacts.onnx_steps import Steps
from yolov7_jax.errors import InputError

BATCH = 1_000_003
"""Images of the batch in a trace: a prime number, so that every size that is a multiple of it is one of the batch."""

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class Broadcast(NamedTuple):
    """Where the axes of a value went when it was broadcast, and to what shape."""

    source: Value
    source_shape: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]


class Value(NamedTuple):
    """What an operator gives. nchw: it lies as [B, c, H, W] where the trace has [B, H, W, c]."""

    name: str
    nchw: bool = False
    broadcast: Broadcast | None = None


Operand: TypeAlias = "Value | NDArray[Any]"
"""A value, or a constant, whose axes of size 1 may stand for those that the trace has broadcast."""


class Equation(NamedTuple):
    """One operation of a trace: what goes in, the shapes of that in the trace, what comes out."""

    name: str
    inputs: tuple[Operand, ...]
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[Any, ...]
    params: dict[str, Any]
    raw: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first output in the trace."""
        found: tuple[int, ...] = self.outputs[0].shape
        return found


Rule = Callable[["Converter", Equation], "Operand | list[Operand]"]


class Converter:
    """Walks through a trace and adds its operators to `steps`.

    half: the name of jitted functions in which float32 becomes float16, from their inputs to their outputs. images:
    the name of an input whose first axis is the batch.
    """

    def __init__(self, steps: Steps, rules: dict[str, Rule], *, images: str, half: str | None = None) -> None:
        self.steps, self.rules, self.images, self._half_in = steps, rules, images, half
        self.half = False

    def run(self, jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Operand]) -> list[Operand]:
        """The outputs of a traced function.

        Raises:
            InputError: it has an operation that there is no rule for.
        """
        known: dict[Any, Operand] = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
        known.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Operand:
            return np.asarray(atom.val, _aval(atom).dtype) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            given = tuple(map(read, eqn.invars))
            shapes = tuple(_aval(atom).shape for atom in eqn.invars)
            outputs = tuple(variable.aval for variable in eqn.outvars)
            found = self._convert(Equation(eqn.primitive.name, given, shapes, outputs, eqn.params, eqn))
            known.update(zip(eqn.outvars, found if isinstance(found, list) else [found], strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _convert(self, equation: Equation) -> Operand | list[Operand]:
        if (inner := _called(equation)) is not None:
            return self._call(equation, inner)
        folds = all(isinstance(given, np.ndarray) for given in equation.inputs)
        if folds and equation.name not in LAZY and not any(map(_of_batch, equation.outputs)):
            return _computed(equation)
        if equation.name not in self.rules:
            where = equation.raw.source_info.name_stack
            raise InputError(
                f"the operation {equation.name!r} of layer {str(where) or '?'} has no counterpart in the ONNX export; "
                f"write the layer with others ({', '.join(sorted(self.rules))})"
            )
        return self.rules[equation.name](self, equation)

    def _call(self, equation: Equation, inner: ClosedJaxpr) -> list[Operand]:
        if (single := self._single(equation, inner)) is not None:
            return [single]
        if self._half_in is None or equation.params.get("name") != self._half_in:
            return self.run(inner.jaxpr, inner.consts, equation.inputs)
        given = [self._cast(operand, np.float16) for operand in equation.inputs]
        self.half = True
        found = self.run(inner.jaxpr, inner.consts, given)
        self.half = False
        return [self._cast(operand, np.float32) for operand in found]

    def _single(self, equation: Equation, inner: ClosedJaxpr) -> Value | None:
        """The one operator that a function of JAX is, if it is one."""
        op, function = _SINGLE.get(equation.params.get("name", ""), ("", None))
        if function is None or not _is(inner, function, equation):
            return None
        x, *slope = equation.inputs
        if not isinstance(x, Value) or any(isinstance(part, Value) for part in slope):
            return None
        alpha = {"alpha": float(np.asarray(slope[0]))} if slope else {}
        return Value(self.steps.op(op, x.name, **alpha), x.nchw)

    def _cast(self, operand: Operand, dtype: Any) -> Operand:
        if isinstance(operand, np.ndarray):
            return operand
        return operand._replace(name=self.steps.op("Cast", operand.name, to=np.dtype(dtype).name), broadcast=None)

    def dtype(self, dtype: Any) -> str:
        """What a dtype of the trace is in ONNX."""
        return "float16" if self.half and dtype == np.float32 else np.dtype(dtype).name

    def name(self, operand: Operand, *, nchw: bool = False) -> str:
        """The name of an operand that lies as asked; of constants those of four axes alone are turned."""
        if isinstance(operand, np.ndarray):
            array = operand.transpose(TO_NCHW) if nchw and operand.ndim == 4 else operand
            with np.errstate(over="ignore"):  # in float16; told when all is there
                return self.steps.constant(array.astype(self.dtype(array.dtype)))
        if operand.nchw == nchw:
            return operand.name
        return self.steps.op("Transpose", operand.name, perm=TO_NCHW if nchw else TO_NHWC)

    def whole(self, operand: Operand, shape: tuple[int, ...], *, nchw: bool = False) -> str:
        """As `name`, of the shape that the trace has."""
        if not isinstance(operand, np.ndarray) or operand.shape == shape:
            return self.name(operand, nchw=nchw)
        sizes = [shape[axis] for axis in TO_NCHW] if nchw else list(shape)
        return self.expanded(self.name(operand, nchw=nchw), tuple(sizes), (1,) * len(sizes))

    def input(self, equation: Equation, place: int = 0, *, nchw: bool | None = None) -> tuple[str, bool]:
        """The name of an input of an operation and how it lies: as it is, or as asked."""
        operand = equation.inputs[place]
        lies = (isinstance(operand, Value) and operand.nchw) if nchw is None else nchw
        return self.whole(operand, equation.shapes[place], nchw=lies), lies

    def expanded(self, name: str, shape: tuple[int, ...], own: tuple[int, ...]) -> str:
        """A value of shape `own` broadcast to a shape of as many axes."""
        sizes = [1 if size == before else size for size, before in zip(shape, own, strict=True)]
        if not any(_is_batch(size) for size in sizes):
            return self.steps.op("Expand", name, np.array(sizes, np.int64))
        batch = self.steps.op("Shape", self.images, start=0, end=1)
        parts = [batch if _is_batch(size) else np.array([size], np.int64) for size in sizes]
        named = [part if isinstance(part, str) else self.steps.constant(part) for part in parts]
        return self.steps.op("Expand", name, self.steps.op("Concat", *named, axis=0))


def _aval(atom: Any) -> Any:
    """Shape and dtype of a variable or number of a trace."""
    return atom.aval


def _is_batch(size: int) -> bool:
    return size >= BATCH and size % BATCH == 0


def _of_batch(aval: Any) -> bool:
    return any(map(_is_batch, aval.shape))


def rule(table: dict[str, Rule], *names: str) -> Callable[[Rule], Rule]:
    """Enters a function in a table as the rule of operations."""

    def enter(function: Rule) -> Rule:
        table.update(dict.fromkeys(names, function))
        return function

    return enter


def only(equation: Equation, holds: bool, what: str) -> None:
    """Says what else of an operation there is a rule for.

    Raises:
        InputError: it does not hold.
    """
    if not holds:
        raise InputError(f"the ONNX export knows {equation.name!r} {what} only; write the layer so")


def is_nchw(equation: Equation) -> bool:
    """Whether an input lies as [B, c, H, W]: then all of them are brought to lie so."""
    return any(isinstance(operand, Value) and operand.nchw for operand in equation.inputs)


def axes_of(nchw: bool, axes: Sequence[int]) -> list[int]:
    """Where axes of the trace lie."""
    return [TO_NCHW.index(axis) if nchw else int(axis) for axis in axes]


def integers(*values: int) -> NDArray[np.int64]:
    """A list of numbers, as operators take axes and places."""
    return np.array(values, np.int64)


def sizes(shape: Sequence[int]) -> NDArray[np.int64]:
    """A shape for Reshape: -1 for the axis of the batch."""
    return np.array([-1 if _is_batch(size) else size for size in shape], np.int64)


def traced(function: Callable[..., Any], *arguments: Any) -> ClosedJaxpr:
    """The trace of a function of arrays, or of shapes whose batch is `BATCH`."""
    found: ClosedJaxpr = jax.make_jaxpr(function)(*arguments)
    return found


LAZY = frozenset({"broadcast_in_dim", "reshape", "convert_element_type"})
"""Of constants too these have rules: one broadcasts nothing, the others need no compilation."""

_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}
_CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def _called(equation: Equation) -> ClosedJaxpr | None:
    """The function that an operation calls, if that is all it does."""
    inner = equation.params.get(_CALLS.get(equation.name, ""))
    return ClosedJaxpr(inner, ()) if isinstance(inner, Jaxpr) else inner


def _computed(equation: Equation) -> list[Operand]:
    """What an operation gives for constants."""
    given = [np.broadcast_to(part, shape) for part, shape in zip(equation.inputs, equation.shapes, strict=True)]
    found = equation.raw.primitive.bind(*map(jnp.asarray, given), **equation.params)
    return [np.asarray(part) for part in (found if equation.raw.primitive.multiple_results else [found])]


def _is(inner: ClosedJaxpr, function: Callable[..., Any], equation: Equation) -> bool:
    """Whether a function that was called is one of JAX's: a layer may have its own of that name."""
    avals = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype, weak_type=a.aval.weak_type) for a in equation.raw.invars]
    (expected,) = traced(function, *avals).eqns
    return str(expected.params["jaxpr"]) == str(inner)


_SINGLE: dict[str, tuple[str, Callable[..., Any]]] = {
    "softplus": ("Softplus", jax.nn.softplus),
    "leaky_relu": ("LeakyRelu", jax.nn.leaky_relu),
    "hard_silu": ("HardSwish", jax.nn.hard_silu),
}
"""Jitted functions of JAX that are one operator, by their names in a trace."""

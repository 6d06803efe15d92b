"""The operators of an ONNX graph, collected one after another as plain values; the package `onnx` is not needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

OPSET = 17
Constant: TypeAlias = "NDArray[Any] | np.generic"
_SHARED_BYTES = 1024
"""Constants of up to this size stand once, however often they are used."""


class Step(NamedTuple):
    """One operator: names of what goes in and comes out, and its attributes by name."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclass
class Steps:
    """Operators in an order in which they can run, and the constants among their inputs by name."""

    steps: list[Step] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict)
    _names: int = 0

    def constant(self, value: Constant) -> str:
        """The name of a constant."""
        value = np.asarray(value, order="C")
        key = (value.dtype, value.shape, value.tobytes()) if value.nbytes <= _SHARED_BYTES else self._names
        if key not in self._known:
            self._known[key] = self._name("constant")
            self.constants[self._known[key]] = value
        name: str = self._known[key]
        return name

    def op(self, op: str, *inputs: str | Constant, **attributes: Any) -> str:
        """Adds an operator of one output, whose name is given back. An equal one that is there already serves again."""
        return self.ops(1, op, *inputs, **attributes)[0]

    def ops(self, outputs: int, op: str, *inputs: str | Constant, **attributes: Any) -> tuple[str, ...]:
        """As `op`, of an operator of several outputs."""
        names = tuple(name if isinstance(name, str) else self.constant(name) for name in inputs)
        key = (op, names, tuple(sorted(attributes.items())))
        if key not in self._known:
            self._known[key] = tuple(self._name(op) for _ in range(outputs))
            self.steps.append(Step(op, names, self._known[key], key[2]))
        found: tuple[str, ...] = self._known[key]
        return found

    def finish(self, outputs: Iterable[str]) -> None:
        """Takes additions of a bias into their convolutions, and leaves out what no output needs."""
        self._take_in_bias()
        needed = set(outputs)
        for step in reversed(self.steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
        self.steps = [step for step in self.steps if needed.intersection(step.outputs)]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}

    def _take_in_bias(self) -> None:
        makers = {step.outputs[0]: place for place, step in enumerate(self.steps)}
        uses = Counter(name for step in self.steps for name in step.inputs)
        for place, step in enumerate(self.steps):
            if step.op != "Add":
                continue
            maps, shift = sorted(step.inputs, key=lambda name: name in self.constants)
            conv = self.steps[makers[maps]] if maps in makers and shift in self.constants else step
            if conv.op == "Conv" and len(conv.inputs) == 2 and uses[maps] == 1:
                channels = self.constants[conv.inputs[1]].shape[0] if conv.inputs[1] in self.constants else 0
                if self.constants[shift].shape == (1, channels, 1, 1):
                    bias = self.constant(self.constants[shift].reshape(-1))
                    self.steps[place] = conv._replace(inputs=(*conv.inputs, bias), outputs=step.outputs)

    def _name(self, stem: str) -> str:
        self._names += 1
        return f"{stem.lower()}_{self._names}"

"""What a PyTorch file is read into: inert values, refusals, and bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Refused(Exception):  # noqa: N818 - never leaves the reader, which makes it a WeightsError
    """Why a file is not read, in words that follow the file's name."""


def damaged(what: str) -> Refused:
    """The refusal of a file that no program would write like this."""
    return Refused(f"is damaged ({what}); download it or copy it again")


def shown(value: object) -> str:
    """Text from a file made fit for a message: one line, short, ASCII."""
    return str(value)[:80].encode("unicode_escape").decode("ascii")


class Budget:
    """How much a file may ask for: what would go beyond is refused before it is made."""

    def __init__(self, limit: int, refusal: str) -> None:
        self.left = limit
        self.refusal = refusal

    def spend(self, amount: int) -> None:
        """Takes an amount away.

        Raises:
            Refused: there is not so much left.
        """
        self.left -= amount
        if self.left < 0:
            raise Refused(self.refusal)


@dataclass(frozen=True, slots=True)
class Name:
    """A function or a class that the file names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Instance:
    """An object of any class: the attributes that the file gives it; items if it is a dict, elements if a list."""

    kind: Name
    attributes: dict[str, Any] = field(default_factory=dict)
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """The memory of tensors: the member `data/<key>` of the archive, which holds at least `count` numbers."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A view that lies inside its storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False, slots=True)
class NumpyDtype:
    """The type of a numpy array; its byte order comes after it is made."""

    dtype: np.dtype[Any]


@dataclass(eq=False, slots=True)
class NumpyArray:
    """An array of numpy; its content comes after it is made."""

    value: np.ndarray | None = None

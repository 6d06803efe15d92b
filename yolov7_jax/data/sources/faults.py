"""What to do about an entry that is wrong: stop at it, or go on without it and keep the sentence that names it."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, NamedTuple

from yolov7_jax.errors import DataError

OnFault = Literal["stop", "skip", "note"]
"""Stop at it, leave it out and name it, or besides name what is odd and may be meant: see `oddities`."""


class Fault(NamedTuple):
    """What is wrong with an entry: a few words to count such faults by, and a sentence that names file and line."""

    kind: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Faults:
    """`with faults: ...` around the reading of one entry: what is wrong with it is raised, or kept and passed over.

    found: what was passed over, in order.
    """

    def __init__(self, on_fault: OnFault) -> None:
        self.on_fault = on_fault
        self.found: list[Fault] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self.on_fault == "stop" or not isinstance(error, DataError):
            return False
        self.found.append(Fault(error.kind, str(error)))
        return True

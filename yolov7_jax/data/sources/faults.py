"""What to do about an entry that is wrong: stop at it, or go on without it and keep the sentence that names it."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from yolov7_jax.errors import DataError

OnFault = Literal["stop", "skip"]


class Faults:
    """`with faults: ...` around the reading of one entry: what is wrong with it is raised, or kept and passed over.

    sentences: what was passed over, in order.
    """

    def __init__(self, on_fault: OnFault) -> None:
        self.on_fault = on_fault
        self.sentences: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self.on_fault == "stop" or not isinstance(error, DataError):
            return False
        self.sentences.append(str(error))
        return True

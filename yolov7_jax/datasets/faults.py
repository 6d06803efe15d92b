"""What to do about an entry that is wrong: stop at it, or go on without it and keep the sentence that names it."""

from __future__ import annotations

from types import TracebackType

from yolov7_jax.errors import DataError
from yolov7_jax.types import Fault, OnError


class Faults:
    """`with faults: ...` around the reading of one entry: what is wrong with it is raised, or kept and passed over.

    found: what was passed over, in order.
    """

    def __init__(self, on_error: OnError) -> None:
        self.on_error = on_error
        self.found: list[Fault] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if self.on_error == "stop" or not isinstance(error, DataError):
            return False
        self.found.append(Fault(error.kind, str(error)))
        return True

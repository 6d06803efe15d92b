"""The latest results of a slow function, made once however many threads ask."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memo(Generic[Key, Value]):
    """A function that keeps the results of the keys it was asked for last, as many as weigh `capacity` at most.

    Without `weigh`, a function too, each result weighs 1. Threads that ask for a key whose result is in the making wait
    for it. What the function raises is raised to all who wait, and not kept. A pickled copy begins empty.
    """

    def __init__(
        self, function: Callable[[Key], Value], capacity: int, weigh: Callable[[Value], int] | None = None
    ) -> None:
        self._function = function
        self._capacity = capacity
        self._weigh = weigh
        self._weights: dict[Key, int] = {}  # of results, not of those in the making
        self._load = 0  # the sum of the weights
        self._lock = Lock()
        self._kept: OrderedDict[Key, Future[Value]] = OrderedDict()

    def __call__(self, key: Key) -> Value:
        """The function's result."""
        with self._lock:
            future = self._kept.get(key)
            is_new = future is None
            if future is None:
                future = self._kept[key] = Future()
            else:
                self._kept.move_to_end(key)
        if is_new:
            self._fill(key, future)
        return future.result()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._function, self._capacity, self._weigh)

    def _fill(self, key: Key, future: Future[Value]) -> None:
        try:
            result = self._function(key)
        except BaseException as error:
            with self._lock:
                del self._kept[key]
            future.set_exception(error)
            return
        future.set_result(result)
        with self._lock:
            self._weights[key] = 1 if self._weigh is None else self._weigh(result)
            self._load += self._weights[key]
            self._kept.move_to_end(key)
            self._forget()

    def _forget(self) -> None:
        """Lets go of results, those asked for longest ago first, until the others weigh no more than they may."""
        for key in list(self._kept):
            if self._load <= self._capacity:
                return
            if key in self._weights:
                self._load -= self._weights.pop(key)
                del self._kept[key]

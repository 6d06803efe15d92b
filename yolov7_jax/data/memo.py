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
    """A function that keeps the results of the keys it was asked for last, `capacity` of them.

    Threads that ask for a key whose result is in the making wait for it. What the function raises is raised to all who
    wait, and not kept. A pickled copy begins empty.
    """

    def __init__(self, function: Callable[[Key], Value], capacity: int) -> None:
        self._function = function
        self._capacity = capacity
        self._lock = Lock()
        self._kept: OrderedDict[Key, Future[Value]] = OrderedDict()

    def __call__(self, key: Key) -> Value:
        """The function's result."""
        with self._lock:
            future = self._kept.get(key)
            is_new = future is None
            if future is None:
                future = self._kept[key] = Future()
                if len(self._kept) > self._capacity:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        if is_new:
            self._fill(key, future)
        return future.result()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._function, self._capacity)

    def _fill(self, key: Key, future: Future[Value]) -> None:
        try:
            future.set_result(self._function(key))
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is future:
                    del self._kept[key]
            future.set_exception(error)

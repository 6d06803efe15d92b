import itertools
import os
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.prefetch import prefetch


@given(st.lists(st.integers()), st.integers(1, 4), st.integers(1, 9))
def test_equals_map(items, workers, ahead):
    assert list(prefetch(str, iter(items), workers=workers, ahead=ahead)) == [str(item) for item in items]


def test_order_is_kept_when_later_items_are_done_first():
    third_is_done = threading.Event()

    def work(item):
        if item == 0:
            assert third_is_done.wait(10)
        if item == 2:
            third_is_done.set()
        return item

    assert list(prefetch(work, range(5), workers=2, ahead=3)) == [0, 1, 2, 3, 4]


def test_work_is_done_by_as_many_threads_as_asked_for():
    together = threading.Barrier(3)

    def work(_):
        together.wait(10)  # breaks, and raises, unless three threads come here at once
        return threading.current_thread()

    threads = list(prefetch(work, range(9), workers=3, ahead=3))
    assert len(set(threads)) == 3
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 3), (4, 2)])
def test_never_more_than_ahead_of_an_endless_source(workers, ahead):
    drawn = []

    def items():
        for item in itertools.count():
            drawn.append(item)
            yield item

    results = prefetch(lambda item: item, items(), workers=workers, ahead=ahead)
    assert drawn == []
    for received in range(20):
        assert next(results) == received
        assert len(drawn) == received + ahead
    results.close()
    assert len(drawn) == 19 + ahead


def test_an_error_of_the_function_comes_at_its_item():
    def work(item):
        if item == 3:
            raise ValueError("three")
        return item

    results = prefetch(work, range(9), workers=2, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_an_error_of_the_source_comes_at_its_item():
    def items():
        yield from range(3)
        raise KeyError("source")

    results = prefetch(lambda item: item, items(), workers=2, ahead=8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="source"):
        next(results)


def test_stopping_early_drops_what_has_not_begun_and_ends_the_threads():
    begun, first_is_out = [], threading.Event()

    def work(item):
        begun.append((item, threading.current_thread()))
        if item:
            assert first_is_out.wait(10)
            time.sleep(0.05)  # let `close` cancel the rest meanwhile
        return item

    results = prefetch(work, range(50), workers=1, ahead=50)
    assert next(results) == 0
    first_is_out.set()
    results.close()
    assert len(begun) < 5
    assert not any(thread.is_alive() for _, thread in begun)


def test_options_out_of_range():
    with pytest.raises(ValueError, match="ahead must be at least 1"):
        prefetch(str, [1], workers=1, ahead=0)
    with pytest.raises(ValueError, match="max_workers"):
        next(prefetch(str, [1], workers=0, ahead=1))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own here")
def test_threads_beside_a_network_give_way_and_no_others_do():
    def niceness(_item=None):
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = niceness()
    assert list(prefetch(niceness, range(3), workers=2, ahead=3)) == [own] * 3
    assert list(prefetch(niceness, range(3), workers=2, ahead=3, beside=True)) == [max(own, 10)] * 3
    assert niceness() == own


def test_where_priorities_are_not_to_be_had_work_goes_on(monkeypatch):
    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr(os, "setpriority", refuse, raising=False)
    assert list(prefetch(str, range(3), workers=2, ahead=3, beside=True)) == ["0", "1", "2"]

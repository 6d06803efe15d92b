import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.memo import Memo


@given(st.lists(st.integers(0, 6)), st.integers(1, 5))
def test_it_is_the_function_and_forgets_what_was_not_asked_for_longest(keys, capacity):
    made = []

    def function(key):
        made.append(key)
        return str(key)

    memo = Memo(function, capacity)
    expected, kept = [], []  # kept: by hand, the latest last
    for key in keys:
        if key in kept:
            kept.remove(key)
        else:
            expected.append(key)
        kept = [*kept, key][-capacity:]
        assert memo(key) == str(key)
    assert made == expected


def test_results_weigh_what_they_are_said_to():
    made = []

    def function(key):
        made.append(key)
        return "x" * key

    memo = Memo(function, 10, len)
    for key in (3, 4, 3, 5, 4, 3, 11, 3):  # 5 pushes out 4; 4 pushes out 3; 11 is too heavy, and all go with it
        assert memo(key) == "x" * key
    assert made == [3, 4, 5, 4, 3, 11, 3]


def test_threads_that_ask_for_the_same_wait_for_one():
    made, began, go_on = [], threading.Event(), threading.Event()

    def function(key):
        made.append(key)
        began.set()
        assert go_on.wait(10)
        return object()

    memo = Memo(function, 2)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(memo, 1)
        assert began.wait(10)
        others = [pool.submit(memo, 1) for _ in range(3)]
        go_on.set()
        assert len({id(future.result(10)) for future in [first, *others]}) == 1
    assert made == [1]


def test_a_result_in_the_making_outlives_its_place():
    began, go_on = threading.Event(), threading.Event()

    def function(key):
        if key == 0:
            began.set()
            assert go_on.wait(10)
        return key

    memo = Memo(function, 1)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(memo, 0)
        assert began.wait(10)
        assert [memo(1), memo(2)] == [1, 2]
        go_on.set()
        assert slow.result(10) == 0


def test_errors_are_raised_and_not_kept():
    calls = []

    def function(key):
        calls.append(key)
        if len(calls) == 1:
            raise ValueError("first")
        return key

    memo = Memo(function, 3)
    with pytest.raises(ValueError, match="first"):
        memo(7)
    assert memo(7) == 7
    assert memo(7) == 7
    assert calls == [7, 7]


def test_a_copy_begins_empty():
    memo = Memo(abs, 3)
    assert memo(-2) == 2
    copy = pickle.loads(pickle.dumps(memo))
    assert copy(-2) == 2
    assert pickle.dumps(memo) == pickle.dumps(copy) == pickle.dumps(Memo(abs, 3))

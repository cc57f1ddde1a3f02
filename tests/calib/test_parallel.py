"""Many items on all cores, in order."""

import threading

import pytest

from finedge.calib.parallel import in_order


def test_the_results_keep_the_order_of_the_items():
    first_may_end = threading.Event()

    def double(number: int) -> int:
        if number == 0:
            first_may_end.wait(0.05)  # the second ends before it
        return 2 * number

    assert list(in_order(double, range(9))) == [2 * n for n in range(9)]


def test_few_items_are_in_memory_at_once():
    taken = []
    results = in_order(lambda n: n, (taken.append(n) or n for n in range(1000)))
    assert next(results) == 0
    assert len(taken) < 100
    results.close()


def test_an_error_is_raised_in_the_place_of_its_result():
    results = in_order(lambda n: 1 / n, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        list(results)

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.dataset.bounded import mapped


@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 4))
def test_results_come_in_order_and_items_are_drawn_as_needed(count, ahead, threads):
    drawn, taken = [], []

    def items():
        for number in range(count):
            assert number - len(taken) < ahead
            drawn.append(number)
            yield number

    with ThreadPoolExecutor(threads) as pool:
        for result in mapped(pool, lambda number: number * 2, items(), ahead):
            assert result == len(taken) * 2
            taken.append(result)
    assert len(taken) == len(drawn) == count


def test_after_a_failure_the_rest_is_not_begun():
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise ValueError("three")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="three"):
        list(mapped(pool, work, range(1000), 4))
    assert len(begun) <= 8

import math

import pytest

from tinkex_proxy.core.moments import Moments


def test_without_values_there_is_nothing_to_tell() -> None:
    empty = Moments(3)
    assert (empty.count, empty.last, empty.mean, empty.stddev) == (0, None, None, None)


def test_one_value_has_no_spread() -> None:
    one = Moments(3)
    one.add(-2.0)
    assert (one.count, one.last, one.mean, one.stddev) == (1, -2.0, -2.0, None)


def test_only_the_last_values_count() -> None:
    moments = Moments(3)
    for value in (1000.0, 1.0, 2.0, 6.0):
        moments.add(value)
    assert (moments.count, moments.last, moments.mean) == (4, 6.0, 3.0)
    assert moments.stddev == pytest.approx(7**0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_what_is_no_number_shows_and_breaks_nothing(value: float) -> None:
    moments = Moments(2)
    for taken in (-1e308, value):
        moments.add(taken)
    assert moments.last is value
    assert not math.isfinite(moments.stddev)
    moments.add(1.0)
    moments.add(2.0)
    assert moments.mean == 1.5

"""Within 1 % of the true quantile of any distribution, in less than 10 kB; exact while few."""

import math
import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinkex_proxy.core.quantiles import ACCURACY, EXACT, MINUTE_S, Histogram, Quantiles, Sketch

MAX_BINS = 1000


def lognormal(draws: random.Random, median: float, spread: float) -> float:
    return median * math.exp(spread * draws.gauss(0, 1))


def mixed(draws: random.Random) -> float:
    return lognormal(draws, *((0.015, 0.3) if draws.random() < 0.9 else (30, 0.2)))


# Seconds of: a hop through a proxy, a sample, a forward_backward, and two kinds of calls in one.
DISTRIBUTIONS: dict[str, Callable[[random.Random], float]] = {
    "hop": lambda draws: lognormal(draws, 0.002, 0.6),
    "sample": lambda draws: lognormal(draws, 1.2, 0.8),
    "forward_backward": lambda draws: lognormal(draws, 18, 0.7),
    "mixed": mixed,
}


def true(values: list[float]) -> tuple[float, float, float]:
    """P50, the mean of the two in the middle; P95 and P99 by nearest rank."""
    ordered, n = sorted(values), len(values)
    p50 = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return p50, ordered[math.ceil(n * 0.95 - 1e-9) - 1], ordered[math.ceil(n * 0.99 - 1e-9) - 1]


def told(quantiles: Quantiles) -> tuple[float | None, float | None, float | None]:
    return quantiles.p50, quantiles.p95, quantiles.p99


def of(values: list[float], max_bins: int = MAX_BINS) -> Sketch:
    sketch = Sketch(max_bins)
    for value in values:
        sketch.add(value)
    return sketch


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_within_one_percent(name: str) -> None:
    """Of 50,000 values over two minutes, merged from three sketches; count and ends are exact."""
    draws = random.Random(1)  # noqa: S311 - the same every time
    values = [DISTRIBUTIONS[name](draws) for _ in range(50_000)]
    histogram = Histogram(MAX_BINS)
    for number, value in enumerate(values):
        histogram.add(value, now=number / 400)
    total = histogram.total()
    assert told(total) == pytest.approx(true(values), rel=ACCURACY)
    assert (total.count, total.min, total.max) == (50_000, min(values), max(values))
    assert total.mean == pytest.approx(sum(values) / 50_000)


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, "eight decades"])
def test_a_histogram_takes_less_than_ten_kilobytes(name: str) -> None:
    kinds = {**DISTRIBUTIONS, "eight decades": lambda draws: 10 ** draws.uniform(-4.5, 3.5)}
    draws = random.Random(2)  # noqa: S311
    values = [kinds[name](draws) for _ in range(20_000)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        histogram = Histogram(MAX_BINS)
        for number, value in enumerate(values):
            histogram.add(value, now=number / 150)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before <= 10_000


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=EXACT))
def test_few_values_are_exact(values: list[float]) -> None:
    sketch = of(values)
    assert told(sketch.quantiles()) == true(values)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e5)), min_size=EXACT + 1, max_size=300))
def test_many_values_are_within_one_percent(values: list[float]) -> None:
    sketch = of(values).quantiles()
    assert told(sketch) == pytest.approx(true(values), rel=ACCURACY + 1e-9)


@given(st.lists(st.lists(st.floats(1e-3, 1e5), max_size=150), max_size=4))
@example([[1.0] * 40, [2.0] * 40, [3.0] * 40])
@example([[1.0] * 90, [2.0] * 40])
@example([[1.0] * 40, [2.0] * 90])
def test_merged_is_as_if_counted_in_one(parts: list[list[float]]) -> None:
    merged = Sketch(MAX_BINS)
    for part in parts:
        merged.merge(of(part))
    one, values = of([v for part in parts for v in part]).quantiles(), merged.quantiles()
    assert values.count == one.count
    assert told(values) == told(one)


@given(st.lists(st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e6)), max_size=80), max_size=6))
@example([[5.0] * 80, [5.0] * 70_000, [1e-3], [1e6, 0.0]])
@example([[1.0] * 80, [2.0]])
def test_all_at_once_are_as_one_by_one(parts: list[list[float]]) -> None:
    """Few or in bins, below and above those that there are, and beyond what a bin counts to."""
    one, some = of([value for part in parts for value in part], 300), Sketch(300)
    for part in parts:
        some.add_all(part)
    assert (some.count, some.min, some.max) == (one.count, one.min, one.max)
    assert (some.few, some.zeros, list(some.bins())) == (one.few, one.zeros, list(one.bins()))
    assert some.sum == pytest.approx(one.sum)


def test_an_empty_one_has_a_count_and_nothing_else() -> None:
    assert Histogram(MAX_BINS).total() == Quantiles(0)


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_what_has_no_place_is_refused_and_not_counted(value: float) -> None:
    sketch = of([1.0])
    with pytest.raises(ValueError, match="finite and not negative"):
        sketch.add(value)
    for values in ([2.0, value], [value, 2.0]):
        with pytest.raises(ValueError, match="finite and not negative"):
            sketch.add_all(values)
    assert sketch.quantiles().count == 1


def test_values_that_are_next_to_nothing_count_as_nothing() -> None:
    sketch = of([0.0] * 60 + [1e-12] * 20 + [5.0] * 20)
    assert sketch.quantiles().p50 == 0
    assert sketch.quantiles().p99 == pytest.approx(5, rel=ACCURACY)


@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
def test_beyond_its_bins_the_low_values_share_one_and_the_high_stay_right(order: str) -> None:
    """200 bins reach over a factor of 55; of these values the top tenth lies within that."""
    values = [10 ** (6 * n / 5000) for n in range(5000)]
    if order == "falling":
        values.reverse()
    elif order == "shuffled":
        random.Random(3).shuffle(values)  # noqa: S311
    quantiles = of(values, max_bins=200).quantiles()
    assert (quantiles.count, quantiles.max) == (5000, max(values))
    assert told(quantiles)[1:] == pytest.approx(true(values)[1:], rel=ACCURACY)


@pytest.mark.parametrize("most", [2**16, 2**32])
def test_a_bin_overflows_into_wider_ones(most: int) -> None:
    """Doubled again and again, which is what merging a sketch with its copy does."""
    sketch = of([3.0] * 100 + [7.0] * 28)
    while sketch.quantiles().count <= most:
        copy = Sketch(MAX_BINS)
        copy.merge(sketch)
        sketch.merge(copy)
    quantiles = sketch.quantiles()
    assert quantiles.p50 == pytest.approx(3, rel=ACCURACY)
    assert quantiles.p95 == pytest.approx(7, rel=ACCURACY)


def test_recent_is_this_minute_and_the_last() -> None:
    histogram = Histogram(MAX_BINS)
    histogram.add(1.0, now=0)
    histogram.add(2.0, now=MINUTE_S)
    assert histogram.recent(MINUTE_S + 1) == Quantiles(2, 1.5, 1.0, 2.0, 1.5, 2.0, 2.0)
    histogram.add(3.0, now=2 * MINUTE_S)
    assert histogram.recent(2 * MINUTE_S).min == 2.0
    assert histogram.recent(3 * MINUTE_S).min == 3.0
    assert histogram.recent(4 * MINUTE_S) == Quantiles(0)
    assert (histogram.total().count, histogram.total().mean) == (3, 2.0)


def test_after_a_long_silence_nothing_old_is_recent() -> None:
    histogram = Histogram(MAX_BINS)
    histogram.add(1.0, now=0)
    histogram.add(2.0, now=500)
    assert histogram.recent(500).count == 1
    assert histogram.total().count == 2

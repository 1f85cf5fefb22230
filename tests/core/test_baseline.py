"""The adaptive threshold by its rule, and in simulations beside the fixed one.

A simulation makes ten calls a second against an upstream that is told when to fail; both breakers
have the same rates, times and threshold of 5, and see the same upstream. A trip is false when the
upstream is back before the breaker lets anybody ask.
"""

import random
from collections.abc import Callable

import pytest

from tests.core.test_breaker import Counter
from tinkex_proxy.core.baseline import CALM_CALLS, Baseline
from tinkex_proxy.core.breaker import Gate, GateSettings, Permit
from tinkex_proxy.core.circuit import State
from tinkex_proxy.core.trip import TripSettings


def learned(rate: float, threshold: int = 5, calls: int = 20_000) -> Baseline:
    """After a steady rate: failures come one at a time, evenly."""
    baseline, every = Baseline(threshold), round(1 / rate) if rate else calls + 1
    for number in range(1, calls + 1):
        baseline.count(failed=number % every == 0)
    return baseline


@pytest.mark.parametrize(
    ("rate", "threshold"), [(0, 4), (0.001, 4), (0.01, 5), (0.1, 10), (0.2, 15), (0.5, 15)]
)
def test_the_threshold_is_what_the_rule_says(rate: float, threshold: int) -> None:
    assert abs(learned(rate).threshold - threshold) <= (0 if rate in {0, 0.5} else 1)


def test_a_new_one_is_as_the_fixed_one_and_one_is_never_none() -> None:
    assert Baseline(5).threshold == 5
    assert learned(0, threshold=1).threshold == 1


def test_a_run_does_not_raise_the_threshold_that_it_has_to_reach() -> None:
    baseline = learned(0.01)
    before = baseline.threshold
    for _ in range(1000):
        baseline.count(failed=True)
    assert baseline.threshold == before
    baseline.count(failed=False)
    assert baseline.threshold == 15


def test_what_tripped_it_is_part_of_what_is_usual() -> None:
    """Also where no success came between: it is closed by probes, which are not counted here."""
    one, other = Baseline(5), Baseline(5)
    for baseline in (one, other):
        for _ in range(20):
            baseline.count(failed=True)
    one.closed(at_once=False)
    other.count(failed=False)
    assert one.threshold == other.threshold == 11


def test_a_trip_that_its_first_probe_ended_raises_it_and_calm_lowers_it_again() -> None:
    baseline = learned(0)
    assert baseline.threshold == 4
    for threshold in (6, 8, 10, 12, 14, 15, 15):
        baseline.closed(at_once=True)
        assert baseline.threshold == threshold
    for _ in range(13 * CALM_CALLS):
        baseline.count(failed=False)
    assert baseline.threshold == 4 + 14 - 13
    for _ in range(5 * CALM_CALLS):
        baseline.count(failed=False)
    assert baseline.threshold == 4


def test_a_new_one_has_no_run_behind_it() -> None:
    baseline = Baseline(5)
    baseline.count(failed=False)
    assert baseline.threshold == 5


def test_at_the_reference_rate_it_is_the_fixed_one_and_no_rounding_adds_to_it() -> None:
    for threshold in range(1, 50):
        baseline = Baseline(threshold)
        baseline.closed(at_once=False)
        assert baseline.threshold == threshold


def test_a_stumble_adds_at_least_one() -> None:
    baseline = Baseline(1)
    baseline.closed(at_once=True)
    assert baseline.threshold == 2


def calm(baseline: Baseline, calls: int) -> int:
    for _ in range(calls):
        baseline.count(failed=False)
    return baseline.threshold


def test_a_stumble_is_worn_off_by_just_so_many_calm_calls() -> None:
    """Counted from the first call, from the last one that wore off, and from the end of a run."""
    baseline = Baseline(5)
    baseline.closed(at_once=True)
    baseline.closed(at_once=True)
    assert calm(baseline, CALM_CALLS - 1) == 8
    assert calm(baseline, 1) == 7
    assert calm(baseline, CALM_CALLS - 1) == 7
    assert calm(baseline, 1) == 6
    for _ in range(5):
        baseline.count(failed=True)
    assert calm(baseline, 1) > 6
    assert calm(baseline, CALM_CALLS - 2) == 6
    assert calm(baseline, 1) == 5


def test_stumbles_that_go_on_are_not_forgotten() -> None:
    """They no longer trip it; were that calm, it would soon trip on them again."""
    baseline = learned(0)
    baseline.closed(at_once=True)
    for number in range(20 * CALM_CALLS):
        baseline.count(failed=number % 1000 < 5)
    assert baseline.threshold >= 6


def simulated(fails: Callable[[int], bool], *, adaptive: bool, calls: int) -> list[int]:
    """The numbers of the calls after which the breaker tripped."""
    trip = TripSettings(failure_rate=0.5, adaptive=adaptive)
    gate, trips = Gate(Counter(), GateSettings(trip=trip)), []
    for number in range(calls):
        now = number / 10
        leave = gate.acquire(now)
        if isinstance(leave, Permit):
            gate.settle(leave, ok=not fails(number), now=now)
        trips += [number for move in gate.moves if move.after is State.OPEN]
        gate.moves.clear()
    return trips


def both(fails: Callable[[int], bool], calls: int) -> tuple[list[int], list[int]]:
    fixed = simulated(fails, adaptive=False, calls=calls)
    return fixed, simulated(fails, adaptive=True, calls=calls)


def noise(rate: float, calls: int, seed: int = 1) -> list[bool]:
    draws = random.Random(seed)  # noqa: S311 - the same upstream every time
    return [draws.random() < rate for _ in range(calls)]


def test_ten_percent_noise_trips_the_fixed_one_and_not_the_adaptive_one() -> None:
    """100,000 calls: five failures in a row happen by chance, ten do not."""
    failing = noise(0.1, 100_000)
    fixed, adaptive = both(failing.__getitem__, len(failing))
    assert len(fixed) >= 1
    assert len(adaptive) < len(fixed)
    assert adaptive == []


@pytest.mark.parametrize("stumble", [5, 6, 8])
def test_an_upstream_that_stumbles_trips_the_adaptive_one_a_few_times(stumble: int) -> None:
    """Every minute it fails for less than a second; each trip refuses 30 s of good calls."""
    fixed, adaptive = both(lambda number: number % 600 >= 600 - stumble, 60_000)
    assert len(fixed) >= 90
    assert len(adaptive) <= len(fixed) // 2


@pytest.mark.parametrize("healthy", [0, 100, 10_000])
def test_a_hard_outage_is_seen_no_later(healthy: int) -> None:
    """From the first call on, soon after, or after a long quiet time: then one call sooner."""
    fixed, adaptive = both(lambda number: number >= healthy, healthy + 100)
    assert fixed[0] == healthy + 4
    assert adaptive[0] <= fixed[0]
    if healthy == 10_000:
        assert adaptive[0] == healthy + 3


def test_an_outage_amid_noise_is_seen_within_a_second_more() -> None:
    """The price: where one call in ten fails anyway, ten failures in a row are needed, not five."""
    failing = noise(0.1, 5_000) + [True] * 100
    fixed, adaptive = both(failing.__getitem__, len(failing))
    assert fixed[-1] <= 5_000 + 4
    assert adaptive[0] - 5_000 <= 14

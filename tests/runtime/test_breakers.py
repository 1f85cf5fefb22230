import pytest

from tinkex_proxy.core.breaker import GateSettings
from tinkex_proxy.core.circuit import Force
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.errors import CircuitOpen
from tinkex_proxy.runtime.breakers import KEPT_MOVES, KEPT_OUTCOMES, Breaker, BreakerSettings
from tinkex_proxy.runtime.events import BreakerDropped, Transition


@pytest.fixture
def breaker(bench):
    trip = TripSettings(failure_threshold=3)
    return make(bench, GateSettings(trip=trip, open_for_s=30, max_probes=1, probe_lease_s=100))


def make(bench, gate: GateSettings, *, enabled: bool = True, draw: float = 0.0) -> Breaker:
    return Breaker(
        "up-1",
        BreakerSettings(enabled=enabled, gate=gate),
        clock=bench.clock,
        hub=bench.hub,
        wall_clock=lambda: 1700000000.0,
        draw=lambda: draw,
    )


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "answered 503")


def test_trips_at_the_threshold_and_refuses_with_a_time(breaker, bench) -> None:
    fail(breaker, 2)
    breaker.check()
    fail(breaker)
    bench.clock.advance(12)
    with pytest.raises(CircuitOpen, match="answered 503") as caught:
        breaker.acquire()
    assert caught.value.retry_after_s == 18
    with pytest.raises(CircuitOpen):
        breaker.check()


def test_snapshot_is_true_without_traffic(breaker, bench) -> None:
    fail(breaker, 3)
    shown = breaker.snapshot("http://up", "k")
    assert (shown["state"], shown["retry_after_s"], shown["opened_at"]) == (
        "open",
        30.0,
        1700000000.0,
    )
    bench.clock.advance(30)
    shown = breaker.snapshot("http://up", "k")
    assert (shown["state"], shown["retry_after_s"]) == ("half_open", 0.0)


def test_one_probe_decides_and_its_neighbours_are_refused(breaker, bench) -> None:
    """200 callers at once while half-open: one reaches the upstream."""
    fail(breaker, 3)
    bench.clock.advance(30)
    probe = breaker.acquire()
    refused = 0
    for _ in range(199):
        with pytest.raises(CircuitOpen):
            breaker.acquire()
        refused += 1
    assert refused == 199
    assert breaker.snapshot("u", "k")["probes_in_flight"] == 1
    breaker.settle(probe, Outcome.SUCCESS, "")
    assert breaker.snapshot("u", "k")["state"] == "closed"
    moves = [(e.before.value, e.after.value) for e in bench.recorder.events]
    assert all(isinstance(e, Transition) for e in bench.recorder.events)
    assert moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


def test_throttled_and_neutral_outcomes_open_nothing(breaker) -> None:
    for _ in range(20):
        breaker.settle(breaker.acquire(), Outcome.THROTTLED, "429")
        breaker.settle(breaker.acquire(), Outcome.NEUTRAL, "hung up")
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["consecutive_failures"]) == ("closed", 0)
    assert shown["counts"]["throttled"] == shown["counts"]["neutral"] == 20


def test_success_forgives(breaker) -> None:
    fail(breaker, 2)
    breaker.settle(breaker.acquire(), Outcome.SUCCESS, "")
    fail(breaker, 2)
    assert breaker.snapshot("u", "k")["state"] == "closed"


def test_switched_off_it_counts_and_never_refuses(bench) -> None:
    gate = GateSettings(trip=TripSettings(failure_threshold=1))
    breaker = make(bench, gate, enabled=False)
    fail(breaker, 5)
    breaker.check()
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["counts"]["failure"]) == ("disabled", 5)


def test_a_rate_trips_aiobreaker_too_and_the_cause_names_the_last_failure(breaker, bench) -> None:
    trip = TripSettings(failure_threshold=100, failure_rate=0.5, minimum_calls=4)
    breaker = make(bench, GateSettings(trip=trip, open_for_s=30), draw=0.5)
    for _ in range(2):
        breaker.settle(breaker.acquire(), Outcome.SUCCESS, "")
        fail(breaker)
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["retry_after_s"]) == ("open", 30)
    (told,) = bench.recorder.events
    assert told.cause == "2 of 4 calls failed within 60 s (last: answered 503)"
    bench.clock.advance(30)
    fail(breaker)
    assert breaker.snapshot("u", "k")["retry_after_s"] == 63, "twice 30 s, and half the jitter"
    bench.clock.advance(63)
    breaker.settle(breaker.acquire(), Outcome.SUCCESS, "")
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["opened_at"]) == ("closed", None)


def test_time_alone_moves_it_and_is_told_without_traffic(breaker, bench) -> None:
    """A timer is set for it, and called off when somebody moves it before."""
    fail(breaker, 3)
    assert bench.clock.pending == 1
    bench.clock.advance(30)
    assert [event.after.value for event in bench.recorder.events] == ["open", "half_open"]
    fail(breaker)
    breaker.reset()
    assert bench.clock.pending == 0
    breaker.force(Force.DISABLE, 5)
    bench.clock.advance(5)
    assert [event.after.value for event in bench.recorder.events[-2:]] == ["disabled", "closed"]


def test_forced_it_says_so_and_for_how_long(breaker, bench) -> None:
    breaker.force(Force.OPEN, 60)
    bench.clock.advance(20)
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["forced"]) == ("forced_open", {"to": "open", "for_s": 40})
    assert shown["opened_at"] == 1700000000.0
    with pytest.raises(CircuitOpen, match="an operator forced it open") as caught:
        breaker.check()
    assert caught.value.retry_after_s == 40
    breaker.force(Force.OPEN)
    assert breaker.snapshot("u", "k")["forced"] == {"to": "open", "for_s": None}
    breaker.reset()
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["opened_at"]) == ("closed", None)
    assert "forced" not in shown


def test_one_that_has_ended_tells_its_end_and_nothing_after(breaker, bench) -> None:
    """Its key gave way to another: what it would still tell would be about nobody."""
    fail(breaker, 3)
    breaker.close()
    assert bench.clock.pending == 0
    breaker.force(Force.DISABLE)
    assert [type(event) for event in bench.recorder.events] == [Transition, BreakerDropped]


def test_what_it_remembers_is_bounded_and_leaves_plain_successes_out(breaker, bench) -> None:
    fail(breaker)
    for _ in range(1000):
        breaker.settle(breaker.acquire(), Outcome.SUCCESS, "answered 200")
    told = breaker.explain()
    assert [one["detail"] for one in told["recent"]] == ["answered 503"]
    assert told["outcomes"]["counted"] == 1001
    assert told["because"] == "it has never moved"
    for _ in range(100):
        breaker.settle(breaker.acquire(), Outcome.NEUTRAL, "cancelled")
        breaker.force(Force.OPEN)
        breaker.reset()
    told = breaker.explain()
    assert (len(told["recent"]), len(told["moves"])) == (KEPT_OUTCOMES, KEPT_MOVES)
    assert told["outcomes"] == {"counted": 1001, "not_counted": 100, "late": 0, "rejected": 0}


def test_a_probe_that_passes_is_remembered(breaker, bench) -> None:
    fail(breaker, 3)
    bench.clock.advance(30)
    breaker.settle(breaker.acquire(), Outcome.SUCCESS, "answered 200")
    told = breaker.explain()
    assert told["recent"][0] == {
        "ago_s": 0,
        "outcome": "success",
        "detail": "answered 200",
        "counted": True,
        "why_not": None,
    }
    assert told["because"] == "probes that succeeded: 1"


def test_without_a_permit_there_is_nothing_to_report(breaker) -> None:
    breaker.settle(None, Outcome.FAILURE, "answered 503")
    assert breaker.snapshot("u", "k")["counts"]["failure"] == 0


def test_a_caller_may_be_sooner_than_the_timer(breaker, bench) -> None:
    fail(breaker, 3)
    bench.clock._now += 31
    breaker.settle(breaker.acquire(), Outcome.SUCCESS, "")
    bench.clock.advance(100)
    moves = [event.after.value for event in bench.recorder.events]
    assert moves == ["open", "half_open", "closed"]


def test_held_closed_a_success_still_forgives(breaker, bench) -> None:
    """aiobreaker does not trip behind the gate: what it counts is there when the hold ends."""
    breaker.force(Force.CLOSE, 5)
    fail(breaker, 10)
    assert breaker.snapshot("u", "k")["consecutive_failures"] == 10
    breaker.settle(breaker.acquire(), Outcome.SUCCESS, "")
    assert breaker.snapshot("u", "k")["consecutive_failures"] == 0
    bench.clock.advance(5)
    fail(breaker, 2)
    assert breaker.snapshot("u", "k")["state"] == "closed"


def test_other_settings_are_taken_and_what_they_move_is_told(breaker, bench) -> None:
    fail(breaker, 3)
    gate = GateSettings(trip=TripSettings(failure_threshold=1))
    breaker.reconfigure(BreakerSettings(enabled=False, gate=gate))
    assert breaker.snapshot("u", "k")["state"] == "disabled"
    moved = [event.cause for event in bench.recorder.events if isinstance(event, Transition)]
    assert moved[-1] == "the configuration disabled it"
    breaker.reconfigure(BreakerSettings(gate=gate))
    fail(breaker)
    assert breaker.snapshot("u", "k")["state"] == "open"

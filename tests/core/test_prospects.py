from tests.core.test_breaker import Counter, permit
from tinkex_proxy.core.breaker import Gate, GateSettings
from tinkex_proxy.core.circuit import Force, State
from tinkex_proxy.core.prospects import prospects
from tinkex_proxy.core.trip import TripSettings

RATES = TripSettings(failure_threshold=3, failure_rate=0.5, slow_s=2, slow_rate=0.8)


def told(gate: Gate, now: float) -> list[tuple[str, State]]:
    return [tuple(one) for one in prospects(gate, now)]


def failed(gate: Gate, times: int, now: float = 0) -> None:
    for _ in range(times):
        gate.settle(permit(gate, now), ok=False, now=now)


def test_closed_it_names_every_rule_and_how_far_it_is_from_each() -> None:
    gate = Gate(Counter(), GateSettings(trip=RATES))
    gate.settle(permit(gate, 0), ok=True, now=3)
    failed(gate, 1, now=3)
    calls = "of at least 20 calls within 60 s"
    assert told(gate, 3) == [
        ("2 more failures in a row (1 of 3 so far)", State.OPEN),
        (f"a failure, where 50% {calls} failed (1 of 2 so far)", State.OPEN),
        (
            f"a failure or slow call, where 80% {calls} took 2 s or longer (1 of 2 so far)",
            State.OPEN,
        ),
    ]


def test_rules_that_are_off_are_not_named() -> None:
    gate = Gate(Counter(), GateSettings())
    assert told(gate, 0) == [("5 more failures in a row (0 of 5 so far)", State.OPEN)]


def test_open_it_says_when_and_half_open_what_its_probes_decide() -> None:
    settings = GateSettings(trip=TripSettings(failure_threshold=1), successes_to_close=2)
    gate = Gate(Counter(), settings)
    failed(gate, 1)
    assert told(gate, 12) == [("18.0 s from now, traffic or not", State.HALF_OPEN)]
    gate.settle(permit(gate, 30), ok=True, now=30)
    assert told(gate, 30) == [
        ("1 more probes that succeed", State.CLOSED),
        ("a probe that fails", State.OPEN),
    ]


def test_forced_only_the_end_of_its_time_changes_it() -> None:
    after = {
        Force.OPEN: State.HALF_OPEN,
        Force.CLOSE: State.CLOSED,
        Force.DISABLE: State.CLOSED,
    }
    for what, then in after.items():
        gate = Gate(Counter(), GateSettings())
        gate.force(what, 0)
        assert told(gate, 1) == []
        gate.force(what, 0, ttl_s=9)
        when = "8.0 s from now, when the time for which it was forced is over"
        assert told(gate, 1) == [(when, then)]


def test_switched_off_nothing_changes_it_and_it_is_what_a_force_ends_in() -> None:
    gate = Gate(Counter(), GateSettings(), enabled=False)
    assert told(gate, 0) == []
    gate.force(Force.OPEN, 0, ttl_s=1)
    assert [one.then for one in prospects(gate, 0)] == [State.DISABLED]

import itertools

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.events import (
    BatchLeft,
    CallEnded,
    Exchange,
    JournalFailed,
    JournalWritten,
    ModelsLost,
    Note,
    Repeated,
    Shed,
    Transition,
)
from tinkex_proxy.runtime.metrics import (
    DURATION_BUCKETS,
    Family,
    JournalMetrics,
    Metrics,
    StateCollector,
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_every_event_is_counted_under_its_labels(registry) -> None:
    listeners = [Metrics(registry), JournalMetrics(registry)]
    for event in (
        CallEnded("forward", "ok", 0.5),
        Exchange("poll", 408, Outcome.SUCCESS, 0.1),
        Exchange("submit", None, Outcome.FAILURE, 0.1),
        BatchLeft("m", 3, "linger", 4, 9, 0.005),
        BatchLeft("m", 4, "alone", 1, 0, 0.0),
        Transition("b", State.CLOSED, State.OPEN, "x"),
        ModelsLost("s", 3, "x"),
        JournalWritten(7, 0.002),
        JournalFailed("the disk is full"),
        Repeated("training", "lost", sent=True),
        Repeated("sample", "fault", sent=False),
        Shed("bytes"),
        Note("info", "nothing to count"),
    ):
        for listener in listeners:
            listener.on_event(event)
    value = registry.get_sample_value
    assert value("tinkex_proxy_calls_total", {"operation": "forward", "code": "ok"}) == 1
    assert value("tinkex_proxy_shed_total", {"reason": "bytes"}) == 1
    poll = {"operation": "poll", "code_class": "4xx", "outcome": "success"}
    assert value("tinkex_proxy_upstream_requests_total", poll) == 1
    lost = {"operation": "submit", "code_class": "none", "outcome": "failure"}
    assert value("tinkex_proxy_upstream_requests_total", lost) == 1
    assert value("tinkex_proxy_batch_flushes_total", {"reason": "linger"}) == 1
    assert value("tinkex_proxy_batch_requests_sum") == 5
    assert value("tinkex_proxy_batch_datums_count") == 1
    moved = {"breaker": "b", "from": "closed", "to": "open"}
    assert value("tinkex_proxy_circuit_breaker_transitions_total", moved) == 1
    assert value("tinkex_proxy_models_lost_total") == 3
    assert value("tinkex_proxy_journal_records_total") == 7
    assert value("tinkex_proxy_journal_write_duration_seconds_count") == 1
    assert value("tinkex_proxy_journal_failing") == 1
    listeners[1].on_event(JournalWritten(1, 0.001))
    assert value("tinkex_proxy_journal_failing") == 0
    repeated = {"operation": "training", "reason": "lost"}
    assert value("tinkex_proxy_retries_total", repeated) == 1
    given_up = {"operation": "sample", "reason": "fault"}
    assert value("tinkex_proxy_retries_refused_total", given_up) == 1
    assert value("tinkex_proxy_retries_total", given_up) is None


def test_the_ladder_reaches_from_a_millisecond_to_a_training_call() -> None:
    """Neighbours differ by √2, so that a quantile is off by 17 % at the most."""
    assert (DURATION_BUCKETS[0], round(DURATION_BUCKETS[-1])) == (0.001, 1049)
    pairs = itertools.pairwise(DURATION_BUCKETS)
    assert all(1.41 < upper / lower < 1.42 for lower, upper in pairs)


def test_states_are_read_when_they_are_asked_for(registry) -> None:
    shown = {"id": "b", "state": "closed"}
    depth = 0.0
    registry.register(
        StateCollector(lambda: [shown], {"g": ("Help.", lambda: depth)}, {"version": "1"})
    )
    labels = {"breaker": "b", "tinkex_proxy_circuit_breaker_state": "half_open"}
    assert registry.get_sample_value("tinkex_proxy_circuit_breaker_state", labels) == 0
    shown["state"] = "half_open"
    depth = 7.0
    assert registry.get_sample_value("tinkex_proxy_circuit_breaker_state", labels) == 1
    assert registry.get_sample_value("g") == 7
    assert b'tinkex_proxy_build_info{version="1"} 1.0' in generate_latest(registry)


def test_families_are_read_when_they_are_asked_for(registry) -> None:
    held = {"active": 1.0}
    families = {
        "q": Family("Help.", "state", held.items),
        "s": Family("Help.", "key_id", lambda: [("k", 2.5)], total=True),
    }
    registry.register(StateCollector(list, {}, {}, families))
    held["active"] = 4.0
    assert registry.get_sample_value("q", {"state": "active"}) == 4
    assert registry.get_sample_value("s_total", {"key_id": "k"}) == 2.5

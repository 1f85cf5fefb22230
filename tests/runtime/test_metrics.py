import itertools
import sys

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics

from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.runtime.events import (
    BatchLeft,
    BreakerDropped,
    CallCut,
    CallEnded,
    CallRecognised,
    CallTimed,
    Exchange,
    JournalFailed,
    JournalWritten,
    ModelsLost,
    Note,
    Repeated,
    RequestEnded,
    Shed,
    Transition,
)
from tinkex_proxy.runtime.metrics import (
    MAX_CHILDREN,
    Children,
    JournalMetrics,
    Metrics,
    StateCollector,
    class_of,
    registry_of_process,
)
from tinkex_proxy.runtime.series import DURATION_BUCKETS, Refused
from tinkex_proxy.runtime.tallies import Ladder, Tally
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.whose import Whose


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_every_event_is_counted_under_its_labels(registry) -> None:
    listeners = [Metrics(registry), JournalMetrics(registry)]
    for event in (
        CallEnded("forward", "ok", 0.5),
        Exchange("poll", 408, Outcome.SUCCESS, 0.1),
        Exchange("submit", None, Outcome.FAILURE, 0.1),
        CallRecognised("forward"),
        CallCut(3),
        BatchLeft("m", 3, "linger", 4, 9, 0.005, 5000),
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
    assert value("tinkex_proxy_batch_bytes_sum") == 5000
    assert value("tinkex_proxy_batch_split_total") == 1
    assert value("tinkex_proxy_dedup_hits_total", {"operation": "forward"}) == 1
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


def shown(state: str = "closed", rejected: int = 0, stale: int = 0) -> dict[str, object]:
    return {"id": "b", "state": state, "counts": {"rejected": rejected, "stale": stale}}


def test_states_are_read_when_they_are_asked_for(registry) -> None:
    now, depth, config = shown(), 0.0, "0"
    registry.register(
        StateCollector(
            lambda: [now],
            {"tinkex_proxy_lane_depth": lambda: depth},
            {"version": "1", "python": "3"},
            lambda: config,
        )
    )
    value = registry.get_sample_value
    labels = {"breaker": "b", "tinkex_proxy_circuit_breaker_state": "half_open"}
    assert value("tinkex_proxy_circuit_breaker_state", labels) == 0
    now, depth, config = shown("half_open", rejected=3, stale=2), 7.0, "f00"
    assert value("tinkex_proxy_circuit_breaker_state", labels) == 1
    assert value("tinkex_proxy_circuit_breaker_rejected_total", {"breaker": "b"}) == 3
    assert value("tinkex_proxy_circuit_breaker_stale_results_total", {"breaker": "b"}) == 2
    assert value("tinkex_proxy_lane_depth") == 7
    assert value("tinkex_proxy_build_info", {"version": "1", "python": "3"}) == 1
    assert value("tinkex_proxy_config_hash_info", {"sha256": "f00"}) == 1


def test_families_are_read_when_they_are_asked_for(registry) -> None:
    held = {"active": 1.0}
    readings = {
        "tinkex_proxy_queue_state": held.items,
        "tinkex_proxy_held_back_seconds_total": lambda: [("k", 2.5)],
    }
    registry.register(StateCollector(list, readings, {}, str))
    held["active"] = 4.0
    assert registry.get_sample_value("tinkex_proxy_queue_state", {"state": "active"}) == 4
    name = "tinkex_proxy_held_back_seconds_total"
    assert registry.get_sample_value(name, {"key_id": "k"}) == 2.5


def test_the_series_of_a_breaker_go_with_it(registry) -> None:
    metrics = Metrics(registry)
    metrics.on_event(Transition("b", State.CLOSED, State.OPEN, "x"))
    metrics.on_event(Transition("c", State.CLOSED, State.OPEN, "x"))
    metrics.on_event(BreakerDropped("b"))
    assert b'breaker="b"' not in generate_latest(registry)
    assert b'breaker="c"' in generate_latest(registry)
    metrics.on_event(Transition("b", State.CLOSED, State.OPEN, "x"))
    assert b'breaker="b"' in generate_latest(registry)


def test_what_is_told_twice_is_bound_once(registry, monkeypatch) -> None:
    """Looking labels up costs more than counting does."""
    metrics = Metrics(registry)
    metrics.on_event(CallEnded("forward", "ok", 0.5))
    monkeypatch.setattr(Counter, "labels", None)
    monkeypatch.setattr(Histogram, "labels", None)
    metrics.on_event(CallEnded("forward", "ok", 0.5))
    ok = {"operation": "forward", "code": "ok"}
    assert registry.get_sample_value("tinkex_proxy_calls_total", ok) == 2


def test_there_may_be_as_many_breakers_as_keys(registry) -> None:
    """Their number is the operator's: `upstream.max_keys`."""
    refused = Refused()
    metrics = Metrics(registry, refused)
    for number in range(MAX_CHILDREN + 1):
        metrics.on_event(Transition(f"b{number}", State.CLOSED, State.OPEN, "x"))
    assert refused.count == 0
    assert f'breaker="b{MAX_CHILDREN}"' in generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("status", "told"), [(100, "1xx"), (429, "4xx"), (599, "5xx"), (0, "other"), (999, "other")]
)
def test_every_status_has_a_class(status: int, told: str) -> None:
    assert class_of(status) == told


@pytest.mark.parametrize("kind", [Tally, Ladder])
def test_series_beyond_the_bound_are_refused_and_counted(registry, kind) -> None:
    refused = Refused()
    children = Children(kind("c", "Help.", ("a",), registry=registry), refused, most=2)
    for name in ("1", "2", "3", "4", "1"):
        child = children[name]
        child.inc() if isinstance(child, Tally) else child.observe(1)
    text = generate_latest(registry)
    assert refused.count == 2
    assert b'a="2"' in text
    assert b'a="3"' not in text


def test_what_an_sdks_call_on_a_lane_came_to_is_counted_beside_its_request(registry) -> None:
    """Its request was answered long before with a promise; a plain call is its own request."""
    metrics = Metrics(registry)
    for operation, code in (
        ("sdk_forward_backward", "upstream_failed"),
        ("sdk_submit", "ok"),
        ("forward_backward", "ok"),
    ):
        metrics.on_event(CallTimed(operation, code, Timeline(0.0), Whose("c", "k")))
    name = "tinkex_proxy_calls_total"
    told = {"operation": "sdk_forward_backward", "code": "upstream_failed"}
    assert registry.get_sample_value(name, told) == 1
    assert registry.get_sample_value(name, {"operation": "sdk_submit", "code": "ok"}) is None
    assert registry.get_sample_value(name, {"operation": "forward_backward", "code": "ok"}) is None


def test_a_trace_that_is_recorded_is_an_exemplar(registry) -> None:
    """Of the bucket that its duration fell into; only OpenMetrics shows it."""
    metrics = Metrics(registry)
    traced = "4bf92f3577b34da6a3ce929d0e0e4736"
    metrics.on_event(CallEnded("forward", "ok", 18.0, trace_id=traced))
    metrics.on_event(CallEnded("forward", "ok", 0.1))
    place = TraceContext(traced, "b" * 16, 1)
    metrics.on_event(Exchange("submit", 200, Outcome.SUCCESS, 0.002, trace=place))
    metrics.on_event(RequestEnded("/v1/forward", "POST", 200, 18.0, traced))
    lines = [line for line in open_metrics(registry).decode().splitlines() if traced in line]
    assert {line.partition("{")[0] for line in lines} == {
        "tinkex_proxy_call_duration_seconds_bucket",
        "tinkex_proxy_upstream_request_duration_seconds_bucket",
        "http_request_duration_seconds_bucket",
    }
    assert lines[0].endswith(f' 2.0 # {{trace_id="{traced}"}} 18.0')
    assert traced not in generate_latest(registry).decode()


def test_a_second_listener_on_one_registry_is_an_error_and_not_silence(registry) -> None:
    Metrics(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics(registry)


def test_the_process_is_shown_where_the_library_can() -> None:
    resident = registry_of_process().get_sample_value("process_resident_memory_bytes")
    assert (resident is not None and resident > 2**20) is (sys.platform == "linux")

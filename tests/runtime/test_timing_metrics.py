"""Parts of calls as series: what was not come to is not counted."""

from prometheus_client import CollectorRegistry

from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.timeline import Held, Part, Timeline
from tinkex_proxy.runtime.events import CallTimed, Exchange
from tinkex_proxy.runtime.timing_metrics import TimingMetrics
from tinkex_proxy.runtime.whose import Whose


def test_each_part_and_the_proxys_own_share_are_observed() -> None:
    registry = CollectorRegistry()
    metrics = TimingMetrics(registry)
    line = Timeline(0.0)
    line.spent(Part.QUEUE, 1.0)
    line.spent(Part.COMPUTE, 5.0)
    line.end(5.5)
    metrics.on_event(CallTimed("sample", "ok", line, Whose("r", "k")))
    metrics.on_event(Exchange("submit", 200, Outcome.SUCCESS, 1.0))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tinkex_proxy_{name}", {"operation": "sample", **labels})

    sums = {part: value("call_part_seconds_sum", part=part.value) for part in Part}
    assert {part: seconds for part, seconds in sums.items() if seconds} == {
        Part.QUEUE: 1.0,
        Part.COMPUTE: 4.0,
        Part.PROXY: 0.5,
    }
    counts = {part: value("call_part_seconds_count", part=part.value) for part in Part}
    assert counts == {part: float(sums[part] > 0) for part in Part}, "all there, not all counted"
    assert value("overhead_seconds_sum") == 1.5
    assert value("overhead_seconds_count") == 1


def test_what_held_calls_back_is_counted_by_the_state_that_was_given() -> None:
    """Any word that is not known is one series: an upstream may say what it likes."""
    registry = CollectorRegistry()
    metrics = TimingMetrics(registry)
    for state in ("paused_capacity", "paused_capacity", "a new word", "another"):
        line = Timeline(0.0)
        line.spent(Part.UPSTREAM_QUEUE, 2.0)
        line.held = Held(state)
        metrics.on_event(CallTimed("sample", "ok", line, Whose("r", "k")))
    name = "tinkex_proxy_upstream_queue_seconds_total"
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    seen = {s.labels["state"]: s.value for s in samples if s.name == name}
    assert seen == {"paused_capacity": 4.0, "other": 4.0}

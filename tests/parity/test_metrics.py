"""The numbers of tinkex's own tests of its metrics, and what its code says beyond them."""

import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import RequestEnded
from tinkex_proxy.runtime.observer import Observer
from tinkex_proxy.runtime.snapshot import Snapshot


@pytest.fixture
def snapshot() -> Snapshot:
    return Snapshot(ManualClock(), max_bins=1000)


@pytest.fixture
def observer(snapshot: Snapshot) -> Observer:
    return Observer(snapshot)


def answered(observer: Observer, status: int, seconds: float) -> None:
    """A caller's request was answered."""
    observer.on_event(RequestEnded("/v1/sample", "POST", status, seconds, wanted=True))


def test_three_requests_are_counted_by_how_they_ended(observer, snapshot) -> None:
    for status, ms in ((200, 10), (200, 20), (500, 40)):
        answered(observer, status, ms / 1000)
    counted = [snapshot.counted(f"tinkex.requests.{n}") for n in ("total", "success", "failure")]
    assert counted == [3, 2, 1]


def test_their_durations_have_tinkexs_quantiles(observer, snapshot) -> None:
    for status, ms in ((200, 10), (200, 20), (500, 40)):
        answered(observer, status, ms / 1000)
    shown = snapshot.get_snapshot("tinkex.request.duration_ms")
    assert (shown["count"], shown["mean"]) == (3, pytest.approx(23.3, abs=0.05))
    assert [shown[p] for p in ("p50", "p95", "p99")] == [20, 40, 40]


def test_own_metrics_have_tinkexs_verbs_and_numbers(snapshot) -> None:
    """And each update is there at once, without a flush."""
    snapshot.increment("c", 1)
    snapshot.increment("c", 2)
    snapshot.set_gauge("g", 5)
    snapshot.record_histogram("h", 5)
    snapshot.record_histogram("h", 15)
    assert snapshot.get_snapshot("c")["value"] == 3
    assert snapshot.get_snapshot("g")["value"] == 5
    shown = snapshot.get_snapshot("h")
    assert [shown[each] for each in ("count", "mean", "p50", "p95")] == [2, 10, 10, 15]


def test_a_reset_empties_all(snapshot) -> None:
    snapshot.increment("c")
    snapshot.set_gauge("g", 5)
    snapshot.record_histogram("h", 5)
    snapshot.reset()
    shown = snapshot.get_all_metrics()
    assert shown == {"counters": {}, "gauges": {}, "histograms": {}, "summaries": {}}


def test_an_empty_histogram_has_a_count_and_nothing_else(observer, snapshot) -> None:
    shown = snapshot.get_snapshot("tinkex.request.duration_ms")
    assert shown["count"] == 0
    fields = ("mean", "min", "max", "p50", "p95", "p99")
    assert [shown[field] for field in fields] == [None] * len(fields)


@pytest.mark.parametrize(
    ("status", "ok"), [(200, 1), (202, 1), (301, 0), (404, 0), (408, 0), (429, 0), (503, 0)]
)
def test_only_2xx_is_a_success(observer, snapshot, status: int, ok: int) -> None:
    answered(observer, status, 0.01)
    counted = [snapshot.counted(f"tinkex.requests.{n}") for n in ("success", "failure")]
    assert counted == [ok, 1 - ok]

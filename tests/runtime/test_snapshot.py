import math
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.snapshot import (
    MAX_NAME_LENGTH,
    MAX_NAMES,
    MAX_SERIES,
    SUMMARY_VALUES,
    Snapshot,
)

KINDS = ("counters", "gauges", "histograms", "summaries")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def snapshot(clock: ManualClock) -> Snapshot:
    return Snapshot(clock, max_bins=1000)


def names(snapshot: Snapshot) -> dict[str, list[str]]:
    return {kind: list(metrics) for kind, metrics in snapshot.get_all_metrics().items()}


def taken(fill: Callable[[], None]) -> int:
    """Bytes that are held when it has ended."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fill()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


def test_every_kind_is_shown_by_name_and_with_all_others(snapshot: Snapshot) -> None:
    snapshot.increment("c", 2)
    snapshot.set_gauge("g", -1.5)
    snapshot.record_histogram("h", 3)
    snapshot.record_summary("s", 0.5, "model")
    assert snapshot.get_snapshot("c") == {"name": "c", "type": "counter", "value": 2}
    assert snapshot.get_snapshot("g") == {"name": "g", "type": "gauge", "value": -1.5}
    one = {"count": 1, "mean": 3, "min": 3, "max": 3, "p50": 3, "p95": 3, "p99": 3}
    assert snapshot.get_snapshot("h") == {"name": "h", "type": "histogram", **one, "recent": one}
    told = {"count": 1, "mean": 0.5, "stddev": None, "last": 0.5}
    series = {"model": told}
    assert snapshot.get_snapshot("s") == {"name": "s", "type": "summary", **told, "series": series}
    assert names(snapshot) == {kind: [kind[0]] for kind in KINDS}
    assert snapshot.get_snapshot("nope") is None


def test_what_is_recent_is_forgotten_and_the_total_is_not(snapshot, clock) -> None:
    snapshot.record_histogram("h", 3)
    clock.advance(200)
    shown = snapshot.get_snapshot("h")
    assert (shown["count"], shown["recent"]["count"]) == (1, 0)
    assert snapshot.recent("h").count == snapshot.recent("nope").count == 0


def test_a_watched_gauge_is_read_whenever_it_is_asked_for(snapshot: Snapshot) -> None:
    open_now = 0.0
    snapshot.watch_gauge("g", lambda: open_now)
    open_now = 1.0
    assert snapshot.get_snapshot("g")["value"] == 1
    snapshot.set_gauge("g", 5)
    assert snapshot.get_snapshot("g")["value"] == 1
    snapshot.reset()
    assert snapshot.get_snapshot("g")["value"] == 1


def test_names_that_are_declared_are_always_there(snapshot: Snapshot) -> None:
    for kind in ("counter", "gauge", "histogram", "summary"):
        snapshot.declare(kind, kind)
    assert [snapshot.get_snapshot(kind).get("value") for kind in ("counter", "gauge")] == [0, 0]
    snapshot.increment("counter")
    snapshot.increment("other")
    assert snapshot.counted("counter") == 1
    assert set(snapshot.reset()) == {"counter", "gauge", "histogram", "summary", "other"}
    assert names(snapshot) == {
        "counters": ["counter"],
        "gauges": ["gauge"],
        "histograms": ["histogram"],
        "summaries": ["summary"],
    }
    assert snapshot.counted("counter") == snapshot.counted("nope") == 0


def test_one_name_is_reset_and_the_others_are_not(snapshot: Snapshot) -> None:
    snapshot.increment("a")
    snapshot.increment("b")
    assert snapshot.reset("a") == ["a"]
    assert snapshot.reset("a") == []
    assert names(snapshot)["counters"] == ["b"]


def test_names_are_bounded_in_number_and_length(snapshot: Snapshot) -> None:
    for number in range(MAX_NAMES + 50):
        snapshot.increment(f"n{number}")
    snapshot.increment("n0")
    assert len(names(snapshot)["counters"]) == MAX_NAMES
    assert (snapshot.counted("n0"), snapshot.refused.count) == (2, 50)
    snapshot.reset()
    snapshot.set_gauge("x" * (MAX_NAME_LENGTH + 1), 1)
    assert names(snapshot)["gauges"] == []
    assert snapshot.refused.count == 51


@pytest.mark.parametrize("verb", ["increment", "set_gauge"])
def test_a_counter_or_a_gauge_takes_less_than_a_kilobyte(snapshot: Snapshot, verb: str) -> None:
    """With the longest name there may be."""

    def fill() -> None:
        for number in range(MAX_NAMES):
            getattr(snapshot, verb)(f"{number:0{MAX_NAME_LENGTH}}", 1e9 + number)

    assert taken(fill) <= 1000 * MAX_NAMES
    assert snapshot.refused.count == 0


def test_a_histogram_takes_less_than_ten_kilobytes(snapshot, clock) -> None:
    """With values over eight decades in each of five minutes."""

    def fill() -> None:
        for n in range(3000):
            clock.advance(0.1)
            for name in "abcd":
                snapshot.record_histogram(name, 10 ** (n % 800 / 100 - 4))

    assert taken(fill) <= 4 * 10_000


def test_the_losses_of_many_models_take_less_than_half_a_megabyte(snapshot: Snapshot) -> None:
    def fill() -> None:
        for number in range(3 * MAX_SERIES):
            for value in range(2 * SUMMARY_VALUES):
                snapshot.record_summary("loss", value + 0.5, f"model-{number}")

    assert taken(fill) <= 500_000


def test_a_name_has_one_kind(snapshot: Snapshot) -> None:
    """Whoever mixes them up loses the update, and no work."""
    snapshot.increment("a")
    snapshot.set_gauge("a", 5)
    snapshot.record_histogram("a", 5)
    snapshot.record_summary("a", 5, "m")
    assert snapshot.refused.count == 3
    assert snapshot.get_snapshot("a") == {"name": "a", "type": "counter", "value": 1}


def test_what_no_histogram_can_count_is_refused(snapshot: Snapshot) -> None:
    for value in (1.0, -1.0, math.nan):
        snapshot.record_histogram("h", value)
    assert (snapshot.get_snapshot("h")["count"], snapshot.refused.count) == (1, 2)
    snapshot.record_histogram("h", 2.0, math.inf, 3.0)
    assert (snapshot.get_snapshot("h")["count"], snapshot.refused.count) == (3, 3)


def test_the_model_that_trained_longest_ago_gives_way(snapshot: Snapshot) -> None:
    for number in range(MAX_SERIES):
        snapshot.record_summary("loss", 1.0, f"m{number}")
    snapshot.record_summary("loss", 2.0, "m0")
    snapshot.record_summary("loss", 3.0, "new")
    shown = snapshot.get_snapshot("loss")
    assert len(shown["series"]) == MAX_SERIES
    assert "m1" not in shown["series"]
    assert shown["series"]["m0"]["count"] == 2
    assert shown["count"] == MAX_SERIES + 2


def test_a_summary_is_over_its_last_values(snapshot: Snapshot) -> None:
    for value in [1000.0] * 5 + [1.0, 3.0] * (SUMMARY_VALUES // 2):
        snapshot.record_summary("loss", value, "m")
    shown = snapshot.get_snapshot("loss")["series"]["m"]
    assert (shown["mean"], shown["last"]) == (2.0, 3.0)
    assert shown["stddev"] == pytest.approx(1, rel=0.01)


def test_a_loss_that_is_no_number_can_be_told(snapshot: Snapshot) -> None:
    snapshot.record_summary("loss", math.nan, "m")
    told = msgspec.json.decode(msgspec.json.encode(snapshot.get_snapshot("loss")))
    assert (told["count"], told["last"]) == (1, None)

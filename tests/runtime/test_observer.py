import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import BatchLeft, Note, SnapshotTaken, Trained
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.observer import Intervals, Observer
from tinkex_proxy.runtime.series import SNAPSHOT
from tinkex_proxy.runtime.snapshot import Snapshot


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def snapshot(clock: ManualClock) -> Snapshot:
    return Snapshot(clock, max_bins=1000)


@pytest.fixture
def observer(snapshot: Snapshot) -> Observer:
    return Observer(snapshot)


class Told:
    def __init__(self) -> None:
        self.events: list[SnapshotTaken] = []

    def on_event(self, event: SnapshotTaken) -> None:
        self.events.append(event)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def intervals(snapshot: Snapshot, clock: ManualClock, told: Told) -> Intervals:
    return Intervals(snapshot, 60, clock=clock, hub=Hub([told], print))


def test_every_name_of_the_table_is_there_from_the_beginning(observer, snapshot) -> None:
    shown = snapshot.get_all_metrics()
    assert sorted(name for kind in shown.values() for name in kind) == sorted(SNAPSHOT)
    for name, row in SNAPSHOT.items():
        assert snapshot.get_snapshot(name)["type"] == row.kind


def test_events_are_counted_under_their_names(observer, snapshot) -> None:
    observer.on_event(BatchLeft("m", 1, "idle", 4, 9, 0.0))
    observer.on_event(BatchLeft("m", 2, "alone", 1, 0, 0.0))
    observer.on_event(Trained("m", 2.5))
    observer.on_event(Note("info", "nothing to count"))
    sizes = snapshot.get_snapshot("tinkex.batch.size")
    assert (sizes["count"], sizes["max"]) == (1, 4), "an optim_step is no batch"
    assert snapshot.get_snapshot("tinkex.training.loss_total")["series"]["m"]["last"] == 2.5


def test_an_interval_is_told_again_and_again(observer, clock, told, intervals) -> None:
    intervals.start()
    observer.on_request(200, 0.010)
    observer.on_request(503, 0.020)
    clock.advance(59)
    assert told.events == []
    clock.advance(1)
    (first,) = told.events
    assert (first.requests, first.failures, first.recent_ms.max) == (2, 1, 20)
    assert first.metrics["counters"]["tinkex.requests.total"] == 2
    observer.on_request(200, 0.010)
    clock.advance(60)
    assert (told.events[1].requests, told.events[1].failures) == (1, 0)
    intervals.stop()
    clock.advance(600)
    assert len(told.events) == 2
    assert clock.pending == 0


def test_after_a_reset_it_is_counted_from_there(observer, clock, told, intervals, snapshot) -> None:
    intervals.start()
    for _ in range(5):
        observer.on_request(500, 0.01)
    clock.advance(60)
    snapshot.reset()
    observer.on_request(500, 0.01)
    clock.advance(60)
    assert (told.events[1].requests, told.events[1].failures) == (1, 1)


def test_another_interval_holds_from_now_on(clock, told, intervals) -> None:
    intervals.reconfigure(30)
    assert clock.pending == 0, "it has not been started"
    intervals.start()
    clock.advance(29)
    intervals.reconfigure(10)
    clock.advance(9)
    assert told.events == []
    clock.advance(1)
    assert len(told.events) == 1
    intervals.stop()
    intervals.stop()

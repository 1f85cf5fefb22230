import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import BatchLeft, Note, RequestEnded, SnapshotTaken, Trained
from tinkex_proxy.runtime.hub import GATHERED_S, Hub
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


def answered(observer: Observer, status: int, seconds: float) -> None:
    """A caller's request was answered."""
    observer.on_event(RequestEnded("/v1/sample", "POST", status, seconds, wanted=True))


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


def test_what_is_no_answer_to_a_callers_wish_counts_as_neither(observer, snapshot) -> None:
    """A poll, a request to an operator's route, a caller who left."""
    for event in (
        RequestEnded("/api/v1/retrieve_future", "POST", 200, 1.0),
        RequestEnded("/metrics", "GET", 200, 1.0),
        RequestEnded("/v1/sample", "POST", None, 1.0, wanted=True),
    ):
        observer.on_event(event)
    assert snapshot.counted("tinkex.requests.total") == 0
    assert snapshot.get_snapshot("tinkex.request.duration_ms")["count"] == 0


def test_an_interval_has_what_was_gathered_in_it(snapshot, observer, clock, told) -> None:
    hub = Hub([observer, told], print, clock.call_later)
    Intervals(snapshot, GATHERED_S / 2, clock=clock, hub=hub).start()
    hub.tell(RequestEnded("/v1/sample", "POST", 200, 0.01, wanted=True))
    clock.advance(GATHERED_S / 2)
    (taken,) = [event for event in told.events if isinstance(event, SnapshotTaken)]
    assert taken.requests == 1


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
    answered(observer, 200, 0.010)
    answered(observer, 503, 0.020)
    clock.advance(59)
    assert told.events == []
    clock.advance(1)
    (first,) = told.events
    assert (first.requests, first.failures, first.recent_ms.max) == (2, 1, 20)
    assert first.metrics["counters"]["tinkex.requests.total"] == 2
    answered(observer, 200, 0.010)
    clock.advance(60)
    assert (told.events[1].requests, told.events[1].failures) == (1, 0)
    intervals.stop()
    clock.advance(600)
    assert len(told.events) == 2
    assert clock.pending == 0


def test_after_a_reset_it_is_counted_from_there(observer, clock, told, intervals, snapshot) -> None:
    intervals.start()
    for _ in range(5):
        answered(observer, 500, 0.01)
    clock.advance(60)
    snapshot.reset()
    answered(observer, 500, 0.01)
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

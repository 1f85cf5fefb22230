import pytest

from tinkex_proxy.core.circuit import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.timeline import Part, Timeline
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import (
    BatchLeft,
    BreakerDropped,
    CallEnded,
    CallTimed,
    Exchange,
    Note,
    Repeated,
    Trained,
    Transition,
)
from tinkex_proxy.runtime.history import KEPT_S, STEP_S, History, sizes_of
from tinkex_proxy.runtime.whose import Whose

WALL = 5000.0


class Told:
    """A history whose clocks are in the test's hands; the wall clock runs with the other one."""

    def __init__(self) -> None:
        self.clock = ManualClock(70.0)
        self.history = History(clock=self.clock, wall_clock=lambda: WALL + self.clock.now() - 70.0)

    def tell(self, *events: object) -> None:
        for event in events:
            self.history.on_event(event)

    def moved(self, before: State, after: State, breaker: str = "b") -> None:
        self.tell(Transition(breaker, before, after, "because"))


@pytest.fixture
def told() -> Told:
    return Told()


def timed(seconds: float, *, operation: str = "sample", code: str = "ok") -> CallTimed:
    timeline = Timeline(0.0, Part.COMPUTE)
    timeline.end(seconds)
    return CallTimed(operation, code, timeline, Whose("r", "k"))


def test_slots_are_numbered_from_the_start_and_empty_ones_do_not_exist(told: Told) -> None:
    told.tell(timed(0.5))
    told.clock.advance(5 * STEP_S + 0.5)
    told.tell(timed(0.5), timed(1.5))
    assert [(slot.number, slot.calls["ok"]) for slot in told.history.slots()] == [(0, 1), (5, 2)]
    assert (told.history.number, told.history.into_s) == (5, 0.5)
    assert told.history.began_at == WALL


def test_what_is_too_old_is_gone(told: Told) -> None:
    """By its age and by its number: a proxy that was silent for long shows nothing of before."""
    told.tell(timed(0.5))
    told.clock.advance(KEPT_S - STEP_S)
    assert len(told.history.slots()) == 1
    told.clock.advance(STEP_S)
    assert told.history.slots() == []
    for _ in range(1000):
        told.tell(timed(0.5))
        told.clock.advance(STEP_S)
    assert len(told.history.slots()) <= KEPT_S / STEP_S


def test_whoever_looks_again_asks_from_a_slot_on(told: Told) -> None:
    for _ in range(3):
        told.tell(timed(0.5))
        told.clock.advance(STEP_S)
    assert [slot.number for slot in told.history.slots(1)] == [1, 2]


def test_calls_are_counted_once_by_how_they_ended(told: Told) -> None:
    """A call that was taken on is told twice; an SDK's on a lane fails when its request is over."""
    told.tell(
        *(CallEnded("sample", "ok", 0.5), timed(0.5)),
        *(CallEnded("sample", "circuit_open", 0.1), timed(0.1, code="circuit_open")),
        *(CallEnded("sdk_submit", "ok", 0.1), timed(3, operation="sdk_optim_step")),
        timed(3, operation="sdk_forward_backward", code="upstream_failed"),
        *(CallEnded("sdk_poll", "upstream_fault", 45), timed(45, operation="sdk_poll")),
    )
    (slot,) = told.history.slots()
    assert slot.calls == {"ok": 2, "circuit_open": 1, "upstream_failed": 1}
    assert (slot.took_ms.min, slot.took_ms.max, slot.took_ms.count) == (500, 3000, 2)


def test_the_time_of_calls_is_the_proxys_the_lanes_or_the_upstreams(told: Told) -> None:
    timeline = Timeline(0.0)
    for moment, part in enumerate(
        (Part.QUEUE, Part.LINGER, Part.JOURNAL, Part.UPLOAD, Part.UPSTREAM_QUEUE), 1
    ):
        timeline.enter(part, float(moment))
    timeline.enter(Part.COMPUTE, 6.0)
    timeline.enter(Part.DOWNLOAD, 7.0)
    timeline.end(8.0)
    told.tell(CallTimed("sample", "ok", timeline, Whose("r", "k")))
    (slot,) = told.history.slots()
    assert (slot.own_s, slot.waiting_s, slot.upstream_s) == (3.0, 1.0, 4.0)


def test_exchanges_are_counted_by_what_they_say_of_the_upstream(told: Told) -> None:
    told.tell(
        Exchange("submit", 200, Outcome.SUCCESS, 0.1),
        Exchange("submit", 503, Outcome.FAILURE, 0.1),
        Exchange("submit", None, Outcome.FAILURE, 0.1),
        Exchange("submit", 429, Outcome.THROTTLED, 0.1),
        Exchange("submit", None, Outcome.NEUTRAL, 0.1),
        Repeated("training", "fault", sent=True),
        Repeated("training", "fault", sent=False),
    )
    (slot,) = told.history.slots()
    counted = (slot.answered, slot.faults, slot.silences, slot.throttled, slot.repeated)
    assert counted == (1, 1, 1, 1, 1)


def test_batches_are_counted_by_size_and_reason(told: Told) -> None:
    told.tell(BatchLeft("m", 1, "idle", 3, 12, 0.1), BatchLeft("m", 2, "alone", 1, 0, 0.1))
    (slot,) = told.history.slots()
    assert (slot.batches, slot.reasons) == ({3: 1, 1: 1}, {"idle": 1, "alone": 1})
    assert slot.datums == 12


def test_the_last_seconds_are_summed_up(told: Told) -> None:
    for _ in range(40):
        told.tell(timed(0.5), Exchange("submit", 200, Outcome.SUCCESS, 0.1))
        told.clock.advance(STEP_S)
    minute = told.history.summed(60)
    # 30 slots, of which the present one is empty so far
    assert (minute.calls["ok"], minute.answered, minute.timed) == (29, 29, 29)
    assert told.history.took_ms(60).count == 29
    assert told.history.took_ms(60).p50 == 500
    assert told.history.summed(KEPT_S).calls["ok"] == 40


def test_losses_are_per_datum(told: Told) -> None:
    told.tell(Trained("m", 12.0, 4), Trained("m", 9.0, 0))
    (curve,) = told.history.curves.told()
    assert curve["points"] == [(0, WALL, 3.0), (0, WALL, 9.0)]


def test_moves_of_breakers_are_kept(told: Told) -> None:
    told.moved(State.CLOSED, State.OPEN)
    told.clock.advance(STEP_S)
    told.tell(BreakerDropped("b"), Note("info", "x"))
    first, second = told.history.moves()
    assert (first.breaker, first.before, first.after, first.at) == (
        "b",
        State.CLOSED,
        State.OPEN,
        WALL,
    )
    assert (second.slot, second.after) == (1, None)
    assert told.history.moves(1) == [second]


def test_how_long_a_breaker_was_open_is_counted_once_for_all_of_them(told: Told) -> None:
    told.clock.advance(10)
    told.moved(State.CLOSED, State.OPEN, "a")
    told.clock.advance(5)
    told.moved(State.CLOSED, State.OPEN, "b")
    told.clock.advance(5)
    told.moved(State.OPEN, State.HALF_OPEN, "a")
    told.clock.advance(5)
    told.tell(BreakerDropped("b"))
    told.clock.advance(30)
    assert told.history.outage(60) == (2, 15.0)
    # of an outage that began before, the part within the window
    assert told.history.outage(40) == (1, 10.0)
    assert told.history.outage(10) == (0, 0.0)


def test_an_outage_that_goes_on_lasts_until_now(told: Told) -> None:
    told.moved(State.CLOSED, State.OPEN)
    told.clock.advance(25)
    assert told.history.outage(60) == (1, 25.0)


def test_batches_by_size_have_a_bar_each_up_to_ten() -> None:
    counted = {1: 5, 10: 2, 11: 1, 16: 1, 17: 3, 100: 1}
    assert sizes_of(counted) == [("1", 5), ("10", 2), ("11-16", 2), ("17-32", 3), ("65-128", 1)]

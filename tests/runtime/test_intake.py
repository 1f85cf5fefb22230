"""Taking on and shedding: what is told, what is counted, and that everything is given back."""

import asyncio

import pytest

from tinkex_proxy.core.admission import Bound, Bounds
from tinkex_proxy.errors import Overloaded
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Event, Note, Shed
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.intake import Intake


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100.0)


@pytest.fixture
def intake(heard: Heard, clock: ManualClock) -> Intake:
    bounds = Bounds(max_bytes=100, max_calls=2, max_lane_depth=3)
    return Intake(bounds, clock=clock, hub=Hub([heard], print))


def holds(intake: Intake) -> tuple[int, int]:
    return intake.usage.size_bytes, intake.usage.calls


def test_a_call_holds_what_it_has_come_to_and_gives_it_back(intake) -> None:
    with intake.hold("k") as hold:
        hold.count()
        hold.count()
        hold.grow(60)
        hold.grow(40)  # less than was announced
        hold.add(5)
        assert holds(intake) == (65, 1)
        assert intake.snapshot_of("k") == {"bytes_held": 65, "calls_in_flight": 1}
    assert holds(intake) == (0, 0)
    assert intake.snapshot_of("k") == {"bytes_held": 0, "calls_in_flight": 0}


def test_a_call_that_has_come_whole_is_held_at_once_or_not_at_all(intake) -> None:
    with intake.hold("k") as hold:
        hold.take(60)
        hold.count()  # it is
        hold.add(5)
        assert holds(intake) == (65, 1)
        with pytest.raises(Overloaded), intake.hold("k") as other:
            other.take(60)
        assert holds(intake) == (65, 1)
    assert holds(intake) == (0, 0)


def test_a_call_that_is_shed_half_way_gives_back_what_it_held(intake) -> None:
    with intake.hold("k") as other:
        other.grow(50)
        with intake.hold("k") as hold:
            hold.count()
            hold.grow(50)
            with pytest.raises(Overloaded):
                hold.grow(51)
        assert holds(intake) == (50, 0)


async def test_what_a_task_has_taken_over_is_held_until_it_has_ended(intake) -> None:
    go = asyncio.Event()
    task = asyncio.create_task(go.wait())
    with intake.hold("k") as hold:
        hold.count()
        hold.grow(60)
        hold.until(task)
    assert holds(intake) == (60, 1)
    go.set()
    await task
    await asyncio.sleep(0)
    assert holds(intake) == (0, 0)


def test_what_is_exempt_is_neither_counted_nor_shed(intake) -> None:
    with intake.hold("k", exempt=True) as hold:
        hold.count()
        hold.grow(1000)
        assert holds(intake) == (0, 0)


def test_what_an_earlier_run_has_taken_on_is_counted_and_not_shed(intake) -> None:
    with intake.hold("a") as full, intake.hold("k", owed=True) as hold:
        full.count()
        full.grow(100)
        hold.count()
        hold.grow(50, early=True)
        hold.queue(3)
        assert holds(intake) == (150, 2)
        with intake.hold("a") as other:
            other.add(20, owed=True)


def test_who_is_shed_is_told_the_bound_its_setting_and_what_helps(intake, heard) -> None:
    with intake.hold("a") as full:
        full.count()
        full.grow(100)
        with intake.hold("a") as other:
            other.count()
            refusals = {
                Bound.BYTES: lambda hold: hold.add(1),
                Bound.CALLS: lambda hold: hold.count(),
                Bound.LANE: lambda hold: hold.queue(3),
            }
            for bound, refused in refusals.items():
                with pytest.raises(Overloaded) as shed, intake.hold("b") as hold:
                    refused(hold)
                error = shed.value
                setting = {"lane": "max_lane_depth"}.get(bound.value, f"max_{bound.value}")
                assert f"admission.{setting}" in error.detail
                assert "Nothing was sent" in error.detail
                assert "raise that setting" in error.detail
                assert error.retryable
                assert error.retry_after_s == 1.0
    assert [e.reason for e in heard.events if isinstance(e, Shed)] == ["bytes", "calls", "lane"]
    assert intake.snapshot()["shed"] == {"bytes": 1, "calls": 1, "lane": 1}
    assert holds(intake) == (0, 0)


def test_what_others_wait_for_is_taken_on_beyond_calls_and_depth(intake) -> None:
    with intake.hold("a") as one, intake.hold("a") as two, intake.hold("a") as awaited:
        one.count()
        two.count()
        awaited.queue(3, awaited=True)
        awaited.count(awaited=True)
        assert holds(intake) == (0, 3)


def test_early_pieces_are_shed_before_the_bytes_are_used_up(intake) -> None:
    with intake.hold("a") as hold:
        hold.grow(76)
        with pytest.raises(Overloaded):
            hold.add(0, early=True)


def test_a_thousand_calls_shed_are_one_line_of_log_and_all_are_counted(
    intake, heard, clock
) -> None:
    def shed(times: int) -> None:
        for _ in range(times):
            with pytest.raises(Overloaded), intake.hold("a") as hold:
                hold.queue(3)

    def lines() -> list[str]:
        return [event.message for event in heard.events if isinstance(event, Note)]

    shed(1000)
    assert len(lines()) == 1
    assert "admission.max_lane_depth" in lines()[0]
    clock.advance(9.9)
    shed(1)
    assert len(lines()) == 1
    clock.advance(0.1)
    shed(2)
    assert len(lines()) == 2
    assert intake.shed[Bound.LANE] == 1003

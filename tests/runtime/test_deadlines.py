"""Deadlines that hardly ever come share a timer, and come late rather than early."""

import asyncio
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.runtime import deadlines as module
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.deadlines import TICK_S, Deadlines, deadlines, within


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Of the deadlines that are used."""
    clock = ManualClock(start=1000.0)
    kept = Deadlines(clock)
    monkeypatch.setattr(module, "deadlines", lambda: kept)
    return clock


def comes(came: dict[int, float], number: int, clock: ManualClock) -> None:
    came.setdefault(number, clock.now())


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=20))
def test_each_comes_within_a_tick_after_its_time_unless_it_is_called_off(wanted) -> None:
    clock = ManualClock()
    kept, came = Deadlines(clock), {}
    for number, (seconds, off) in enumerate(wanted):
        due = partial(comes, came, number, clock)
        booked = kept.book(seconds, number, due)
        if off:
            assert booked.pop(number, None) is due
            assert booked.pop(number, None) is None
    for _ in range(70):
        clock.advance(TICK_S)
    expected = {number: seconds for number, (seconds, off) in enumerate(wanted) if not off}
    assert came.keys() == expected.keys()
    for number, seconds in expected.items():
        assert seconds <= came[number] + 1e-9
        assert came[number] <= seconds + 2 * TICK_S + 1e-9
    assert clock.pending == 0, "nothing ticks for nobody"


def test_one_timer_is_enough_for_all() -> None:
    clock = ManualClock()
    kept = Deadlines(clock)
    booked = [kept.book(seconds, name, list) for name, seconds in enumerate((1, 2, 60, 60))]
    assert clock.pending == 1
    for name, where in enumerate(booked):
        where.pop(name, None)
    clock.advance(TICK_S)
    assert clock.pending == 0
    kept.book(1, "another", list)
    assert clock.pending == 1


async def test_what_takes_too_long_is_ended(clock) -> None:
    async def wait() -> None:
        with within(5.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    clock.advance(4.9)
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(2 * TICK_S + 0.1)
    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0


async def test_a_short_time_is_kept_to_the_moment() -> None:
    """It is not put off to a tick."""
    with pytest.raises(TimeoutError), within(0.001):
        await asyncio.Event().wait()


async def test_an_end_from_outside_stays_one(clock) -> None:
    """Also in the moment in which the time is over."""

    async def wait() -> None:
        with within(5.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    clock.advance(6.0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_done_in_time_is_left_alone(clock) -> None:
    with within(5.0):
        await asyncio.sleep(0)
    clock.advance(10.0)
    await asyncio.sleep(0)
    assert clock.pending == 0


async def test_an_error_of_its_own_is_told(clock) -> None:
    with pytest.raises(ValueError, match="mine"), within(5.0):
        raise ValueError("mine")


async def test_a_loop_has_its_own() -> None:
    assert deadlines() is deadlines()
    other = await asyncio.to_thread(asyncio.run, own())
    assert other is not deadlines()


async def own() -> Deadlines:
    return deadlines()

"""The event loop's lag is what a timer is late by."""

import asyncio

import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.loop_lag import INTERVAL_S, LoopLag


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=100.0)


@pytest.fixture
def seen() -> list[float]:
    return []


@pytest.fixture
def lag(clock, seen) -> LoopLag:
    return LoopLag(clock, seen.append)


def test_a_loop_that_is_free_is_not_late(lag, clock, seen) -> None:
    lag.start()
    for _ in range(3):
        clock.advance(INTERVAL_S)
    assert seen == [0, 0, 0]


def test_what_holds_the_loop_up_is_seen_and_forgotten(lag, clock, seen) -> None:
    """The next look is an interval after the late one: nobody pays for one hold-up twice."""
    lag.start()
    clock.advance(INTERVAL_S + 0.25)
    clock.advance(INTERVAL_S)
    assert seen == [0.25, 0]


def test_a_timer_that_fires_early_is_not_late(clock, seen) -> None:
    """A clock may be finer than the loop's timers."""

    class Coarse(ManualClock):
        def call_later(self, seconds, callback):
            return super().call_later(seconds - 0.125, callback)

    coarse = Coarse()
    LoopLag(coarse, seen.append).start()
    coarse.advance(INTERVAL_S - 0.125)
    assert seen == [0]


def test_it_ends_when_it_is_told_to(lag, clock, seen) -> None:
    lag.stop()
    lag.start()
    lag.stop()
    lag.stop()
    clock.advance(10)
    assert seen == []
    assert clock.pending == 0


def test_a_real_loop_is_late_by_what_ran_on_it() -> None:
    """On a loop whose time is ours: the time that its work takes is what a timer is late by."""
    seen: list[float] = []
    loop = asyncio.new_event_loop()
    moment = 0.0
    loop.time = lambda: moment  # type: ignore[method-assign]

    class LoopClock:
        def now(self) -> float:
            return loop.time()

        def call_later(self, seconds, callback):
            return loop.call_later(seconds, callback).cancel

    def work(until: float) -> None:
        nonlocal moment
        moment = until

    async def run() -> None:
        lag = LoopLag(LoopClock(), seen.append)
        lag.start()
        work(until=INTERVAL_S + 0.375)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        lag.stop()

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    assert seen == [0.375]

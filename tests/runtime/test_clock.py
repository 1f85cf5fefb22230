import asyncio

from tinkex_proxy.runtime.clock import ManualClock, MonotonicClock


async def test_manual_time_moves_only_when_told() -> None:
    clock = ManualClock(5.0)
    happened: list[str] = []
    clock.call_later(2, lambda: happened.append("second"))
    clock.call_later(1, lambda: happened.append("first"))
    call_off = clock.call_later(1, lambda: happened.append("never"))
    call_off()
    clock.advance(0.5)
    assert happened == []
    clock.advance(1.5)
    assert (happened, clock.now()) == (["first", "second"], 7.0)


async def test_a_manual_sleeper_wakes_and_a_cancelled_one_leaves_nothing() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(3))
    other = asyncio.create_task(clock.sleep(3))
    await asyncio.sleep(0)
    assert clock.pending == 2
    other.cancel()
    await asyncio.sleep(0)
    assert clock.pending == 1
    clock.advance(3)
    await sleeper
    assert clock.pending == 0


async def test_monotonic_clock_sleeps_and_calls_later() -> None:
    clock = MonotonicClock()
    began = clock.now()
    called = asyncio.Event()
    clock.call_later(0, called.set)
    await called.wait()
    await clock.sleep(0)
    assert clock.now() >= began

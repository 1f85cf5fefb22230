"""Submits of a throttled key wait in line; nothing else does."""

import asyncio

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.pace import Pace


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_waits_while_nothing_is_refused() -> None:
    pace = Pace(ManualClock(10.0), most=2)
    assert await pace.go() == 10.0
    pace.ended(10.0, 200, wait_s=None)
    assert pace.snapshot() == {
        "submits_out": 0,
        "submits_limit": 2,
        "submits_waiting": 0,
        "held_back_s": 0.0,
        "held_back_reason": None,
    }


async def test_after_a_429_all_wait_and_go_in_their_order() -> None:
    clock = ManualClock(10.0)
    pace = Pace(clock, most=10)
    sent_at = await pace.go()
    pace.ended(sent_at, 429, wait_s=5)
    gone: list[str] = []

    async def submit(name: str) -> None:
        sent = await pace.go()
        gone.append(name)
        await asyncio.sleep(0)
        pace.ended(sent, 200, wait_s=None)

    waiting = [asyncio.create_task(submit(name)) for name in "abc"]
    await turns()
    assert gone == []
    assert pace.held_back() == (5.0, "the upstream answered 429")
    clock.advance(5)
    await asyncio.gather(*waiting)
    assert gone == ["a", "b", "c"]
    assert pace.held_back() is None


async def test_a_refusal_that_names_no_time_means_a_second() -> None:
    clock = ManualClock(10.0)
    pace = Pace(clock, most=10)
    pace.ended(await pace.go(), 402, wait_s=None)
    assert pace.held_back() == (1.0, "the upstream answered 402")


async def test_no_more_are_out_than_may_be_and_who_waits_goes_when_one_ends() -> None:
    pace = Pace(ManualClock(10.0), most=1)
    first = await pace.go()
    waiting = asyncio.create_task(pace.go())
    await turns()
    assert not waiting.done()
    pace.ended(first, None, wait_s=None)
    assert await waiting == 10.0
    assert pace.snapshot()["submits_out"] == 1


async def test_who_gives_up_waiting_leaves_the_line_to_the_next() -> None:
    clock = ManualClock(10.0)
    pace = Pace(clock, most=1)
    first = await pace.go()
    leaving, staying = asyncio.create_task(pace.go()), asyncio.create_task(pace.go())
    await turns()
    leaving.cancel()
    await turns()
    pace.ended(first, 500, wait_s=None)
    assert await staying == 10.0


async def test_what_others_hear_counts_too() -> None:
    """An SDK's own request under the same key was refused."""
    clock = ManualClock(10.0)
    pace = Pace(clock, most=10)
    pace.heard(10.0, 429, wait_s=3)
    assert pace.held_back() == (3.0, "the upstream answered 429")
    assert pace.snapshot()["submits_out"] == 0


async def finished(pace: Pace, status: int = 200) -> None:
    """One submit that is out is answered."""
    pace.ended(0.0, status, wait_s=None)
    await turns()


async def test_a_lanes_step_does_not_wait_for_two_thousand_samples() -> None:
    """All that are out belong to one rollout, and so does all that waits, but for one step."""
    pace = Pace(ManualClock(10.0), most=1)
    await pace.go("sampler")
    gone: list[str] = []

    async def submit(flow: str) -> None:
        await pace.go(flow)
        gone.append(flow)

    waiting = [asyncio.create_task(submit("sampler")) for _ in range(2000)]
    await turns()
    waiting += [asyncio.create_task(submit(lane)) for lane in ("lane 1", "lane 2")]
    await turns()
    assert pace.snapshot()["submits_waiting"] == 2002
    for _ in range(4):
        await finished(pace)
    assert gone == ["sampler", "lane 1", "lane 2", "sampler"]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert pace.snapshot()["submits_waiting"] == 0


async def test_a_wait_that_is_prolonged_is_waited_out() -> None:
    clock = ManualClock(10.0)
    pace = Pace(clock, most=5)
    pace.heard(10.0, 429, wait_s=5)
    waiting = asyncio.create_task(pace.go())
    await turns()
    clock.advance(4)
    pace.heard(14.0, 429, wait_s=5)
    clock.advance(4.9)
    await turns()
    assert not waiting.done()
    clock.advance(0.1)
    assert await waiting == 19.0
    assert clock.pending == 0


async def test_giving_up_in_the_moment_of_ones_turn_passes_it_on() -> None:
    """The turn is given and its owner cancelled before he has seen it: nobody's place is lost."""
    pace = Pace(ManualClock(10.0), most=1)
    first = await pace.go()
    leaving, staying = asyncio.create_task(pace.go()), asyncio.create_task(pace.go())
    await turns()
    pace.ended(first, 200, wait_s=None)
    leaving.cancel()
    assert await staying == 10.0
    assert leaving.cancelled()
    assert pace.snapshot()["submits_out"] == 1


async def test_giving_up_in_the_moment_before_ones_turn_leaves_it_to_the_next() -> None:
    """Cancelled, and not run since: still in line when the turn is given."""
    pace = Pace(ManualClock(10.0), most=1)
    first = await pace.go()
    leaving, staying = asyncio.create_task(pace.go()), asyncio.create_task(pace.go())
    await turns()
    leaving.cancel()
    pace.ended(first, 200, wait_s=None)
    assert await staying == 10.0
    assert leaving.cancelled()
    assert pace.snapshot() == {
        "submits_out": 1,
        "submits_limit": 1,
        "submits_waiting": 0,
        "held_back_s": 0.0,
        "held_back_reason": None,
    }


async def test_leave_that_nobody_used_is_given_back() -> None:
    pace = Pace(ManualClock(10.0), most=1)
    async with pace.leave("lane") as leave:
        other = asyncio.create_task(pace.go("other"))
        await turns()
        assert not other.done()
    assert await other == 10.0
    assert leave.use() is None


async def test_leave_holds_for_one_submit() -> None:
    pace = Pace(ManualClock(10.0), most=1)
    async with pace.leave("lane") as leave:
        assert leave.use() == 10.0
        assert leave.use() is None
    assert pace.snapshot()["submits_out"] == 1

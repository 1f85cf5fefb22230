"""Calls of one key reach their lanes in the order in which they came."""

import asyncio

import pytest

from tinkex_proxy.runtime.turns import Turns


@pytest.fixture
async def turns() -> Turns:
    return Turns()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_where_nothing_large_is_under_way_there_is_no_turn(turns) -> None:
    assert turns.take() is None
    await turns.pass_by()
    assert len(turns) == 0


async def test_what_came_later_goes_later(turns) -> None:
    """Whoever waits holds up those behind it, small as it may be."""
    order = []
    large, small = turns.take(large=True), turns.take()

    async def go(name, turn) -> None:
        await turn.come()
        order.append(name)
        turn.leave()

    waiting = asyncio.create_task(go("small", small))
    passing = asyncio.create_task(turns.pass_by())
    await settle()
    assert not waiting.done()
    assert not passing.done()
    large.leave()
    late = turns.take()
    assert late is not None, "the small one has not gone yet"
    await go("late", late)
    assert order == ["small", "late"]
    await passing
    assert len(turns) == 0


async def test_one_that_ends_early_lets_nobody_past_those_before_it(turns) -> None:
    first, second, third = (turns.take(large=True) for _ in range(3))
    second.leave()
    waiting = asyncio.create_task(third.come())
    await settle()
    assert not waiting.done()
    first.leave()
    await waiting


async def test_a_turn_can_be_left_twice(turns) -> None:
    turn = turns.take(large=True)
    turn.leave()
    turn.leave()
    assert len(turns) == 0


async def test_who_gives_up_waiting_is_waited_for_no_more(turns) -> None:
    turns.take(large=True)
    passing = asyncio.create_task(turns.pass_by())
    await settle()
    assert len(turns) == 2
    passing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await passing
    assert len(turns) == 1

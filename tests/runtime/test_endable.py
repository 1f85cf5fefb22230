"""Ending from outside what a task waits for."""

import asyncio
import gc
from contextlib import suppress
from weakref import ref

import pytest

from tinkex_proxy.runtime.endable import Endable


async def waiting(endable: Endable) -> None:
    with endable:
        await asyncio.Event().wait()


async def test_the_first_reason_is_raised() -> None:
    endable = Endable()
    task = asyncio.create_task(waiting(endable))
    await asyncio.sleep(0)
    endable.end(ValueError("first"))
    endable.end(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        await task
    assert task.cancelling() == 0


async def test_an_end_that_comes_too_late_ends_nothing() -> None:
    endable = Endable()
    with endable:
        pass
    endable.end(ValueError("late"))
    await asyncio.sleep(0)


async def test_an_end_of_the_task_itself_stays_one() -> None:
    endable = Endable()
    task = asyncio.create_task(waiting(endable))
    await asyncio.sleep(0)
    endable.end(ValueError("mine"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_may_stand_in_another() -> None:
    outer, inner = Endable(), Endable()

    async def both() -> None:
        with outer:
            await waiting(inner)

    task = asyncio.create_task(both())
    await asyncio.sleep(0)
    outer.end(ValueError("outer"))
    with pytest.raises(ValueError, match="outer"):
        await task


async def test_what_was_ended_is_held_by_nothing() -> None:
    """Its reason has a traceback, which has the frames that it went through, which have it."""

    class Seen(Endable):  # with a place for references that do not hold it
        pass

    async def ended() -> "ref[Seen]":
        endable = Seen()
        asyncio.get_running_loop().call_soon(endable.end, ValueError("why"))
        with suppress(ValueError):
            await waiting(endable)
        return ref(endable)

    gc.disable()
    try:
        gone = await ended()
        await asyncio.sleep(0)  # for the loop to have let go of its callback
        assert gone() is None
    finally:
        gc.enable()

"""Who watches whether there is still somebody to answer."""

import asyncio

import pytest

from tinkex_proxy.api import watch
from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.api.watch import Released, Watch


class Caller:
    """Gives what is left of a body, and hangs up when told to."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()
        self.asked = asyncio.Event()
        self._rest = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive(self) -> dict[str, object]:
        self.asked.set()
        if self._rest:
            return self._rest.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
def caller() -> Caller:
    return Caller()


async def watched(watch: Watch) -> None:
    with watch:
        await asyncio.Event().wait()


async def test_what_a_caller_who_left_waited_for_is_ended(caller) -> None:
    task = asyncio.create_task(watched(Watch(caller.receive)))
    await caller.asked.wait()
    assert not task.done()
    caller.leaves.set()
    with pytest.raises(CallerLeft):
        await task
    assert task.cancelling() == 0


async def test_a_quick_answer_is_not_watched(caller) -> None:
    with Watch(caller.receive):
        await asyncio.sleep(0)
    assert not caller.asked.is_set()


async def test_our_own_end_ends_what_has_not_begun() -> None:
    released = asyncio.Event()
    released.set()
    with pytest.raises(Released):
        await watched(Watch(None, released))


async def test_what_has_begun_is_finished(caller) -> None:
    """Until its caller leaves."""
    released = asyncio.Event()
    released.set()
    task = asyncio.create_task(watched(Watch(caller.receive, released, lambda: True)))
    await caller.asked.wait()
    caller.leaves.set()
    with pytest.raises(CallerLeft):
        await task


async def test_the_first_reason_counts(caller) -> None:
    released = asyncio.Event()
    caller.leaves.set()
    released.set()
    with pytest.raises((CallerLeft, Released)):
        await watched(Watch(caller.receive, released))


async def test_an_end_from_outside_stays_one(caller) -> None:
    task = asyncio.create_task(watched(Watch(caller.receive)))
    await caller.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_an_end_from_outside(caller) -> None:
    """Who ends the task wants it to end, whoever else has left."""
    task = asyncio.create_task(watched(Watch(caller.receive)))
    await caller.asked.wait()
    caller.leaves.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_its_own_is_told(caller) -> None:
    with pytest.raises(ValueError, match="mine"), Watch(caller.receive):
        raise ValueError("mine")


async def test_who_leaves_in_the_moment_of_the_answer_ends_nothing_after_it(
    caller, monkeypatch
) -> None:
    """The watcher has ended, and has not said so yet."""
    monkeypatch.setattr(watch, "AFTER_S", 0)
    answer = asyncio.get_running_loop().create_future()

    async def answered() -> str:
        with Watch(caller.receive):
            await answer
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "whole"

    task = asyncio.create_task(answered())
    await caller.asked.wait()
    await asyncio.sleep(0)
    caller.leaves.set()
    answer.set_result(None)
    assert await task == "whole"
    assert task.cancelling() == 0

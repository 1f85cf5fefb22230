"""Who watches whether there is still somebody to answer."""

import asyncio
from collections.abc import Callable

import pytest

from tinkex_proxy.api.asgi import LEAVING, CallerLeft
from tinkex_proxy.api.watch import Released, Until, Watch, leaving_of
from tinkex_proxy.runtime.drain import Release


class Caller:
    """Hangs up when told to, if somebody wants to hear of it."""

    def __init__(self) -> None:
        self.hangs_up: Callable[[], None] | None = None

    def leaving(self, on_left: Callable[[], None]) -> Callable[[], None]:
        self.hangs_up = on_left
        return self.forget

    def forget(self) -> None:
        self.hangs_up = None


@pytest.fixture
def caller() -> Caller:
    return Caller()


async def watched(watch: Watch) -> None:
    with watch:
        await asyncio.Event().wait()


async def started(watch: Watch) -> asyncio.Task[None]:
    """A task that waits within, and will."""
    task = asyncio.create_task(watched(watch))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_what_a_caller_who_left_waited_for_is_ended(caller) -> None:
    task = await started(Watch(caller.leaving))
    caller.hangs_up()
    with pytest.raises(CallerLeft):
        await task
    assert task.cancelling() == 0


async def test_what_is_over_is_not_watched(caller) -> None:
    release = Release()
    with Watch(caller.leaving, release):
        assert caller.hangs_up is not None
    assert caller.hangs_up is None
    release.set()
    await asyncio.sleep(0)


@pytest.mark.parametrize("soon", [True, False])
async def test_our_own_end_ends_what_has_not_begun(soon: bool) -> None:
    release = Release()
    if not soon:
        release.set()
    task = asyncio.create_task(watched(Watch(None, release)))
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(Released):
        await task


async def test_what_has_begun_is_finished(caller) -> None:
    """Until its caller leaves."""
    release = Release()
    task = await started(Watch(caller.leaving, release, lambda: True))
    release.set()
    await asyncio.sleep(0)
    assert not task.done()
    caller.hangs_up()
    with pytest.raises(CallerLeft):
        await task


async def test_the_first_reason_counts(caller) -> None:
    release = Release()
    task = await started(Watch(caller.leaving, release))
    caller.hangs_up()
    release.set()
    with pytest.raises(CallerLeft):
        await task


async def test_an_end_from_outside_stays_one(caller) -> None:
    task = await started(Watch(caller.leaving))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_an_end_from_outside(caller) -> None:
    """Who ends the task wants it to end, whoever else has left."""
    task = await started(Watch(caller.leaving))
    caller.hangs_up()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_its_own_is_told(caller) -> None:
    with pytest.raises(ValueError, match="mine"), Watch(caller.leaving):
        raise ValueError("mine")


async def test_what_is_told_after_the_end_ends_nothing(caller) -> None:
    """Where the server had it on its list already."""
    with Watch(caller.leaving):
        hangs_up = caller.hangs_up
    hangs_up()
    await asyncio.sleep(0)


async def test_a_server_that_does_not_tell_is_asked() -> None:
    rest = [{"type": "http.request", "body": b"", "more_body": False}]
    leaves = asyncio.Event()

    async def receive() -> dict[str, object]:
        if rest:
            return rest.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    for scope in ({}, {"extensions": None}, {"extensions": {}}):
        leaves.clear()
        with pytest.raises(CallerLeft), Watch(leaving_of(scope, receive)):  # noqa: PT012
            asyncio.get_running_loop().call_soon(leaves.set)
            await asyncio.Event().wait()
    with Watch(leaving_of({}, receive)):
        await asyncio.sleep(0)
    leaves.set()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


def test_a_server_that_tells_is_not_asked(caller) -> None:
    assert leaving_of({"extensions": {LEAVING: caller.leaving}}, None) == caller.leaving


async def until(caller: Caller, *wait: object) -> bool:
    """Wait so; whether the caller has left."""
    with Until(*wait) as end:
        await end.came
    assert caller.hangs_up is None
    return end.left


@pytest.mark.parametrize("fails", [True, False])
async def test_a_wait_ends_with_what_is_awaited(caller, fails: bool) -> None:
    """Whichever way; how is another's business."""
    awaited = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(until(caller, awaited, caller.leaving, 60.0, Release()))
    await asyncio.sleep(0)
    if fails:
        awaited.set_exception(ValueError)
        assert isinstance(awaited.exception(), ValueError)
    else:
        awaited.cancel()
    assert await waiting is False


async def test_a_wait_ends_with_its_caller_with_us_and_with_the_time(caller) -> None:
    awaited = asyncio.get_running_loop().create_future()
    leaving, release = caller.leaving, Release()
    assert await until(caller, awaited, leaving, 0.001) is False
    gone = asyncio.create_task(until(caller, awaited, leaving, None))
    await asyncio.sleep(0)
    caller.hangs_up()
    assert await gone is True
    held = asyncio.create_task(until(caller, awaited, leaving, 60.0, release))
    await asyncio.sleep(0)
    release.set()
    assert await held is False
    assert await until(caller, awaited, leaving, 60.0, release) is False
    assert not awaited.done()

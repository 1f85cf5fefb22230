"""A call in its caller's own task: what becomes of it when the caller leaves, or we do."""

import asyncio

import pytest

from tests.api.test_callers import Ticket, forever
from tinkex_proxy.api.accompany import accompany
from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.errors import OutcomeUnknown
from tinkex_proxy.runtime.ledger import Answer, Entry


class Ledger:
    """Notes what calls have come to."""

    def __init__(self) -> None:
        self.over_with: list[Answer | None] = []

    def over(self, _: Entry, answer: Answer | None) -> None:
        self.over_with.append(answer)


class Accompanied:
    """A call that is accompanied, and its caller."""

    def __init__(self, work, *, gives: bool) -> None:
        self.entry, self.ledger = Entry("e", "me", 1, None, b""), Ledger()
        self.ticket = Ticket(gives=gives)
        self.told: list[str] = []
        self.leave = None
        self.task = asyncio.create_task(self._run(work))

    def _leaving(self, on_left):
        self.leave = on_left
        return lambda: self.told.append("stays no more")

    async def _run(self, work) -> Answer:
        return await accompany(
            self.entry,
            self.ticket,
            self._leaving,
            self.ledger,
            work,
            on_left=lambda: self.told.append("left"),
        )

    async def begun(self) -> None:
        while self.leave is None:
            await asyncio.sleep(0)


async def test_the_answer_comes_to_who_stays() -> None:
    async def work() -> Answer:
        return Answer(200, b"x")

    call = Accompanied(work(), gives=True)
    assert (await call.task).body == b"x"
    assert (call.ledger.over_with, call.told) == ([Answer(200, b"x")], ["stays no more"])
    assert (call.ticket.asked, call.entry.end) == (0, None)


async def test_a_caller_that_leaves_in_time_takes_its_work_along() -> None:
    call = Accompanied(forever(), gives=True)
    await call.begun()
    call.leave()
    assert call.told == ["left"], "who listens is told at once"
    with pytest.raises(CallerLeft):
        await call.task
    assert (call.entry.withdrawn, call.entry.wanted) == (True, False)
    assert call.ledger.over_with == [None]


@pytest.mark.parametrize(("gives", "waiters"), [(False, 0), (True, 1)])
async def test_what_has_left_or_somebody_else_waits_for_goes_on(gives: bool, waiters: int) -> None:
    release = asyncio.Event()

    async def work() -> Answer:
        await release.wait()
        return Answer(200, b"x")

    call = Accompanied(work(), gives=gives)
    call.entry.waiters = waiters
    await call.begun()
    call.leave()
    assert call.ticket.asked == int(waiters == 0)
    release.set()
    with pytest.raises(CallerLeft):
        await call.task
    assert (call.entry.wanted, call.ledger.over_with) == (True, [Answer(200, b"x")])


async def test_a_call_that_our_own_end_cut_off_may_have_run() -> None:
    call = Accompanied(forever(), gives=True)
    await call.begun()
    call.entry.end()
    with pytest.raises(OutcomeUnknown, match="may have run"):
        await call.task
    assert (call.ledger.over_with, call.ticket.asked) == ([None], 0)


async def test_who_has_left_already_is_told_nothing_when_we_end() -> None:
    call = Accompanied(forever(), gives=False)
    await call.begun()
    call.leave()
    call.entry.end()
    with pytest.raises(CallerLeft):
        await call.task
    assert call.ledger.over_with == [None]


async def test_where_what_was_waited_for_is_cut_off_so_is_the_call() -> None:
    async def work() -> Answer:
        raise asyncio.CancelledError

    call = Accompanied(work(), gives=True)
    with pytest.raises(OutcomeUnknown, match="may have run"):
        await call.task
    assert call.ledger.over_with == [None]


async def test_who_ends_the_task_ends_the_call() -> None:
    call = Accompanied(forever(), gives=True)
    await call.begun()
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert call.ledger.over_with == [None]

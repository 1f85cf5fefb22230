"""A call in its caller's own task: where nobody but that caller can come for its answer.

A call that may outlast its connection has a task of its own, and its caller's task waits for it
(`callers.wait_for`). Without an `Idempotency-Key`, a promise or a deadline it has no need of that
second task, unless its caller leaves early; and hardly any does. If one does, what has not left is
taken back, and what has goes on to its end, in the task that there is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self

from typing_extensions import override

from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.api.callers import cut_off_error
from tinkex_proxy.api.watch import Leaving
from tinkex_proxy.runtime.endable import Endable, is_cancelled
from tinkex_proxy.runtime.ledger import Answer, Entry, Ledger
from tinkex_proxy.runtime.trainer import Ticket

__all__ = ["accompany"]


async def accompany(
    entry: Entry,
    ticket: Ticket,
    leaving: Leaving,
    ledger: Ledger,
    work: Coroutine[object, object, Answer],
    *,
    on_left: Callable[[], None],
) -> Answer:
    """Do a call for the caller whose task this is.

    Args:
        entry: the call, which the ledger has as one without a task of its own.
        ticket: takes its work back if the caller leaves early.
        leaving: tells when the caller hangs up.
        ledger: is told what it has come to.
        work: does it.
        on_left: told at once when the caller hangs up.

    Raises:
        CallerLeft: the caller hung up; nothing runs any more.
        OutcomeUnknown: the call was ended by our own end, wherever it was.
    """
    answer: Answer | None = None
    try:
        with _Alone(entry, ticket, leaving, on_left) as alone:
            answer = await work
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise cut_off_error() from None  # something that it waited for was
    finally:
        ledger.over(entry, answer)
    if alone.left:
        raise CallerLeft
    return answer


class _Alone(Endable):
    """As a context, lets a call end with its caller, or with us.

    Attributes:
        left: whether the caller has hung up.
    """

    __slots__ = ("_entry", "_leaving", "_on_left", "_stays", "_ticket", "left")

    def __init__(
        self, entry: Entry, ticket: Ticket, leaving: Leaving, on_left: Callable[[], None]
    ) -> None:
        super().__init__()
        self._entry = entry
        self._ticket = ticket
        self._leaving = leaving
        self._on_left = on_left
        self.left = False

    @override
    def __enter__(self) -> Self:
        """It begins."""
        self._entry.end = self._cut_off
        self._stays = self._leaving(self._leave)
        return super().__enter__()

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It has ended."""
        self._stays()
        self._entry.end = None
        super().__exit__(kind, error, trace)

    def _leave(self) -> None:
        self.left = True
        self._on_left()
        entry = self._entry
        if entry.waiters == 0 and self._ticket.withdraw():
            entry.withdrawn = True
            self.end(CallerLeft())
        else:
            entry.wanted = True

    def _cut_off(self) -> None:
        self.end(CallerLeft() if self.left else cut_off_error())

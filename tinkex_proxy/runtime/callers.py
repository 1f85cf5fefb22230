"""The SDKs that train one model, each with a count of its own.

An SDK numbers its calls to a model from 1 and expects them to run in that order. The upstream's
numbers are the lane's, so an SDK's tell two things only: the order among its own calls, and which
call is a repetition. Several SDKs on one model each count from 1, so they have to say who they are
(`X-Tinkex-Caller`); those that do not are taken for one.

A number may never come: its SDK was refused it, and gave up. Nobody waits for it longer than that
SDK would have tried.

The journal knows each count as far as it has left for the upstream. What came after that was not
promised to anybody, or is in the journal as a promised call: either way it comes again.
"""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from tinkex_proxy.core.inorder import InOrder
from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.records import CallerRecord, deleted, written
from tinkex_proxy.runtime.store import Change
from tinkex_proxy.runtime.work import Call, Origin, Work

__all__ = ["Callers", "Placed"]

# The first number that SDKs count a model's calls with; `create_model` has 0.
FIRST = 1
# An SDK gives up a submit after 300 s; what has not come by then never will.
GAP_S = 330.0
# Names come from callers, so there has to be a bound; a model has a few workers.
MAX_CALLERS = 1000


class Placed(msgspec.Struct, frozen=True):
    """A call that was taken on.

    Attributes:
        call: the call.
        waits: whether something that its caller counted before it has not come yet.
    """

    call: Call
    waits: bool


class Callers:
    """All SDK callers of one model.

    Args:
        make: makes a call of some work.
        enqueue: puts calls on the lane.
        later: calls something after so many seconds.
        book: its key's part of the journal.
        model_id: the model.
    """

    def __init__(
        self,
        make: Callable[[Work, Origin | None], Call],
        enqueue: Callable[[Sequence[Call]], None],
        later: Callable[[float, Callable[[], object]], object],
        *,
        book: Book,
        model_id: str,
    ) -> None:
        self._make = make
        self._enqueue = enqueue
        self._later = later
        self._book = book
        self._model_id = model_id
        self._left: dict[str, int] = {}
        self._watched: set[str] = set()
        self._orders: dict[str, InOrder[Call]] = {}

    @property
    def waiting(self) -> int:
        """Calls that wait for one that their caller counted before them."""
        return sum(order.held for order in self._orders.values()) if self._orders else 0

    def expected(self, caller: str) -> int:
        """The number that a caller's waiting calls wait for."""
        return self._orders[caller].expected if caller in self._orders else FIRST

    def awaits(self, caller: str, number: int | None) -> bool:
        """Whether calls that were taken on wait for the one of this number."""
        order = self._orders.get(caller)
        return order is not None and order.held > 0 and order.expected == number

    def taken(self, caller: str, number: int) -> bool:
        """Whether a call of this number came before and still stands."""
        return caller in self._orders and self._orders[caller].taken(number)

    def place(
        self, caller: str, number: int | None, work: Work, origin: Origin | None = None
    ) -> Placed:
        """Take a call on: onto the lane if it is its turn, with those that waited for it.

        Args:
            caller: who calls.
            number: its place in the caller's count, not `taken`; None where it does not count.
            work: what is asked.
            origin: the SDK's call, if its SDK may come for it again.

        Raises:
            InvalidRequest: there are too many names.
            ModelGone: the model is no more.
        """
        if number is None:
            call = self._make(work, origin)
            self._enqueue([call])
            return Placed(call, waits=False)
        order = self._order(caller)
        call = self._make(work, origin)
        ready = order.arrive(number, call)
        self._let_go(ready)
        if not ready:
            self._watch(caller, order.expected)
        return Placed(call, waits=not ready)

    def skip(self, caller: str, number: int) -> None:
        """Let no call of a caller wait for one that was refused before it was taken on.

        Raises:
            InvalidRequest: there are too many names.
        """
        self._let_go(self._order(caller).skip(number))

    def give_back(self, caller: str, number: int | None) -> None:
        """Let a number come once more: its call came to nothing."""
        if number is not None and caller in self._orders:
            self._orders[caller].reopen(number)
            if number < self._left.get(caller, FIRST):
                self._book.journal.note(written(self._record(caller)))

    def leaving(self, caller: str, number: int | None) -> list[Change]:
        """What has to be written before a number leaves for the upstream."""
        if number is None:
            return []
        self._left[caller] = max(self._left.get(caller, FIRST), number + 1)
        return [written(self._record(caller))]

    def restore(self, record: CallerRecord) -> None:
        """Go on with a count of an earlier run."""
        self._orders[record.caller] = InOrder(record.expected, record.reopened)
        self._left[record.caller] = record.expected

    def close(self) -> None:
        """Forget the counts: the model is no more."""
        self._book.journal.note(*(deleted(self._record(caller)) for caller in self._left))
        self._left.clear()

    def _record(self, caller: str) -> CallerRecord:
        left = self._left[caller]
        reopened = tuple(self._orders[caller].reopened(left))
        return CallerRecord(self._book.owner, self._model_id, caller, left, reopened)

    def _let_go(self, ready: Sequence[Call]) -> None:
        """Put on the lane what has not failed meanwhile."""
        alive = [call for call in ready if not call.answer.done()]
        if alive:
            self._enqueue(alive)

    def _watch(self, caller: str, number: int) -> None:
        if caller not in self._watched:
            self._watched.add(caller)
            self._later(GAP_S, partial(self._overdue, caller, number))

    def _overdue(self, caller: str, number: int) -> None:
        """Stop waiting for a number that has not come in all that time."""
        self._watched.discard(caller)
        order = self._orders[caller]
        if order.held and order.expected == number:
            self._let_go(order.skip(number))
        if order.held:
            self._watch(caller, order.expected)

    def _order(self, caller: str) -> InOrder[Call]:
        order = self._orders.get(caller)
        if order is None:
            if len(self._orders) >= MAX_CALLERS:
                raise InvalidRequest(
                    f"This model has {MAX_CALLERS} callers already; X-Tinkex-Caller names a "
                    "process, so use one name for all of its calls."
                )
            order = self._orders[caller] = InOrder(FIRST)
        return order

"""The SDKs that train one model, each with a count of its own.

An SDK numbers its calls to a model from 1 and expects them to run in that order. The upstream's
numbers are the lane's, so an SDK's tell two things only: the order among its own calls, and which
call is a repetition. Several SDKs on one model each count from 1, so they have to say who they are
(`X-Tinkex-Caller`); those that do not are taken for one.

A number may never come: its SDK was refused it, and gave up. Nobody waits for it longer than that
SDK would have tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tinkex_proxy.core.inorder import InOrder
from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.runtime.work import Call, Work

__all__ = ["Callers", "Placed"]

# The first number that SDKs count a model's calls with; `create_model` has 0.
FIRST = 1
# An SDK gives up a submit after 300 s; what has not come by then never will.
GAP_S = 330.0
# Names come from callers, so there has to be a bound; a model has a few workers.
MAX_CALLERS = 1000


@dataclass(frozen=True, slots=True)
class Placed:
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
    """

    def __init__(
        self,
        make: Callable[[Work], Call],
        enqueue: Callable[[Sequence[Call]], None],
        later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        self._make = make
        self._enqueue = enqueue
        self._later = later
        self._watched: set[str] = set()
        self._orders: dict[str, InOrder[Call]] = {}

    @property
    def waiting(self) -> int:
        """Calls that wait for one that their caller counted before them."""
        return sum(order.held for order in self._orders.values())

    def expected(self, caller: str) -> int:
        """The number that a caller's waiting calls wait for."""
        return self._orders[caller].expected if caller in self._orders else FIRST

    def taken(self, caller: str, number: int) -> bool:
        """Whether a call of this number came before and still stands."""
        return caller in self._orders and self._orders[caller].taken(number)

    def place(self, caller: str, number: int | None, work: Work) -> Placed:
        """Take a call on: onto the lane if it is its turn, with those that waited for it.

        Args:
            caller: who calls.
            number: its place in the caller's count, not `taken`; None where it does not count.
            work: what is asked.

        Raises:
            InvalidRequest: there are too many names.
            ModelGone: the model is no more.
        """
        if number is None:
            call = self._make(work)
            self._enqueue([call])
            return Placed(call, waits=False)
        order = self._order(caller)
        call = self._make(work)
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

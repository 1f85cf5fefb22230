"""One caller's own count: what may go now, and what waits for what comes before it.

An SDK numbers the calls it makes to a model and sends the pieces of one large call all at once, the
first piece last, so numbers arrive out of order while their order is what counts. `InOrder` lets a
number go once all before it have come.

A number that went and came to nothing (refused, or taken back before it left) is *reopened*: it may
come once more and goes at once, because those behind it are long gone.

`InOrder` decides; it never waits, and what it holds is its owner's to look after.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["InOrder"]

T = TypeVar("T")


class InOrder(Generic[T]):
    """Things with numbers, let go in the order of their numbers.

    Args:
        first: the number that the count begins with, or goes on with.
        reopened: numbers before it that may come once more.
    """

    def __init__(self, first: int, reopened: Iterable[int] = ()) -> None:
        self._expected = first
        self._held: dict[int, T] = {}
        self._skipped: set[int] = set()
        self._reopened: set[int] = set(reopened)

    @property
    def expected(self) -> int:
        """The number that all held ones wait for."""
        return self._expected

    @property
    def held(self) -> int:
        """How many wait."""
        return len(self._held)

    def reopened(self, before: int) -> list[int]:
        """The numbers before `before` that may come once more, in order."""
        return sorted(number for number in self._reopened if number < before)

    def taken(self, number: int) -> bool:
        """Whether this number has come before and still stands for what came."""
        if number in self._held:
            return True
        return number < self._expected and number not in self._reopened

    def arrive(self, number: int, thing: T) -> list[T]:
        """Take a number that is not `taken`; give what may go now, in order."""
        if self.taken(number):
            raise ValueError(f"number {number} has come before")
        if number < self._expected:
            self._reopened.discard(number)
            return [thing]
        self._skipped.discard(number)
        self._held[number] = thing
        return self._ready()

    def skip(self, number: int) -> list[T]:
        """Let nobody wait for a number that was refused before it was taken; give what may go.

        It may still come, and goes at once then.
        """
        if number >= self._expected and number not in self._held:
            self._skipped.add(number)
        return self._ready()

    def reopen(self, number: int) -> None:
        """Let a number come once more: what came under it is gone without effect."""
        if self._held.pop(number, None) is None and number < self._expected:
            self._reopened.add(number)

    def _ready(self) -> list[T]:
        """Those whose turn it is by now."""
        ready = []
        while self._expected in self._held or self._expected in self._skipped:
            if self._expected in self._held:
                ready.append(self._held.pop(self._expected))
            else:
                self._skipped.discard(self._expected)
                self._reopened.add(self._expected)
            self._expected += 1
        return ready

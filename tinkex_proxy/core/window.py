"""Counts over the last seconds: a ring of slots, each a tenth of the window.

A slot is emptied as time passes over it, so a count is exact to a tenth of the window: what is
older than the window is always forgotten, and never more than a tenth too early. Memory is ten
slots, whatever the traffic.

Reads no clock: `now` is passed in, in seconds of a monotonic clock.
"""

import math
from typing import Final, NamedTuple

__all__ = ["Counts", "Window"]

SLOTS: Final = 10


class Counts(NamedTuple):
    """What the window holds."""

    calls: int
    failures: int
    slow: int


class Window:
    """Calls, failures and slow calls of the last `span_s` seconds."""

    def __init__(self, span_s: float) -> None:
        self._slot_s = span_s / SLOTS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._slots = [[0, 0, 0] for _ in range(SLOTS)]
        self._calls = self._failures = self._slow = 0
        self._newest = -SLOTS  # number of the newest slot since the clock's zero
        self._ends = -math.inf

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one call that ended at `now`."""
        if now >= self._ends:
            self._pass(now)
        slot = self._slots[self._newest % SLOTS]
        slot[0] += 1
        self._calls += 1
        if failed:
            slot[1] += 1
            self._failures += 1
        if slow:
            slot[2] += 1
            self._slow += 1

    def counts(self, now: float) -> Counts:
        """What happened in the window that ends at `now`."""
        if now >= self._ends:
            self._pass(now)
        return Counts(self._calls, self._failures, self._slow)

    def _pass(self, now: float) -> None:
        """Empty the slots that time has passed over since the newest one."""
        newest = int(now // self._slot_s)
        for number in range(max(self._newest + 1, newest - SLOTS + 1), newest + 1):
            slot = self._slots[number % SLOTS]
            self._calls -= slot[0]
            self._failures -= slot[1]
            self._slow -= slot[2]
            slot[:] = (0, 0, 0)
        self._newest = newest
        self._ends = (newest + 1) * self._slot_s

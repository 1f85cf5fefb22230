"""Time, as a thing that is passed in.

Everything that waits or measures asks a `Clock`, so that tests own time. `ManualClock` is the twin
that ships: its time moves only when told, and what was set for a moment happens in order.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "ManualClock", "MonotonicClock"]


class Clock(Protocol):
    """Seconds that never jump."""

    def now(self) -> float:
        """Seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Come back after `seconds`."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after `seconds`; gives a function that calls this off."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    now = staticmethod(time.monotonic)  # asked a dozen times in every call

    async def sleep(self, seconds: float) -> None:
        """Come back after `seconds`."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after `seconds`; gives a function that calls this off."""
        return asyncio.get_running_loop().call_later(seconds, callback).cancel


class ManualClock:
    """A clock for tests: `advance` moves it."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._due: list[tuple[float, int]] = []
        self._callbacks: dict[int, Callable[[], object]] = {}

    def now(self) -> float:
        """The moment it was last moved to."""
        return self._now

    @property
    def pending(self) -> int:
        """How many sleepers and callbacks wait for this clock."""
        return len(self._callbacks)

    async def sleep(self, seconds: float) -> None:
        """Come back once `advance` has moved past `seconds` from now."""
        woken = asyncio.Event()
        call_off = self.call_later(seconds, woken.set)
        try:
            await woken.wait()
        finally:
            call_off()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` once `advance` has moved past `seconds` from now."""
        number = next(self._order)
        heapq.heappush(self._due, (self._now + seconds, number))
        self._callbacks[number] = callback

        def call_off() -> None:
            self._callbacks.pop(number, None)

        return call_off

    def advance(self, seconds: float) -> None:
        """Move time on and do what is due, in order."""
        self._now += seconds
        while self._due and self._due[0][0] <= self._now:
            callback = self._callbacks.pop(heapq.heappop(self._due)[1], None)
            if callback is not None:
                callback()

"""Deadlines that hardly ever come: for calls by the thousand, at the price of one timer for all.

Every request sets some (its body has to come, its answer has to be there) and takes them back a
moment later. A timer of the event loop costs 2 us each time, `asyncio.timeout` 5. What is set here
stands in the list of the tick in which it falls, and one timer goes from tick to tick while there
is any: so it comes up to two ticks late, and never early.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self
from weakref import WeakKeyDictionary, ref

from typing_extensions import override

from tinkex_proxy.runtime.clock import Clock, MonotonicClock
from tinkex_proxy.runtime.endable import Endable

__all__ = ["SOON_S", "TICK_S", "Booked", "Deadlines", "book", "deadlines", "within"]

TICK_S: Final = 0.05
# What is sooner is not put off by a tick.
SOON_S: Final = 1.0

_Due = Callable[[], object]


class Booked(Protocol):
    """Where a deadline stands."""

    def pop(self, name: object, default: None, /) -> object:
        """Call the deadline of that name off, if it has not come."""
        ...


class Deadlines:
    """The deadlines of one event loop.

    Args:
        clock: measures, and ticks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ticks: dict[int, dict[object, _Due]] = {}
        self._ticking = False

    def book(self, seconds: float, name: object, due: _Due) -> Booked:
        """Have a function called when so many seconds are over, or up to two ticks later.

        Args:
            seconds: from now.
            name: names it; whoever sets another meanwhile uses another.
            due: is called, once.

        Returns:
            Where it stands: `pop(name, None)` calls it off.
        """
        number = int((self._clock.now() + seconds) / TICK_S) + 1
        of_tick = self._ticks.get(number)
        if of_tick is None:
            of_tick = self._ticks[number] = {}
        of_tick[name] = due
        if not self._ticking:
            self._ticking = True
            self._clock.call_later(TICK_S, self._tick)
        return of_tick

    def _tick(self) -> None:
        now = int(self._clock.now() / TICK_S)
        for number in [number for number in self._ticks if number <= now]:
            for due in list(self._ticks.pop(number).values()):
                due()
        if any(self._ticks.values()):
            self._clock.call_later(TICK_S, self._tick)
        else:
            self._ticks.clear()
            self._ticking = False


class _Timer:
    """A deadline that stands by itself."""

    __slots__ = ("_handle",)

    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self._handle = handle

    def pop(self, _: object, __: None, /) -> object:
        """Call it off."""
        self._handle.cancel()
        return None


class _Latest:
    """The deadlines of the loop that asked last: in a process that serves, of the only one."""

    loop: Callable[[], asyncio.AbstractEventLoop | None] = staticmethod(lambda: None)
    deadlines: Deadlines


_OF_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, Deadlines] = WeakKeyDictionary()


def deadlines() -> Deadlines:
    """Those of the loop that runs."""
    loop = asyncio.get_running_loop()
    if _Latest.loop() is not loop:
        if loop not in _OF_LOOPS:
            _OF_LOOPS[loop] = Deadlines(MonotonicClock())
        _Latest.loop, _Latest.deadlines = staticmethod(ref(loop)), _OF_LOOPS[loop]
    return _Latest.deadlines


def book(seconds: float, name: object, due: _Due) -> Booked:
    """Have a function called on the loop that runs, as `Deadlines.book` does.

    Args:
        seconds: from now; from a second on it may be two ticks late.
        name: names it.
        due: is called, once.
    """
    if seconds < SOON_S:
        return _Timer(asyncio.get_running_loop().call_later(seconds, due))
    return deadlines().book(seconds, name, due)


class within(Endable):  # noqa: N801 - reads as `asyncio.timeout` does
    """As a context, ends what its task waits for within when the time is over.

    Args:
        seconds: how much time there is.

    Raises:
        TimeoutError: at the end of the context, because it was over.
    """

    __slots__ = ("_booked", "_seconds")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    @override
    def __enter__(self) -> Self:
        """The time begins."""
        self._booked = book(self._seconds, self, self._late)
        return super().__enter__()

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It is not needed any more, or over."""
        self._booked.pop(self, None)
        super().__exit__(kind, error, trace)

    def _late(self) -> None:
        self.end(TimeoutError())

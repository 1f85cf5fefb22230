"""What happens, for those who follow it live: server-sent events with a bounded memory.

The feed keeps the last events and knows nothing of what its readers have got: each reader pulls
from where it is. A slow one holds nothing but itself; once it has fallen behind the memory, it is
told how many events it missed. Event ids are the run's own name and a number, so that a reader that
comes back after a restart is not taken for one that has seen what this run has not yet told.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import msgspec

from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import BreakerDropped, Event, SnapshotTaken, Transition

__all__ = ["BreakerFeed", "Feed", "SnapshotFeed"]

# A day of outages of a few breakers; some 50 kB.
KEPT_EVENTS: Final = 256
# Often enough that nobody between takes the connection for dead.
KEEP_ALIVE_S: Final = 15.0


class Feed:
    """Remembers events and tells them as server-sent events.

    Args:
        run: names this run of the program; without a dash.
        clock: what keeps idle connections alive.
        wall_clock: gives the time of day in seconds.
        kept: how many events are remembered.

    Attributes:
        readers: how many follow it now.
    """

    def __init__(
        self,
        run: str,
        *,
        clock: Clock,
        wall_clock: Callable[[], float],
        kept: int = KEPT_EVENTS,
    ) -> None:
        self._run = run
        self._clock = clock
        self._wall_clock = wall_clock
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=kept)
        self._last = 0
        self._closed = False
        self._waiting: set[asyncio.Event] = set()
        self.readers = 0

    def keep(self, name: str, data: Mapping[str, object]) -> None:
        """Remember one event and tell it to all that follow."""
        self._last += 1
        told = msgspec.json.encode({"at": self._wall_clock(), **data}).decode()
        text = f"id: {self._run}-{self._last}\nevent: {name}\ndata: {told}\n\n"
        self._kept.append((self._last, text.encode()))
        self._wake()

    def close(self) -> None:
        """End all that follow it, once they have what was told so far."""
        self._closed = True
        self._wake()

    async def follow(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        """Tell all that comes after `last_event_id`; without one, all that comes from now on.

        An id of another run is before everything that is kept.
        """
        at = self._last if last_event_id is None else self._number(last_event_id)
        self.readers += 1
        try:
            yield b": following\n\n"
            while True:
                if at < self._last:
                    text, at = self._after(at)
                    yield text
                elif self._closed:
                    return
                elif not await self._news():
                    yield b": nothing new\n\n"
        finally:
            self.readers -= 1

    def _number(self, last_event_id: str) -> int:
        run, _, number = last_event_id.partition("-")
        ours = run == self._run and number.isascii() and number.isdigit()
        return min(int(number[:20]), self._last) if ours else self._last - len(self._kept)

    def _after(self, at: int) -> tuple[bytes, int]:
        """All that is kept after `at`, in one piece, and where that ends."""
        oldest = self._kept[0][0]
        missed = oldest - at - 1
        lines = [text for number, text in self._kept if number > at]
        if missed > 0:
            lines.insert(0, f'event: missed\ndata: {{"events":{missed}}}\n\n'.encode())
        return b"".join(lines), self._last

    async def _news(self) -> bool:
        """Wait for something new, or the end; False when it is only time for a sign of life."""
        woken = asyncio.Event()
        before = self._last
        self._waiting.add(woken)
        call_off = self._clock.call_later(KEEP_ALIVE_S, woken.set)
        try:
            await woken.wait()
        finally:
            call_off()
            self._waiting.discard(woken)
        return self._closed or self._last > before

    def _wake(self) -> None:
        for woken in self._waiting:
            woken.set()


class BreakerFeed(Feed):
    """What moves: the changes of state of the circuit breakers, as they come."""

    KINDS = frozenset({BreakerDropped, Transition})

    def on_event(self, event: Event) -> None:
        """Take one record."""
        match event:
            case Transition():
                self.keep(
                    "transition",
                    {
                        "breaker": event.breaker,
                        "before": event.before.value,
                        "after": event.after.value,
                        "cause": event.cause,
                    },
                )
            case BreakerDropped():
                self.keep("dropped", {"breaker": event.breaker})
            case _:
                pass


class SnapshotFeed(Feed):
    """The metrics, in intervals."""

    KINDS = frozenset({SnapshotTaken})

    def on_event(self, event: Event) -> None:
        """Take one record."""
        if isinstance(event, SnapshotTaken):
            self.keep("snapshot", event.metrics)

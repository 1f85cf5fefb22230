"""The addresses of a host, looked up once for all who ask at the same time.

A burst of calls opens connections by the hundred. Each would look the name up by itself, in the few
threads that an event loop has for it, and where that is slow the last ones would be too late for
their time to connect.
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tinkex_proxy.runtime.clock import Clock, MonotonicClock

__all__ = ["KEPT_S", "Address", "Addresses"]

# Long enough for a burst, short enough that who moves is found again.
KEPT_S: Final = 1.0


class Address(NamedTuple):
    """Where to connect to, as the socket module has it."""

    family: int
    place: tuple[object, ...]


class Addresses:
    """Where a host is.

    Args:
        host: its name or address.
        port: of it.
        clock: says how old an answer is.
    """

    def __init__(self, host: str, port: int, clock: Clock | None = None) -> None:
        self._host = host
        self._port = port
        self._clock = clock or MonotonicClock()
        self._fixed = _numeric(host, port)
        self._asking: asyncio.Task[list[Address]] | None = None
        self._kept_until = 0.0

    async def get(self) -> Sequence[Address]:
        """In the order in which to try them.

        Raises:
            OSError: nobody knows it.
        """
        if self._fixed:
            return self._fixed
        if self._asking is None or (self._asking.done() and self._is_old(self._asking)):
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(_noted)
        return await asyncio.shield(self._asking)  # others wait for it, too

    def _is_old(self, asked: "asyncio.Task[list[Address]]") -> bool:
        failed = asked.cancelled() or asked.exception() is not None
        return failed or self._clock.now() >= self._kept_until

    async def _ask(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        self._kept_until = self._clock.now() + KEPT_S
        return _read(found)


def _numeric(host: str, port: int) -> list[Address]:
    """What an address stands for; nothing if it is a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return []
    return _read(found)


def _read(found: Iterable[tuple[int, int, int, str, tuple[object, ...]]]) -> list[Address]:
    return list(dict.fromkeys(Address(family, place) for family, *_, place in found))


def _noted(asked: "asyncio.Task[list[Address]]") -> None:
    """Look at a failure, which is told to those who asked; they may all have left."""
    if not asked.cancelled():
        asked.exception()

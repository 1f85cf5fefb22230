"""The addresses of a host, looked up once for all who ask at the same time.

A burst of calls opens connections by the hundred. Each would look the name up by itself, in the few
threads that an event loop has for it, and where that is slow the last ones would be too late for
their time to connect.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

from tinkex_proxy.runtime.clock import Clock, MonotonicClock

__all__ = ["KEPT_S", "Addresses"]

# Long enough for a burst, short enough that who moves is found again.
KEPT_S: Final = 1.0


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
        self._fixed = [host] if _is_address(host) else None
        self._asking: asyncio.Task[list[str]] | None = None
        self._kept_until = 0.0

    async def get(self) -> Sequence[str]:
        """In the order in which to try them.

        Raises:
            OSError: nobody knows it.
        """
        if self._fixed is not None:
            return self._fixed
        if self._asking is None or (self._asking.done() and self._is_old(self._asking)):
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(_noted)
        return await asyncio.shield(self._asking)  # others wait for it, too

    def _is_old(self, asked: "asyncio.Task[list[str]]") -> bool:
        failed = asked.cancelled() or asked.exception() is not None
        return failed or self._clock.now() >= self._kept_until

    async def _ask(self) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        self._kept_until = self._clock.now() + KEPT_S
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _noted(asked: "asyncio.Task[list[str]]") -> None:
    """Look at a failure, which is told to those who asked; they may all have left."""
    if not asked.cancelled():
        asked.exception()

"""The server whose connections end without cutting anybody off (`connections.py`).

It keeps nobody waiting at the door, either: libuv, below uvloop, takes one connection in each turn
of the event loop. Those that work make the turns long, so that of a burst of two thousand the last
ones were still waiting after ten seconds, while the first had hundreds of answers. So whenever one
has come, those behind it are taken too.
"""

import asyncio
import contextlib
import socket
import sys
from typing import Final

import uvicorn
from typing_extensions import override

from tinkex_proxy.api.connections import Connection, Parting
from tinkex_proxy.api.listener import ListeningServer

__all__ = ["PartingServer"]

# What ending at once may take: to close what is open, not to finish it.
AT_ONCE_S: Final = 1.0
# Connections that are taken in one turn of the event loop, which each of them makes longer.
TAKEN_AT_ONCE: Final = 128


class PartingServer(ListeningServer):
    """A server whose clients see their answers, or an end between two of them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._parting = self.server_state = Parting()
        self._listeners: list[socket.socket] = []
        self._looks = False
        self._taking: set[asyncio.Task[None]] = set()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and take connections together when they come together."""
        await super().startup(sockets)
        self._listeners = sockets or []
        for listener in self._listeners:
            listener.settimeout(0)
        self._parting.on_connection = self._look

    def _look(self) -> None:
        """One has come: see in a moment whether there are more."""
        if not self._looks:
            self._looks = True
            asyncio.get_running_loop().call_soon(self._take_more)

    def _take_more(self) -> None:
        self._looks = False
        if self.should_exit:  # the end takes them itself
            return
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for new in _untaken(listener, TAKEN_AT_ONCE):
                task = loop.create_task(self._take(new))
                self._taking.add(task)
                task.add_done_callback(self._taking.discard)

    def say_farewell(self) -> None:
        """Let every answer from now on say that it is its connection's last."""
        self._parting.farewell = True
        for connection in self._connections():
            connection.say_farewell()

    def leave(self, *, last_wait_s: float) -> None:
        """Take no more connections and end.

        Args:
            last_wait_s: how long idle connections are still listened to.
        """
        self._parting.last_wait_s = last_wait_s
        self.should_exit = True

    async def _take(self, new: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._connection, new)
        except OSError:  # it is gone already
            new.close()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; connections that the kernel has taken and we have not are answered too."""
        if self._taking:
            await asyncio.wait(self._taking)
        taken = [new for listener in sockets or [] for new in _untaken(listener)]
        for server in self.servers:
            server.close()
        for new in taken:
            await self._take(new)
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn would leave the application where it is
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AT_ONCE_S):
                    await self.lifespan.shutdown()

    def _connection(self) -> Connection:
        return Connection(self.config, self._parting, self.lifespan.state)

    def _connections(self) -> list[Connection]:
        return [one for one in self._parting.connections if isinstance(one, Connection)]


def _untaken(listener: socket.socket, most: int = sys.maxsize) -> list[socket.socket]:
    """The connections that wait in the kernel; closing the listener would reset them."""
    taken: list[socket.socket] = []
    with contextlib.suppress(OSError):  # there are none, or no more files may be opened
        while len(taken) < most:
            taken.append(listener.accept()[0])
    return taken

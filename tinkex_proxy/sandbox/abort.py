"""A uvicorn protocol whose connections an application can reset.

ASGI has no word for it: an application can only answer or fail, and a failure is answered with 500.
So the protocol puts a function into the request's `state`. It closes the socket without lingering,
which sends RST: the peer sees "connection reset", as when a process dies or a balancer gives up.
What was written before is already the kernel's and arrives.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

from starlette.types import Scope
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["AbortableProtocol", "abort_of"]

KEY: Final = "tinkex_proxy.sandbox.abort"
NO_LINGER: Final = struct.pack("ii", 1, 0)


class AbortableProtocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, and a reset for who asks."""

    @override
    def on_message_begin(self) -> None:
        """Begin a request that knows how to be reset."""
        super().on_message_begin()
        self.scope["state"][KEY] = self.abort

    def abort(self) -> None:
        """Reset the connection, unless it is closed already."""
        if self.transport.is_closing():
            return
        connection: socket.socket = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.transport.abort()


def abort_of(scope: Scope) -> Callable[[], None] | None:
    """What resets a request's connection, or None under a server that cannot."""
    found: Callable[[], None] | None = scope.get("state", {}).get(KEY)
    return found

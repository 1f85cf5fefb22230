"""`Transport` over connections of the event loop's own: for upstreams without TLS.

For what is on this machine or in this cluster, where a call may take a fraction of a millisecond.
The hosted service is asked over TLS, and in HTTP/2 where it can; that is reqwest's to do
(`transport.py`).
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, urlsplit

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.addresses import Address, Addresses
from tinkex_proxy.runtime.clock import MonotonicClock
from tinkex_proxy.runtime.deadlines import within
from tinkex_proxy.runtime.http1 import Connection, no_answer_within, request_head
from tinkex_proxy.runtime.transport import (
    HeaderPairs,
    Passed,
    Passing,
    Request,
    Response,
    TransportFault,
    decoded,
    is_ours,
)

__all__ = ["Http1Transport"]

# As many as a burst of rollouts may need at once; they cost the upstream a socket each, so that
# those that nobody needs go soon.
MAX_IDLE: Final = 2048
IDLE_S: Final = 30.0
# A peer that vanished during a long poll would not be missed before its timeout: by itself the
# kernel asks after two hours. So it is missed after a minute; reqwest asks from 15 s on, too.
_OPTIONS: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)  # not on every platform
    ),
]
# Where it stands, without asking which loop runs, which costs a system call each time.
_now: Final = MonotonicClock.now
# What stands for itself in a path, and the escapes that are there already (RFC 3986 section 3.3).
_OF_PATHS: Final = "/%:@!$&'()*+,;=~"


class Http1Transport:
    """`Transport` in HTTP/1.1 on the event loop.

    Args:
        base_url: `http`, host and path prefix of the upstream, without a trailing slash.
        connect_timeout_s: seconds to establish a connection.
    """

    def __init__(self, base_url: str, *, connect_timeout_s: float = 5.0) -> None:
        parts = urlsplit(base_url)
        self._addresses = Addresses(parts.hostname or "", parts.port or 80)
        self._named = (b"host", parts.netloc.rpartition("@")[2].encode("idna"))
        self._prefix = quote(parts.path, safe=_OF_PATHS)  # it may come with spaces
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send, and wait for the whole answer.

        Raises:
            TransportFault: no whole answer came.
        """
        headers, size = request.headers, len(request.body)
        target = self._prefix + request.path
        head = request_head(request.method, target, (self._named,), size, headers)
        connection = self._taken() or await self._connected(request.timeout_s)
        booked = connection.wait_for(request.timeout_s)
        try:
            connection.ask(head, request.body, on_head=request.on_head)
            body = await connection.whole()
            return Response(connection.status, decoded(connection.headers), body)
        finally:
            booked.pop(connection, None)
            self._left(connection, keep=headers.get("connection") != "close")

    async def relay_whole(self, passing: Passing) -> Passed:
        """Pass a request on, and give its answer when all of it is there.

        Raises:
            TransportFault: no whole answer came.
        """
        if not isinstance(passing.body, bytes):
            async with self.relay(passing) as passed:
                return Passed(passed.status, passed.headers, await passed.whole())
        head = self._head(passing.method, passing.path, passing.headers, len(passing.body))
        connection = self._taken() or await self._connected(passing.timeout_s)
        booked = connection.wait_for(passing.timeout_s)
        try:
            connection.ask(head, passing.body, bodiless=passing.method == "HEAD")
            body = await connection.whole()
            return Passed(connection.status, connection.headers, body)
        finally:
            booked.pop(connection, None)
            self._left(connection)

    @asynccontextmanager
    async def relay(self, passing: Passing) -> AsyncIterator[Passed]:
        """Pass a request on and its answer back, without reading either.

        Raises:
            TransportFault: no head of an answer came, or its body broke off.
        """
        body, headers, length = passing.body, passing.headers, None
        announced: int | None = None
        if isinstance(body, bytes):
            length = len(body)
        else:
            announced = _announced(headers)
            if announced is None:
                headers = (*headers, (b"transfer-encoding", b"chunked"))
        head = self._head(passing.method, passing.path, headers, length)
        connection = self._taken() or await self._connected(passing.timeout_s)
        bodiless = passing.method == "HEAD"
        try:
            try:
                with within(passing.timeout_s):
                    if isinstance(body, bytes):
                        connection.ask(head, body, streamed=True, bodiless=bodiless)
                    else:
                        connection.ask(head, unfinished=True, streamed=True, bodiless=bodiless)
                        await _upload(connection, body, announced)
                    await connection.answered()
            except TimeoutError:
                late = no_answer_within(passing.timeout_s)
                raise TransportFault(Fault.TIMEOUT, late) from None
            yield Passed(connection.status, connection.headers, _pieces(connection))
        finally:
            self._left(connection)

    async def close(self) -> None:
        """Close every connection; there will be no other."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in (*self._idle, *self._used):
            connection.close()
        self._idle.clear()

    def _head(self, method: str, path: str, headers: HeaderPairs, length: int | None) -> bytes:
        return request_head(method, self._prefix + path, (self._named, *headers), length)

    def _taken(self) -> Connection | None:
        """An idle connection, the one that was used last: it is the least likely to be closed."""
        while self._idle:
            connection = self._idle.pop()
            # Its end may have come already, or what would pass for the next answer. Some upstreams
            # close behind an answer without a word: the next request is often quicker than the
            # loop is to see it. Looking costs a microsecond.
            if connection.closed or connection.has_news():
                connection.close()
                continue
            self._used.add(connection)
            return connection
        return None

    async def _connected(self, timeout_s: float) -> Connection:
        seconds = min(timeout_s, self._connect_timeout_s)
        try:
            with within(seconds):
                addresses = await self._addresses.get()
            connection = await _connect(addresses, seconds)
        except TimeoutError:
            raise TransportFault(Fault.CONNECT, f"no connection within {seconds:g} s") from None
        except OSError as error:
            fault = Fault.NOT_SENT if is_ours(error) else Fault.CONNECT
            raise TransportFault(fault, _reason(error)) from None
        if self._closed:
            connection.close()
            raise TransportFault(Fault.NOT_SENT, "the connections were closed by this side")
        self._used.add(connection)
        return connection

    def _left(self, connection: Connection, *, keep: bool = True) -> None:
        """An exchange has ended, one way or another."""
        self._used.discard(connection)
        if not (keep and connection.over and connection.reusable and len(self._idle) < MAX_IDLE):
            connection.close()
            return
        connection.idle_since = _now()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody needed for long."""
        loop = asyncio.get_running_loop()
        since, idle = _now() - IDLE_S, self._idle
        self._idle = []
        for connection in idle:
            if connection.closed or connection.idle_since <= since:
                connection.close()
            else:
                self._idle.append(connection)
        self._sweeping = loop.call_later(IDLE_S, self._sweep) if self._idle else None


async def _connect(addresses: Sequence[Address], seconds: float) -> Connection:
    """Connect to the first address that answers.

    Raises:
        OSError: none does; TimeoutError if the last one has not within its time.
    """
    *others, last = addresses
    for address in others:
        with contextlib.suppress(OSError):
            return await _connect_to(address, seconds)
    return await _connect_to(last, seconds)


async def _connect_to(address: Address, seconds: float) -> Connection:
    loop = asyncio.get_running_loop()
    opened = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the name is the socket's
        for option in _OPTIONS:
            opened.setsockopt(*option)
        try:
            with within(seconds):
                await _dial(opened, address.place)
        except TimeoutError:
            # With thousands of calls at once this loop is late, and not the upstream.
            if not _is_connected(opened):
                raise
        return (await loop.create_connection(Connection, sock=opened))[1]
    except BaseException:
        opened.close()
        raise


async def _dial(opened: socket.socket, place: tuple[object, ...]) -> None:
    """Connect, and begin at once: uvloop's own way does so a few turns of the loop later.

    Raises:
        OSError: it cannot.
    """
    code = opened.connect_ex(place)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        connected = asyncio.Event()
        loop.add_writer(opened, connected.set)
        try:
            await connected.wait()
        finally:
            loop.remove_writer(opened)
        code = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _is_connected(opened: socket.socket) -> bool:
    try:
        opened.getpeername()
    except OSError:
        return False
    return True


def _announced(headers: HeaderPairs) -> int | None:
    """How long a body is said to be."""
    said = [value for name, value in headers if name == b"content-length"]
    return int(said[0]) if said else None


async def _upload(
    connection: Connection, body: AsyncIterator[bytes], announced: int | None
) -> None:
    """Send a body as it comes, as long as the upstream wants it; in chunks if it says no length.

    Raises:
        TransportFault: it is longer than it says. The rest would be taken for the next request.
    """
    left = announced
    async for piece in body:
        if left is not None:
            left -= len(piece)
            if left < 0:
                raise TransportFault(Fault.RESET, f"the body is longer than its {announced} bytes")
            connection.write(piece)
        elif piece:  # a chunk of no length would be the last
            connection.write(b"%x\r\n" % len(piece), piece, b"\r\n")
        if not await connection.drained():
            return
    if left is None:
        connection.write(b"0\r\n\r\n")
    if not left:  # else what comes next would be taken for the rest
        connection.finish()


async def _pieces(connection: Connection) -> AsyncIterator[bytes]:
    while piece := await connection.more():
        yield piece


def _reason(error: OSError) -> str:
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)  # asyncio has its own words for a refused connection

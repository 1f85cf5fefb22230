"""One connection over which HTTP/1.1 is asked, on the event loop itself.

A client in threads of its own hands every answer over to the loop's thread: the kernel wakes both,
and they want one lock. That costs a small call three times what it costs to parse its answer here
(docs/performance.md). httptools, the parser that uvicorn reads requests with, does the parsing.

One exchange at a time; the next one begins when the last one is over and left the connection
`reusable` (RFC 9112 section 9.3). Nothing is sent a second time.
"""

import asyncio
import select
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import httptools
from typing_extensions import override

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.deadlines import SOON_S, Booked, book, deadlines
from tinkex_proxy.runtime.transport import TransportFault

__all__ = ["Connection", "no_answer_within", "request_head"]

# The head of an answer that is longer is no answer: it would grow until memory ends. The parser
# keeps a field until it is whole: what comes without a piece of a body counts, too.
MAX_HEAD_BYTES: Final = 256 * 1024
# Of an answer that is passed on as it comes, as much waits for its caller.
MAX_WAITING_BYTES: Final = 256 * 1024

_CLOSED: Final = "the connection was closed before the answer was complete"
_ENDLESS: Final = f"the head of the answer is longer than {MAX_HEAD_BYTES} bytes"


class Connection(asyncio.Protocol):
    """A connection, and the answer that is coming over it.

    Attributes:
        status: of the answer; 0 until its head is there.
        headers: of the answer, as they came.
        pieces: of its body, that nobody has taken yet.
        over: whether nothing more will come: the answer is complete, or there is an `error`.
        reusable: whether another exchange may begin when this one is over.
        idle_since: the moment when the last one was.
        closed: whether the connection is, as far as is known here.
    """

    __slots__ = (
        *("_bare", "_bodiless", "_deadlines", "_glance", "_loop", "_lost", "_on_head"),
        *("_parser", "_paused", "_sending", "_streamed", "_transport", "_unread"),
        *("_until_closed", "_waiter", "closed", "error", "headers", "idle_since", "over"),
        *("pieces", "reusable", "status"),
    )

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._glance: select.poll | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._deadlines = deadlines()
        self._lost = self._paused = self.closed = False
        self.idle_since = 0.0
        self._reset()
        self.over = True

    def _reset(self) -> None:
        self.status = self._bare = self._unread = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.error: TransportFault | None = None
        self.over = self.reusable = self._sending = False
        self._streamed = self._bodiless = self._until_closed = False
        self._on_head: Callable[[], None] | None = None

    # What is asked.

    def ask(
        self,
        *parts: bytes,
        unfinished: bool = False,
        bodiless: bool = False,
        streamed: bool = False,
        on_head: Callable[[], None] | None = None,
    ) -> None:
        """Begin an exchange.

        Args:
            parts: the head of the request, and its body.
            unfinished: the body is still to be written, until `finish`.
            bodiless: the answer has no body whatever its head says (HEAD).
            streamed: wake who waits for each piece, not only at the end; what comes is held back
                while nobody takes it.
            on_head: called when the head of the answer is there.
        """
        self._reset()
        self._bodiless, self._streamed, self._on_head = bodiless, streamed, on_head
        self._sending = unfinished
        if self.closed:
            self._fail("the connection was closed before anything was sent", Fault.CONNECT)
            return
        self.write(*parts)

    def write(self, *parts: bytes) -> None:
        """Send more of a body, without waiting; nothing once the exchange is over."""
        if self.over:  # uvloop takes it ill where the connection is gone
            return
        # Empty ones stay out: uvloop takes them for the end of what is to be written.
        self._transport.writelines([part for part in parts if part])

    def finish(self) -> None:
        """Note that all of the body has been written."""
        self._sending = False

    async def drained(self) -> bool:
        """Wait until more may be written; whether it still makes sense to."""
        while self._paused and not self.status and not self.over:
            await self._woken()
        return not self.status and not self.over

    async def answered(self) -> None:
        """Wait for the head of the answer to a streamed exchange.

        Raises:
            TransportFault: it did not come.
        """
        while not self.status and not self.over:
            await self._woken()
        self._check()

    async def more(self) -> bytes:
        """The next of the body of a streamed exchange; empty at its end.

        Raises:
            TransportFault: it broke off.
        """
        while not self.pieces and not self.over:
            await self._woken()
        if self.pieces:
            piece = b"".join(self.pieces) if len(self.pieces) > 1 else self.pieces[0]
            self.pieces.clear()
            if self._unread > MAX_WAITING_BYTES and not self._lost:
                self._transport.resume_reading()
            self._unread = 0
            return piece
        self._check()
        return b""

    async def whole(self) -> bytes:
        """Wait for all of the answer; gives its body.

        Raises:
            TransportFault: it is not coming.
        """
        while not self.over:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.error is not None:
            raise self.error
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    async def _woken(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Its end.

    def wait_for(self, seconds: float) -> Booked:
        """Give up waiting when so many seconds are over; `pop(self, None)` calls that off."""
        late = partial(self.late, seconds)
        if seconds < SOON_S:
            return book(seconds, self, late)
        return self._deadlines.book(seconds, self, late)

    def late(self, seconds: float) -> None:
        """Give up waiting: the answer has not come within so many seconds."""
        self._fail(no_answer_within(seconds), Fault.TIMEOUT)

    def close(self) -> None:
        """Close it; what is under way is lost."""
        self._fail("the connection was closed by this side")

    def has_news(self) -> bool:
        """Whether something can be read: between two exchanges, that can only be its end."""
        if self._glance is None:
            self._glance = select.poll()
            descriptor = self._transport.get_extra_info("socket").fileno()
            self._glance.register(descriptor, select.POLLIN)
        return bool(self._glance.poll(0))

    def _fail(self, detail: str, fault: Fault = Fault.RESET) -> None:
        if not self.over:
            self.error = TransportFault(fault, detail)
            self.over = True
            self._wake()
        self.reusable, self.closed = False, True
        self._transport.abort()

    def _complete(self, *, reusable: bool) -> None:
        if self._unread > MAX_WAITING_BYTES and not self._lost:
            self._transport.resume_reading()  # or the end of the connection would not be seen
            self._unread = 0
        # An answer may come before its request has gone, all of it: the rest is not the next one.
        sending = self._sending or self._transport.get_write_buffer_size()
        self.over, self.reusable = True, reusable and not sending
        self._wake()

    # What asyncio tells.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = transport  # type: ignore[assignment]  # of a stream

    @override
    def eof_received(self) -> None:
        """Nothing more comes: the end of a body that has no other."""
        # It is gone only when all has been written; who reads no more may never take it.
        if self._until_closed and not self.over:
            self.closed = True
            self._complete(reusable=False)
        else:
            self._fail(_CLOSED)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._lost = True
        self._fail(str(exc) if exc is not None and str(exc) else _CLOSED)

    @override
    def data_received(self, data: bytes) -> None:
        """Some of an answer is there."""
        if self.over:  # to nothing that was asked
            self._fail("an answer came that was not asked for")
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"what came is not HTTP: {error}")
            return
        if self._bare > MAX_HEAD_BYTES and not self.over:
            self._fail(_ENDLESS)

    @override
    def pause_writing(self) -> None:
        """The peer is slower than what is written to it."""
        self._paused = True

    @override
    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        if self._streamed:
            self._wake()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """Another answer, to nothing that was asked, when one is complete."""
        if self.over:
            self._fail("an answer came that was not asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of what trails a body in chunks."""
        if not self.status:
            self.headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        """The head is there; of an interim answer (RFC 9110 section 15.2) nobody hears."""
        status = self._parser.get_status_code()
        if self.over or 100 <= status < 200:
            return
        if not 200 <= status < 600:  # RFC 9110 section 15
            self._fail(f"what came is not HTTP: there is no status {status:03}")
            return
        self.status = status
        if self._on_head is not None:
            self._on_head()
        if self._bodiless:
            self._complete(reusable=False)  # the parser waits for a body that does not come
            return
        self._until_closed = _FRAMED.isdisjoint(dict(self.headers))
        if self._streamed:
            self._wake()

    def on_body(self, body: bytes) -> None:
        """Some of the body is there."""
        if self.over:
            return
        if not self.status:
            # It has none: this may as well be the head of the answer (RFC 9112 section 6.3).
            self._fail("what came is not HTTP: a body of an interim answer")
            return
        self._bare = 0
        self.pieces.append(body)
        if not self._streamed:
            return
        before, self._unread = self._unread, self._unread + len(body)
        if before <= MAX_WAITING_BYTES < self._unread:
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """All of an answer is there."""
        if not self.status:
            self.headers = []
        elif not self.over:
            self._complete(reusable=self._parser.should_keep_alive())


_FRAMED: Final = frozenset({b"content-length", b"transfer-encoding"})


def no_answer_within(seconds: float) -> str:
    """What is said of an answer that has not come in time."""
    return f"no answer within {seconds:g} s"


def request_head(
    method: str,
    target: str,
    headers: Sequence[tuple[bytes, bytes]],
    length: int | None,
    named: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """The head of a request, up to the body.

    Args:
        method: such as POST.
        target: path and query.
        headers: besides those that say how long the body is.
        length: of the body; None if `headers` has it, or the body comes in chunks.
        named: further headers.

    Raises:
        ValueError: it would be more than one head: a line break is in something.
    """
    first = "\r\n".join([f"{method} {target} HTTP/1.1", *map(": ".join, named.items())])
    lines = [first.encode("latin-1"), *map(b": ".join, headers)]
    if length or (length == 0 and method not in _BODILESS):
        lines.append(b"content-length: %d" % length)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    breaks = len(lines) + len(named) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or " " in target:
        raise ValueError("a line break or space where HTTP has none, in a path or header")
    return head


_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})

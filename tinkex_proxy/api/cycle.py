"""One request and its answer on a connection, with a short way past ASGI's messages.

ASGI hands a body over in messages, for it may be endless, and takes an answer in two or more. Of a
small call the body has come before anybody asks for it, and the answer is there whole: what two
dozen steps of coroutines, a check of each header and two writes do can be one look and one write.
So the scope has five extensions (`scope["extensions"]`), which whoever answers may use or not:

* `tinkex.body` is called and gives the body if all of it has come, else None;
* `tinkex.answer` says that `send` takes an answer in one message of this type, with `status`,
  `headers` and `body`. Its headers say neither how long it is nor what becomes of the connection,
  and it has a body: its status and its request's method are none of those without;
* `tinkex.leaving` is called with what is to be called when the caller hangs up before its answer is
  complete, and gives what calls that off (`watch.py`);
* `tinkex.named` are the headers by name, if none comes twice, else None;
* `tinkex.caller` is a context in which the task that answers is ended when the caller hangs up, and
  raises `CallerLeft` then. It does for one reason what a `Watch` does for several, for less.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Final, Literal, TypedDict

from typing_extensions import override
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from tinkex_proxy.api.asgi import ANSWER, BODY, CALLER, LEAVING, NAMED, CallerLeft

__all__ = ["Cycle"]

# All that may stand in a head (RFC 9110 section 5.5), line breaks apart, which are counted.
_ALLOWED: Final = bytes({*range(256)} - {*range(32), 127} | {9, 10, 13})


class _Answer(TypedDict):
    type: Literal["tinkex.answer"]
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Cycle(RequestResponseCycle):
    """A request, and what it is answered.

    Attributes:
        task: what answers it.
    """

    task: asyncio.Task[None]
    _on_left: Callable[[], None] | None = None
    _calls_off: Callable[[], object]
    _ended = False

    def offer(self, named: Mapping[bytes, bytes]) -> None:
        """Say in the scope what there is besides ASGI's own.

        Args:
            named: the headers by name; of one that comes twice, either.
        """
        headers = self.scope["headers"]
        offered: dict[str, object] = {
            NAMED: named if len(named) == len(headers) else None,  # type: ignore[arg-type]
            BODY: self.body_there,
            LEAVING: self.leaving,
            CALLER: self,
        }
        if self.scope["method"] != "HEAD":
            offered[ANSWER] = {}
        self.scope["extensions"] = offered  # type: ignore[typeddict-item]  # more than ASGI's own

    def body_there(self) -> bytes | None:
        """The body, if all of it is there and nobody has taken it; it is taken then."""
        over = self.disconnected or self.response_complete
        if over or self.more_body or not self.message_event.is_set():
            return None
        self.message_event.clear()
        self.waiting_for_100_continue = False  # it did not wait to be told to send it
        if self.flow.read_paused:
            self.flow.resume_reading()
        body, self.body = bytes(self.body), bytearray()
        return body

    def leaving(self, on_left: Callable[[], None]) -> Callable[[], object]:
        """Have a function called when the caller hangs up; one at a time.

        Returns:
            What calls that off.
        """
        if self.disconnected:
            return asyncio.get_running_loop().call_soon(on_left).cancel
        if self._on_left is not None:
            raise RuntimeError("Somebody else waits for this caller to hang up.")
        self._on_left = on_left
        if self.flow.read_paused:  # its end would not be seen
            self.flow.resume_reading()
        return self._stays

    def left(self) -> None:
        """The caller has hung up."""
        self.disconnected = True
        self.message_event.set()
        if self._on_left is not None:
            on_left, self._on_left = self._on_left, None
            on_left()

    def _stays(self) -> None:
        self._on_left = None

    def __enter__(self) -> None:
        """The task that answers ends when the caller hangs up, from here on."""
        self._calls_off = self.leaving(self._end)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It does not any more.

        Raises:
            CallerLeft: the caller hung up, and nobody else ends the task.
        """
        self._calls_off()
        del self._calls_off  # which holds this
        if self._ended and self.task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise CallerLeft from None

    def _end(self) -> None:
        self._ended = True
        self.task.cancel()

    async def run(self, app: ASGI3Application, tasks: set[asyncio.Task[None]]) -> None:
        """Have it answered; at its end its task is no longer one of `tasks`.

        A callback of the task would cost the event loop another turn of its own.
        """
        try:
            await self.run_asgi(app)
        finally:
            tasks.discard(self.task)
            del self.task, self.scope["extensions"]  # which hold what holds them

    @override
    def send(self, message: ASGISendEvent | _Answer) -> Coroutine[None, None, None]:
        """Take a message of an answer, or all of it in one."""
        if message["type"] == "tinkex.answer":
            return self._answer(message)
        return super().send(message)

    async def _answer(self, message: _Answer) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_started:
            raise RuntimeError("An answer has begun already.")
        body = message["body"]
        head = self._head(message, len(body))
        # uvloop takes an empty piece for the end of what is to be written.
        self.transport.writelines((head, body) if body else (head,))
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _head(self, message: _Answer, length: int) -> bytes:
        lines = [
            *map(b": ".join, self.default_headers),
            *map(b": ".join, message["headers"]),
            b"content-length: %d" % length,
        ]
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = STATUS_LINE[message["status"]] + b"\r\n".join(lines) + b"\r\n\r\n"
        breaks = len(lines) + 2
        if (
            head.count(b"\r") != breaks
            or head.count(b"\n") != breaks
            or head.translate(None, _ALLOWED)
        ):
            raise RuntimeError("A line break or control character is in a header.")
        return head

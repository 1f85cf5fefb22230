"""Connections that end without cutting anybody off.

uvicorn closes a connection as soon as it wants to be rid of it. Whatever has arrived by then and
has not been read makes the kernel send a reset instead of an end, and a reset can overtake the
answer before it: a client that is refused in the middle of a large upload never learns why, and one
that sends its next call on an idle connection at that moment finds it broken. Here instead

* a connection that is to end is **half-closed**: the client gets the answer and the end behind it,
  and what it still sends is read and thrown away until it closes too (nginx calls this a lingering
  close), within bounds;
* once the end is near (`say_farewell`) every answer says `Connection: close`, so that clients come
  back on another connection, to another proxy where there is one;
* an idle connection is ended only after a last wait in which a request would still be answered, and
  only when no byte of one is there.

And without answering before there is anything to answer: many clients (httpx and with it the
official SDK, requests) send the head of a request and its body one after the other. A small body is
waited for, for a moment: a request that begins with it whole takes a shorter way (`cycle.py`).

What remains is inherent in HTTP/1.1: a request that is sent on an idle connection in the very
moment in which its end is on the way is not read and not answered (RFC 9112, section 9.5). Its
sender sees the end without an answer, never a reset; nothing ran.
"""

import asyncio
import select
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Final

import httptools
from typing_extensions import override
from uvicorn._types import ASGI3Application, HTTPScope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from tinkex_proxy.api.cycle import Cycle
from tinkex_proxy.api.half_closing import HalfClosing

__all__ = ["Connection", "Parting"]

# A request that has just come is read within a turn of the event loop.
GLANCE_S: Final = 0.01
# A body that is sent right behind its head is there by then; who waits longer begins without it.
BODY_SOON_S: Final = 0.02
# Of a length; beyond 20 they can only be zeros, which the parser passes.
MOST_DIGITS: Final = 20
_NONSENSE: Final = "Invalid HTTP request received."


class Parting(ServerState):
    """What all connections know of the end.

    Attributes:
        farewell: whether each answer from now on is its connection's last.
        last_wait_s: seconds for which an idle connection is listened to before it is ended.
        on_connection: called when there is another one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.farewell = False
        self.last_wait_s = 0.0
        self.on_connection: Callable[[], object] = lambda: None


class Connection(HttpToolsProtocol):
    """One client's connection."""

    transport: HalfClosing
    server_state: Parting
    cycle: Cycle
    _answering: Cycle | None = None  # the request that is being answered, or was last
    _half_read = False  # a request whose head is not whole
    _coming: Cycle | None = None  # the request whose body is waited for
    _coming_until: asyncio.TimerHandle | None = None
    _nonsense = False  # what has come last is no HTTP, and told so behind the answers that are due
    # When the last answer was written, if nothing has come since.
    _quiet_since: float | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HalfClosing(transport, self.loop))
        self.server_state.on_connection()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.gone()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self._coming is not None:
            self._begin_without()  # as one whose caller has left
        super().connection_lost(exc)
        cycle = self._answering
        if cycle is not None and not cycle.response_complete:  # uvicorn tells only the newest
            cycle.left()

    @override
    def data_received(self, data: bytes) -> None:
        if self.transport.parting:
            self.transport.heard()
            return
        self._quiet_since = None
        if self._nonsense:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.warning(_NONSENSE)
            self._refuse()
        except httptools.HttpParserUpgrade:
            pass  # to nothing that we speak: it is answered as it is
        if self._coming is not None and self._coming_until is None:
            self._wait_for_body()

    def _refuse(self) -> None:
        """Tell who sends what is no HTTP; after the answers to all that came whole before it."""
        self._call_off()
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # the newest: it is what is wrong
        due = self._answering
        if due is None or due.response_complete or due.more_body:
            self.send_400_response(_NONSENSE)
        else:
            self._nonsense = True

    @override
    def _should_upgrade(self) -> bool:
        """To nothing: uvicorn would, wherever there is a library for it, and drop the body."""
        return False

    @override
    def on_message_begin(self) -> None:
        """As uvicorn's own; the scope is made when all of it is known."""
        self._half_read = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's own; what trails a body is none, and left out (RFC 9110 section 6.5.1)."""
        if not self._half_read:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    @override
    def on_headers_complete(self) -> None:
        """As uvicorn's own, less what is not used here (limits, upgrades), with a cycle of ours."""
        self._half_read = False
        self.transport.expect_head()
        parser = self.parser
        if parser.should_upgrade() and _announces_body(self.headers):
            # The parser ends it with its head: its body would be missing, and pass for a request.
            raise ValueError("a body behind a request to speak something else")
        named = dict(self.headers)
        if len(named.get(b"content-length", b"")) > MOST_DIGITS:
            raise ValueError("a length of more digits than any has: Python would not read it")
        version = parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        before: Cycle | None = self.cycle  # which uvicorn's own type leaves out
        lasting = version != "1.0" and parser.should_keep_alive() and not self.server_state.farewell
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=lasting,
            on_response=self.on_response_complete,
        )
        cycle.offer(named)
        if before is None or before.response_complete:
            self._coming = cycle
        else:  # pipelined
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    @override
    def on_body(self, body: bytes) -> None:
        """As uvicorn's own; of a body that is waited for nobody hears before its end."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if self._coming is None:
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    @override
    def on_message_complete(self) -> None:
        """As uvicorn's own; who has waited for it begins."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.more_body = False
        cycle.message_event.set()
        if self._coming is not None:
            self._begin()

    def _wait_for_body(self) -> None:
        """Begin a request when its body has come, if that may be soon; else now."""
        # More than that is read only when somebody asks for it.
        if self.expect_100_continue or not _is_small(self.headers):
            self._begin_without()
        else:
            self._coming_until = self.loop.call_later(BODY_SOON_S, self._begin_without)

    def _begin_without(self) -> None:
        """Begin a request of whose body at most a part has come."""
        if self._coming is not None and self._coming.body:
            self._coming.message_event.set()
        self._begin()

    def _begin(self) -> None:
        cycle = self._call_off()
        if cycle is not None:
            self._start_asgi_task(cycle, self.app)

    def _call_off(self) -> Cycle | None:
        """Wait for no body any more; gives whose it was."""
        cycle, self._coming = self._coming, None
        if self._coming_until is not None:
            self._coming_until.cancel()
            self._coming_until = None
        return cycle

    @override
    def _start_asgi_task(self, cycle: Cycle, app: ASGI3Application) -> None:  # type: ignore[override]
        """As uvicorn's own; the cycle itself strikes its task off the list."""
        self._answering = cycle
        cycle.task = task = self.loop.create_task(cycle.run(app, self.tasks))
        self.tasks.add(task)

    @override
    def on_response_complete(self) -> None:
        """As uvicorn's own, with one timer for as long as the connection is idle now and then."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():  # who reset it wants no answer to what is behind, either
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)  # type: ignore[arg-type]  # made above
            return
        if self._nonsense:
            self.send_400_response(_NONSENSE)
            return
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    @override
    def _unset_keepalive_if_required(self) -> None:
        """Note that something has come: uvicorn's way to call its timer off."""
        self._quiet_since = None

    def _look_again_in(self, seconds: float) -> None:
        later = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
        self.timeout_keep_alive_task = later

    @override
    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection; of one that was busy meanwhile, see to it when it may be due."""
        self.timeout_keep_alive_task = None
        if self._quiet_since is None or self.transport.is_closing():
            return
        left = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_again_in(left)
        elif self._half_read:  # since the last answer, and no byte more
            self.transport.close()
        else:
            self.close_if_idle()

    def say_farewell(self) -> None:
        """Let the answer that has not begun yet be the last; one that has cannot say so."""
        if (cycle := self._last_cycle) is not None and not cycle.response_started:
            cycle.keep_alive = False

    @property
    def _last_cycle(self) -> Cycle | None:
        """The newest request's, if there was one; uvicorn's own type leaves that out."""
        return self.cycle

    @override
    def shutdown(self) -> None:
        """End: when idle, after a last wait for a request; else after the answer."""
        self.loop.call_later(self.server_state.last_wait_s, self.close_if_idle)

    def close_if_idle(self) -> None:
        """End now if no request is under way or has just come; else after its answer."""
        if self.transport.is_closing():
            return
        cycle = self._last_cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
        elif self._half_read:
            return  # its answer will say so, and close
        elif _readable(self.transport):
            self.loop.call_later(GLANCE_S, self.close_if_idle)
        else:
            self.transport.close()


def _announces_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether there is more of a request than its head."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
            return True
    return False


def _is_small(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a body says how long it is, and that this is not much."""
    for name, value in headers:
        if name == b"content-length":
            return value.isdigit() and int(value) <= HIGH_WATER_LIMIT
    return False


def _readable(transport: asyncio.BaseTransport) -> bool:
    """Whether something has arrived that the event loop has not read yet."""
    descriptor = transport.get_extra_info("socket").fileno()
    glance = select.poll()
    glance.register(descriptor, select.POLLIN)
    return bool(glance.poll(0))

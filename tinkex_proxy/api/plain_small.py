"""The short way of a small plain call, from its headers to its answer in one task.

A call that may outlast its connection has a task of its own, and goes through what reads bodies as
they come, wishes, deadlines and repetitions (`calls.py`). One that says nothing of all that and has
come whole is done here and now, by the same parts: the difference was a tenth of a sample's work.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from tinkex_proxy.api.accompany import accompany
from tinkex_proxy.api.asgi import (
    BODY,
    LEAVING,
    ASGIApp,
    CallerLeft,
    Receive,
    Scope,
    Send,
    send_answer,
    too_large,
)
from tinkex_proxy.api.calls import CallRoute, Services
from tinkex_proxy.api.small import Named, key_named, small_of
from tinkex_proxy.api.watch import Leaving
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.errors import ProxyError
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES
from tinkex_proxy.runtime.events import RequestEnded
from tinkex_proxy.runtime.ledger import Answer
from tinkex_proxy.runtime.records import AskedRecord
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.runtime.whose import fresh_id

__all__ = ["SmallPlainCalls"]

# Who says one of these is looked at more closely.
_UNUSUAL: Final = frozenset(
    {
        b"authorization",
        b"idempotency-key",
        b"prefer",
        b"traceparent",
        b"tracestate",
        b"x-request-timeout",
        b"x-tinkex-coalesce",
    }
)


class SmallPlainCalls:
    """The calls of one path, as an ASGI application for `POST` requests.

    Args:
        route: does them, and answers what is not plain.
        services: accounts, ledger, intake, hub.
        path: the route's.
        other: answers what is not plain.
        counted: whether requests are counted by the hub's listeners.
    """

    def __init__(
        self, route: CallRoute, services: Services, path: str, other: ASGIApp, *, counted: bool
    ) -> None:
        self._route = route
        self._services = services
        self._path = path
        self._other = other
        self._counted = counted

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        named, offered = small_of(scope, self._services, _UNUSUAL), scope.get("extensions")
        if (
            named is None
            or not isinstance(offered, dict)
            or self._services.settings.default_timeout_s is not None
            or not _is_small(named)
        ):
            return self._other(scope, receive, send)
        body = offered[BODY]()
        if body is None:
            return self._other(scope, receive, send)
        return self._answer(scope, send, key_named(named), body, offered[LEAVING])

    async def _answer(
        self, scope: Scope, send: Send, key: str | None, body: bytes, leaving: Leaving
    ) -> None:
        """Answer one that is plain."""
        services, request_id, status = self._services, fresh_id(), None
        request = _Request(services, self._path if self._counted else None)
        try:
            on_left = partial(self._hung_up, request, scope, request_id)
            try:
                answer = await self._do(key, body, leaving, request_id, request.began, on_left)
            except CallerLeft:
                return
            except ProxyError as error:
                answer = self._route.refused(error, scope, request_id)
            await send_answer(send, answer, {"x-request-id": request_id}, whole=True)
            status = answer.status
        except Exception:
            status = 500  # which the server answers it with
            raise
        finally:
            request.end(status)

    async def _do(
        self,
        key: str | None,
        body: bytes,
        leaving: Leaving,
        request_id: str,
        began: float,
        on_left: Callable[[], None],
    ) -> Answer:
        """Do the call.

        Raises:
            CallerLeft: its caller hung up.
            ProxyError: it has not begun, or our end cut it off.
        """
        services, size = self._services, len(body)
        if services.ledger.unbegun:  # calls that came before this one
            await asyncio.sleep(0)
        if size > services.settings.body.max_bytes:
            raise too_large(size, services.settings.body.max_bytes)
        owner = services.accounts.key_id_of(key)
        with services.intake.hold(owner) as hold:
            hold.take(size)
            account = services.accounts.of(key)
            ticket = Ticket(hold=hold, timeline=Timeline(began))
            asked = AskedRecord(self._route.operation, self._path, {}, {}, body)
            entry = services.ledger.accompany(request_id, owner, asked)
            account.begin(entry)
            work = self._route.begin(account, body, ticket, self._path, {}, entry)
            try:
                return await accompany(
                    entry, ticket, leaving, services.ledger, work, on_left=on_left
                )
            finally:
                ticket.leave()
                account.end(entry)

    def _hung_up(self, request: "_Request", scope: Scope, request_id: str) -> None:
        self._route.hung_up(scope, request_id)
        request.end(None)


class _Request:
    """A request that is being answered, until it has been or its caller hangs up.

    Args:
        services: count it.
        handler: by which it is counted by the hub's listeners, if it is.

    Attributes:
        began: the moment it came.
    """

    __slots__ = ("_handler", "_over", "_services", "began")

    def __init__(self, services: Services, handler: str | None) -> None:
        self._services = services
        self._handler = handler
        self._over = False
        self.began = services.clock.now()
        services.open.enter()

    def end(self, status: int | None) -> None:
        """It was answered with this status, or with nothing; told twice, the first time counts."""
        if self._over:
            return
        self._over = True
        services = self._services
        services.open.leave()
        if self._handler is not None:
            took_s = services.clock.now() - self.began
            services.hub.tell(RequestEnded(self._handler, "POST", status, took_s, wanted=True))


def _is_small(named: Named) -> bool:
    """Whether a body says that it is; one that may be large is counted as it comes."""
    said = named.get(b"content-length", b"")
    return said.isdigit() and int(said) < LARGE_BODY_BYTES

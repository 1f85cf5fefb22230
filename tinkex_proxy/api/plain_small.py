"""The short way of a small plain call, from its headers to its answer in one task.

A call that may outlast its connection has a task of its own, and goes through what reads bodies as
they come, wishes, deadlines and repetitions (`calls.py`). One that says nothing of all that and has
come whole is done here and now, by the same parts: the difference was a seventh of a sample's work.
"""

from collections.abc import Awaitable
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
        services, request_id = self._services, fresh_id()
        began, status = services.clock.now(), None
        try:
            with services.open:
                try:
                    answer = await self._do(key, body, leaving, scope, request_id, began)
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
            if self._counted:
                took_s = services.clock.now() - began
                services.hub.tell(RequestEnded(self._path, "POST", status, took_s, wanted=True))

    async def _do(
        self,
        key: str | None,
        body: bytes,
        leaving: Leaving,
        scope: Scope,
        request_id: str,
        began: float,
    ) -> Answer:
        """Do the call.

        Raises:
            CallerLeft: its caller hung up.
            ProxyError: it has not begun, or our end cut it off.
        """
        services, size = self._services, len(body)
        if size > services.settings.body.max_bytes:
            raise too_large(size, services.settings.body.max_bytes)
        account = services.accounts.of(key)
        with services.intake.hold(account.key_id) as hold:
            hold.take(size)
            ticket = Ticket(hold=hold, timeline=Timeline(began))
            asked = AskedRecord(self._route.operation, self._path, {}, {}, body)
            entry = services.ledger.accompany(request_id, account.key_id, asked)
            account.begin(entry)
            work = self._route.begin(account, body, ticket, self._path, {}, entry)
            try:
                return await accompany(
                    entry,
                    ticket,
                    leaving,
                    services.ledger,
                    work,
                    on_left=lambda: self._route.hung_up(scope, request_id),
                )
            finally:
                ticket.leave()
                account.end(entry)


def _is_small(named: Named) -> bool:
    """Whether a body says that it is; one that may be large is counted as it comes."""
    said = named.get(b"content-length", b"")
    return said.isdigit() and int(said) < LARGE_BODY_BYTES

"""The short way of a small plain call, from its headers to its answer in one task.

A call that may outlast its connection has a task of its own, and goes through what reads bodies as
they come, wishes, deadlines and repetitions (`calls.py`). One that says nothing of all that and has
come whole is done here and now, by the same parts: the difference was a tenth of a sample's work.
"""

import asyncio
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
    fit,
    send_answer,
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
        request = _Request(self._services, self._route, scope, counted=self._counted)
        status = None
        try:
            try:
                answer = await self._do(key, body, leaving, request)
            except CallerLeft:
                return
            except ProxyError as error:
                answer = self._route.refused(error, scope, request.id)
            await send_answer(send, answer, {"x-request-id": request.id}, whole=True)
            status = answer.status
        except Exception:
            status = 500  # which the server answers it with
            raise
        finally:
            request.end(status)

    async def _do(
        self, key: str | None, body: bytes, leaving: Leaving, request: "_Request"
    ) -> Answer:
        """Do the call.

        Raises:
            CallerLeft: its caller hung up.
            ProxyError: it has not begun, or our end cut it off.
        """
        services, route, path = self._services, self._route, self._path
        if services.ledger.unbegun:  # calls that came before this one
            await asyncio.sleep(0)
        fit(len(body), services.settings.body)
        owner = services.accounts.key_id_of(key)
        with services.intake.hold(owner) as hold:
            hold.take(len(body))
            account = services.accounts.of(key)
            ticket = Ticket(hold=hold, timeline=Timeline(request.began))
            asked = AskedRecord(route.operation, path, {}, {}, body)
            entry = services.ledger.accompany(request.id, owner, asked)
            account.begin(entry)
            work = route.begin(account, body, ticket, path, {}, entry)
            try:
                return await accompany(
                    entry, ticket, leaving, services.ledger, work, on_left=request.hung_up
                )
            finally:
                ticket.leave()
                account.end(entry)


class _Request:
    """A request that is being answered, until it has been or its caller hangs up.

    Args:
        services: count it.
        route: says in the log that its caller hung up.
        scope: what it came as.
        counted: whether it is counted by the hub's listeners.

    Attributes:
        id: its name.
        began: the moment it came.
    """

    __slots__ = ("_counted", "_over", "_route", "_scope", "_services", "began", "id")

    def __init__(
        self, services: Services, route: CallRoute, scope: Scope, *, counted: bool
    ) -> None:
        self._services = services
        self._route = route
        self._scope = scope
        self._counted = counted
        self._over = False
        self.id = fresh_id()
        self.began = services.clock.now()
        services.open.enter()

    def hung_up(self) -> None:
        """Its caller has."""
        self._route.hung_up(self._scope, self.id)
        self.end(None)

    def end(self, status: int | None) -> None:
        """It was answered with this status, or with nothing; told twice, the first time counts."""
        if self._over:
            return
        self._over = True
        services = self._services
        services.open.leave()
        if self._counted:
            path, took_s = str(self._scope["path"]), services.clock.now() - self.began
            services.hub.tell(RequestEnded(path, "POST", status, took_s, wanted=True))


def _is_small(named: Named) -> bool:
    """Whether a body says that it is; one that may be large is counted as it comes."""
    said = named.get(b"content-length", b"")
    return said.isdigit() and int(said) < LARGE_BODY_BYTES

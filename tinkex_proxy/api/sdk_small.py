"""The short way of a small call that is relayed: one function, from its headers to its answer.

What is asked most (`asample`, and in transparent mode every submit) comes whole, says nothing out
of the ordinary and is answered with a promise. The way of all others (`sdk.py`, `relay.py`) goes
through a dozen functions that hand on to one another, so that bodies may stream, answers may be
looked at and polls may be held; for such a call that cost as much as all that is done for it. Here
the same is done, in the same order and with the same parts. What is not plain takes the other way
from the start, and what comes to no answer ends there (`SdkRoute.conclude`).
"""

from collections.abc import Awaitable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from starlette.routing import BaseRoute

from tinkex_proxy.api.asgi import (
    BODY,
    CALLER,
    SDK_ROUTE,
    ASGIApp,
    Receive,
    Scope,
    Send,
    fit,
)
from tinkex_proxy.api.calls import Services
from tinkex_proxy.api.direct import Branching, ShortWay
from tinkex_proxy.api.http_metrics import SDK_CALLS
from tinkex_proxy.api.relay import hand_down, passing_of
from tinkex_proxy.api.sdk import SdkRoute, Sending, no_answer
from tinkex_proxy.api.sdk_futures import Timed
from tinkex_proxy.api.sdk_kinds import Kind, kind_of
from tinkex_proxy.api.server_timing import HEADER, relayed_timing
from tinkex_proxy.api.small import key_named, small_of
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.timeline import Part, Timeline
from tinkex_proxy.runtime.events import Relayed, RequestEnded
from tinkex_proxy.runtime.upstream import Unanswered
from tinkex_proxy.runtime.whose import Whose

__all__ = ["SmallCalls", "sdk_routes"]

# Who says one of these is looked at more closely.
_UNUSUAL: Final = frozenset({b"authorization", b"traceparent", b"tracestate"})
_TIMING: Final = HEADER.encode()


def sdk_routes(route: SdkRoute, services: Services) -> list[BaseRoute]:
    """Everything under `/api/v1`, whatever its method."""
    ways: dict[str, ShortWay] = {}
    for path in (f"/api/v1/{name}" for name in SDK_CALLS):
        kind = kind_of("POST", path)
        if kind.short and kind.operation is Operation.SUBMIT:
            ways[path] = partial(SmallCalls, route, services, kind)
    return [Branching(SDK_ROUTE, services.traced(route, _route_of, _only_waits), ways)]


def _only_waits(path: str) -> bool:
    return kind_of("POST", path).waits


def _route_of(path: str) -> str:
    return kind_of("POST", path).route


class SmallCalls:
    """The calls of one path, as an ASGI application for `POST` requests.

    Args:
        route: relays what is not plain, and says what is relayed at all.
        services: accounts, clock, hub.
        kind: what the calls are.
        other: answers what is not plain.
        counted: whether requests are counted by the hub's listeners.
    """

    def __init__(
        self, route: SdkRoute, services: Services, kind: Kind, other: ASGIApp, *, counted: bool
    ) -> None:
        self._route = route
        self._services = services
        self._kind = kind
        self._other = other
        self._handler = kind.route if counted else None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        named, offered = small_of(scope, self._services, _UNUSUAL), scope.get("extensions")
        if (
            named is None
            or not isinstance(offered, dict)
            or named.get(b"connection", b"keep-alive") != b"keep-alive"
            or not self._route.relays(self._kind.name)
        ):
            return self._other(scope, receive, send)
        body = offered[BODY]()
        if body is None:
            return self._other(scope, receive, send)
        return self._relay(scope, send, key_named(named), body, offered[CALLER])

    async def _relay(
        self,
        scope: Scope,
        send: Send,
        key: str | None,
        body: bytes,
        caller: AbstractContextManager[None],
    ) -> None:
        """Answer one that is plain."""
        services, now, size = self._services, self._services.clock.now, len(body)
        sending, began = Sending(send, services.clock, whole=True), now()
        whose, left = None, began
        services.open.enter()
        try:
            try:
                owner = self._take(key, size)
                try:
                    sending.account = account = services.accounts.of(key)
                    account.begin(sending)
                    whose, left = Whose(sending.request_id, owner), now()
                    passing = passing_of(
                        scope,
                        body,
                        timeout_s=self._route.timeout_s,
                        short=True,
                        whose=whose,
                        route=self._kind.route,
                    )
                    with caller:
                        passed = await account.upstream.relay_whole(Operation.SUBMIT, passing)
                        answered = now()
                        sending.status = passed.status
                        timing = _TIMING, relayed_timing(began, left, answered)
                        await hand_down(passed, send, whole=True, more=(timing,))
                finally:
                    services.intake.give_back(owner, size)
            except BaseException as error:  # noqa: BLE001 - raised again, unless it is answered
                if whose is not None:
                    line = Timeline(began)
                    line.enter(Part.UPLOAD, left)
                    sending.timed = Timed(self._kind.told, line, whose)
                await self._conclude(error, scope, sending, began)
                return
            account.end(sending)
            moments = began, left, answered, now()
            told = Relayed(self._kind.told, self._handler, passed.status, whose, *moments)
            services.hub.tell(told)
        finally:
            services.open.leave()

    def _take(self, key: str | None, size: int) -> str:
        """Take a call on; gives the key id of its caller.

        Raises:
            Overloaded, PayloadTooLarge: it is not to be.
        """
        services = self._services
        fit(size, services.settings.body)
        owner = services.accounts.key_id_of(key)
        services.intake.take(owner, size)
        return owner

    async def _conclude(
        self, error: BaseException, scope: Scope, sending: Sending, began: float
    ) -> None:
        """Answer one that came to an error, and tell of it."""
        services = self._services
        if isinstance(error, Unanswered):
            error = no_answer(error)
        try:
            await self._route.conclude(error, self._kind, scope, sending, began)
        except Exception:
            sending.status = 500  # which the server answers it with
            raise
        finally:
            del error  # or what it was raised through would hold itself
            if self._handler is not None:
                told = self._handler, "POST", sending.status, services.clock.now() - began
                services.hub.tell(RequestEnded(*told, wanted=True))

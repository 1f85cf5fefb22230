"""A route in a trace: where its requests have their place, and what is told of each.

In front of the routes that callers use; who watches the proxy (`/metrics`, `/health`) is not
traced.
"""

from collections.abc import Awaitable, Callable

from tinkex_proxy.api.asgi import ASGIApp, Receive, Scope, Send, StatusNoted, pairs_of
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Served
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.trace_context import TraceContext, context_of
from tinkex_proxy.runtime.tracer import Tracer

__all__ = ["Traced", "place_of", "trace_named", "trace_of"]

_KEY = "tinkex.trace"


def trace_of(scope: Scope) -> TraceContext | None:
    """The place of the request that is being answered, if it belongs to a trace."""
    found = scope.get(_KEY)
    return found if isinstance(found, TraceContext) else None


def place_of(scope: Scope) -> TraceContext | None:
    """The same, read from the headers where no traced route has read them."""
    return trace_of(scope) if _KEY in scope else context_of(pairs_of(scope))


def trace_named(scope: Scope) -> dict[str, str]:
    """The same, as log lines name it; nothing where there is none."""
    trace = trace_of(scope)
    return {} if trace is None else {"trace_id": trace.trace_id}


class Traced:
    """One route.

    Args:
        app: answers its requests.
        named: gives the route's name for a path, from a set that callers cannot make grow.
        waits: whether a request for a path only asks whether there is an answer yet, or is a sign
            of life: those come by the hundred, and begin no traces of their own.
        tracer: gives places.
        clock: measures.
        hub: is told of what is recorded.
    """

    def __init__(
        self,
        app: ASGIApp,
        named: Callable[[str], str],
        waits: Callable[[str], bool],
        tracer: Tracer,
        *,
        clock: Clock,
        hub: Hub,
    ) -> None:
        self._app = app
        self._named = named
        self._waits = waits
        self._tracer = tracer
        self._clock = clock
        self._hub = hub

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        begins = self._tracer.on and not self._waits(str(scope["path"]))
        scope[_KEY] = trace = self._tracer.arrived(pairs_of(scope), begins=begins)
        if trace is None or not trace.sampled or not self._tracer.on:
            return self._app(scope, receive, send)
        return self._recorded(scope, receive, send, trace)

    async def _recorded(
        self, scope: Scope, receive: Receive, send: Send, trace: TraceContext
    ) -> None:
        """Answer one request, and tell of it."""
        began, noted = self._clock.now(), StatusNoted(send)
        try:
            await self._app(scope, receive, noted)
        finally:
            path = str(scope["path"])
            self._hub.tell(
                Served(
                    str(scope["method"]),
                    self._named(path),
                    path,
                    noted.status,
                    trace,
                    began,
                    self._clock.now(),
                )
            )

"""HTTP requests, measured: operators' by prometheus-fastapi-instrumentator, callers' by ourselves.

The instrumentator's middleware looks for the route by going through all of them, builds a request
and a response to hand to whoever counts, and gathers its asynchronous listeners, of which there are
none. That takes 50 to 100 us a request, a third of what a cheap call costs in all. So what is under
`/v1` and `/api/v1`, where the thousands of requests are, is measured by a few lines that ask the
router what it has found. Both are counted by the same function, without the instrumentator's traps:
left to itself it binds four label sets for each request, gives every token that passes for a method
a histogram of its own, calls a caller who left a 5xx, counts all that a catch-all route takes as
one, and records nothing for a second app on one registry.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import metrics
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware

from tinkex_proxy.api.asgi import CALLERS, SDK_ROUTE, ASGIApp, Receive, Scope, Send, StatusNoted
from tinkex_proxy.api.traced import place_of
from tinkex_proxy.runtime.events import RequestEnded
from tinkex_proxy.runtime.trace_context import recorded

__all__ = ["METHODS", "SDK_CALLS", "instrument"]

# What routes here take; the parser lets some 45 methods through.
METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "POST"})
_UNROUTED: Final = "none"
# What the official SDKs call below that; everything else there is one series.
SDK_CALLS: Final = frozenset(
    {
        "asample",
        "client/config",
        "create_model",
        "create_sampling_session",
        "create_session",
        "forward",
        "forward_backward",
        "get_info",
        "get_server_capabilities",
        "healthz",
        "load_weights",
        "optim_step",
        "retrieve_future",
        "retrieve_futures",
        "save_weights",
        "save_weights_external",
        "save_weights_for_sampler",
        "session_heartbeat",
        "telemetry",
        "unload_model",
        "weights_info",
    }
)
_SDK_PATHS: Final = frozenset(f"/api/v1/{name}" for name in SDK_CALLS)
# No requests for something: questions whether there is an answer yet, and signs of life.
_WAITING: Final = frozenset(
    {
        "/api/v1/retrieve_future",
        "/api/v1/retrieve_futures",
        "/api/v1/session_heartbeat",
        "/v1/futures/{future_id}",
    }
)

# Told of each request.
Tell: TypeAlias = Callable[[RequestEnded], None]


def instrument(
    app: FastAPI, registry: CollectorRegistry, tell: Tell
) -> Callable[[ASGIApp, str], ASGIApp]:
    """Measure the requests to an app, whose routes are all there.

    Args:
        app: whose requests.
        registry: where the instrumentator would put series of its own; it has none.
        tell: told of them all.

    Returns:
        What measures one route of a caller's, to which requests find their way past the app.
    """
    counter = _Counter(tell)
    app.add_middleware(_Measured, registry=registry, counter=counter, templates=_paths(app))
    return partial(_Timed, counter)


def _paths(app: FastAPI) -> dict[int, str]:
    """The template of each route of a caller's, by what the router says it has found."""
    return {
        id(route.endpoint): route.path
        for route in app.router.routes
        if hasattr(route, "endpoint") and hasattr(route, "path")
    }


class _Counter:
    """Tells of a request that has ended, whoever measured it."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def ended(self, scope: Scope, handler: str, status: int | None, seconds: float) -> None:
        """Tell of one; `status` is None where there was no answer, and its caller has left."""
        path, method = scope["path"], str(scope["method"])
        if handler == SDK_ROUTE and path in _SDK_PATHS:
            handler = str(path)
        method = method if method in METHODS else "other"
        trace_id = recorded(place_of(scope))
        wanted = handler.startswith(CALLERS) and handler not in _WAITING
        self._tell(RequestEnded(handler, method, status, seconds, trace_id, wanted))


class _Timed:
    """Measures the requests to what callers use.

    Args:
        counter: counts them.
        app: answers them.
        handler: gives the template of the route that answered; or that of the only one.
    """

    def __init__(
        self, counter: _Counter, app: ASGIApp, handler: str | Callable[[Scope], str]
    ) -> None:
        self._counter = counter
        self._app = app
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it by what answers it."""
        began, noted = time.perf_counter(), StatusNoted(send)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            noted.status = noted.status or 500
            raise
        finally:
            found = self._handler
            handler = found if isinstance(found, str) else found(scope)
            self._counter.ended(scope, handler, noted.status, time.perf_counter() - began)


class _Measured:
    """Middleware: measures callers' requests, and lets the instrumentator measure all others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        registry: CollectorRegistry,
        counter: _Counter,
        templates: dict[int, str],
    ) -> None:
        self._counter = counter
        self._templates = templates
        self._callers = _Timed(counter, app, self._handler)
        self._others: ASGIApp = PrometheusInstrumentatorMiddleware(
            app,
            registry=registry,
            should_group_untemplated=True,
            should_ignore_untemplated=False,
            should_group_status_codes=False,
            excluded_handlers=["^/metrics$"],
            instrumentations=[self._on_other],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not str(scope["path"]).startswith(CALLERS):
            await self._others(scope, receive, send)
            return
        await self._callers(scope, receive, send)

    def _handler(self, scope: Scope) -> str:
        return self._templates.get(id(scope.get("endpoint")), _UNROUTED)

    def _on_other(self, info: metrics.Info) -> None:
        """Told by the instrumentator; an endless answer is measured to its beginning."""
        began = info.modified_duration_without_streaming
        status = int(info.modified_status) if began > 0 or _failed() else None
        handler = info.modified_handler
        took = began if handler.endswith("/events") else info.modified_duration
        self._counter.ended(info.request.scope, handler, status, took)


def _failed() -> bool:
    """Whether it was a fault of ours that there was no answer, and not that the caller left."""
    return isinstance(sys.exc_info()[1], Exception)

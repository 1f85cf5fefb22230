"""The way to a caller's call past the framework, which would look for it among all routes.

FastAPI asks one route after another and passes a request through seven layers, most of which are
for what these routes have not. That was a quarter of what a relayed request took in all, so a call
of a fixed path is found in a table. All else (the operators' routes, paths with a model's name,
methods and paths that there are not) goes to the framework, which has every route.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol

from starlette.routing import BaseRoute, Route

from tinkex_proxy.api.asgi import CALLERS, SDK_ROUTE, ASGIApp, Receive, Scope, Send
from tinkex_proxy.api.http_metrics import SDK_CALLS

__all__ = ["Branching", "Direct", "ShortWay"]

# Wraps what answers a route, so that it is measured under the route's path.
Measuring = Callable[[ASGIApp, str], ASGIApp]


class ShortWay(Protocol):
    """Makes an application that answers what is plain by itself."""

    def __call__(self, other: ASGIApp, /, *, counted: bool) -> ASGIApp:
        """Make it, given what answers all else, and whether requests are counted."""
        ...


class Branching(Route):
    """A route of many paths, some of which have a short way for what is plain.

    Args:
        path: its template.
        app: answers its requests.
        short: makes the short ways of `POST` requests, by path.
        methods: that it takes; None: all.
    """

    def __init__(
        self,
        path: str,
        app: ASGIApp,
        short: Mapping[str, ShortWay],
        methods: Collection[str] | None = None,
    ) -> None:
        super().__init__(path, app, methods=methods)
        self.short = short


class Direct:
    """An ASGI application in front of the framework's.

    Args:
        app: the framework's, which answers what is not found here.
        routes: all routes of it; those of callers with a fixed path are found.
        measuring: measures a route's requests; None where nothing is measured.
        before: called before the framework is: its requests are mostly those of who looks at what
            was counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Iterable[BaseRoute],
        measuring: Measuring | None,
        before: Callable[[], None],
    ) -> None:
        self._app = app
        self._before = before
        self._measuring = measuring
        self._found: dict[tuple[object, object], ASGIApp] = {}
        for route in routes:
            if isinstance(route, Route) and route.path.startswith(CALLERS):
                self._add(route)

    def _add(self, route: Route) -> None:
        if route.path == SDK_ROUTE:
            for name in SDK_CALLS:
                self._add_path(route, f"/api/v1/{name}", {"GET", "POST"})
        elif "{" not in route.path:
            self._add_path(route, route.path, (route.methods or set()) - {"HEAD"})

    def _add_path(self, route: Route, path: str, methods: Collection[str]) -> None:
        app = self._measured(route, path)
        shorter = route.short.get(path) if isinstance(route, Branching) else None
        for method in methods:
            self._found[method, path] = app
        if shorter is not None and "POST" in methods:
            self._found["POST", path] = shorter(app, counted=self._measuring is not None)

    def _measured(self, route: Route, path: str) -> ASGIApp:
        return route.app if self._measuring is None else self._measuring(route.app, path)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        app = self._found.get((scope.get("method"), scope.get("path")))
        if app is None:
            self._before()
            app = self._app
        return app(scope, receive, send)

"""The ASGI application: FastAPI for the operators' routes, callers' beside them, one guard."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from tinkex_proxy.api.direct import Direct
from tinkex_proxy.api.guard import Guard
from tinkex_proxy.api.http_metrics import instrument
from tinkex_proxy.api.openapi import openapi_document
from tinkex_proxy.api.operations import Operations, operations_router
from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.errors import MethodNotAllowed, ProxyError, RouteNotFound
from tinkex_proxy.runtime.hub import Hub

__all__ = ["make_app"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(
    ops: Operations,
    plain_routes: Sequence[BaseRoute],
    *,
    lifespan: Lifespan,
    bind_host: str,
    allowed_hosts: Sequence[str],
    hub: Hub,
) -> Guard:
    """Put the routes together behind the guard; the hub is told of requests."""
    # The page at /docs works offline: FastAPI's own loads its scripts from another host.
    app = FastAPIOffline(
        redoc_url=None,
        title="tinkex_proxy",
        version=str(ops.version["version"]),
        description="Plain calls for the Tinker training API.",
        lifespan=lifespan,
    )
    app.include_router(operations_router(ops))
    app.router.routes.extend(plain_routes)
    app.add_exception_handler(HTTPException, _not_routed)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]
    measuring = None
    if ops.scraped is not None:
        measuring = instrument(app, ops.scraped, hub.tell)
    direct = Direct(app, plain_routes, measuring, hub.flush)
    return Guard(direct, bind_host=bind_host, allowed_hosts=allowed_hosts)


async def _not_routed(request: Request, raised: Exception) -> Response:
    """A path or method that does not exist here, as a problem document."""
    error: ProxyError = RouteNotFound(f"No {request.url.path} here; GET /docs lists what there is.")
    headers: dict[str, str] = {}
    if isinstance(raised, HTTPException) and raised.status_code == 405:
        headers = dict(raised.headers or {})
        allowed = headers.get("Allow") or headers.get("allow", "")
        error = MethodNotAllowed(f"{request.url.path} does not take {request.method}: {allowed}.")
    request_id = uuid.uuid4().hex
    answer = problem_answer(error, instance=request.url.path, request_id=request_id)
    named = {**headers, **answer.headers, "x-request-id": request_id}
    return Response(answer.body, answer.status, named)

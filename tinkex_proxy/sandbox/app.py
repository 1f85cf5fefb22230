"""The sandbox as an ASGI application: the Tinker wire API, JSON and protobuf."""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tinkex_proxy.sandbox.http import answering
from tinkex_proxy.sandbox.options import Options
from tinkex_proxy.sandbox.registry import Registry
from tinkex_proxy.sandbox.sampling_face import SamplingFace
from tinkex_proxy.sandbox.service import Service
from tinkex_proxy.sandbox.service_face import ServiceFace
from tinkex_proxy.sandbox.training_face import TrainingFace

__all__ = ["create_app"]


def create_app(options: Options, *, now: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Make a sandbox.

    Args:
        options: what it is to be.
        now: gives monotonic seconds; for tests of expiry.
    """
    service = Service(options, now)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await service.engine.close()

    faces = (ServiceFace(service), TrainingFace(service), SamplingFace(service), Registry(service))
    routes = [
        Route(path, answering(endpoint), methods=[method])
        for face in faces
        for path, (method, endpoint) in face.routes().items()
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_gatekeeper(options))],
    )


def _gatekeeper(
    options: Options,
) -> Callable[[Request, RequestResponseEndpoint], Awaitable[Response]]:
    async def check(request: Request, call_next: RequestResponseEndpoint) -> Response:
        key = request.headers.get("x-api-key", "")
        if options.api_keys and key not in options.api_keys:
            return JSONResponse({"detail": "Invalid API key"}, 401)
        response = await call_next(request)
        response.headers["server"] = "tinkex-sandbox"
        return response

    return check

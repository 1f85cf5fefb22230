"""The sandbox as an ASGI application: the Tinker wire API, JSON and protobuf."""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp
from threadpoolctl import threadpool_limits

from tinkex_proxy.sandbox.faults_face import FaultsFace
from tinkex_proxy.sandbox.gate import Gate
from tinkex_proxy.sandbox.http import answering
from tinkex_proxy.sandbox.injection import FaultInjector
from tinkex_proxy.sandbox.options import Options
from tinkex_proxy.sandbox.registry import Registry
from tinkex_proxy.sandbox.rehearsal import Rehearsal
from tinkex_proxy.sandbox.sampling_face import SamplingFace
from tinkex_proxy.sandbox.service import Service
from tinkex_proxy.sandbox.service_face import ServiceFace
from tinkex_proxy.sandbox.training_face import TrainingFace

__all__ = ["create_app"]

LOG = logging.getLogger("tinkex_proxy.sandbox")


def create_app(options: Options, *, now: Callable[[], float] = time.monotonic) -> ASGIApp:
    """Make a sandbox.

    Args:
        options: what it is to be.
        now: gives monotonic seconds; for tests of expiry.
    """
    service = Service(options, now)
    rehearsal = Rehearsal(options.faults, now)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        LOG.warning("This is a sandbox: toy models (%s), not a service", ", ".join(options.models))
        # The models are far too small to share among processors: threads that spin for each other's
        # part make a step ten times slower where the proxy and its callers want them too.
        with threadpool_limits(1, "blas"):
            yield
        await service.engine.close()

    faces = (
        ServiceFace(service),
        TrainingFace(service),
        SamplingFace(service),
        Registry(service),
        FaultsFace(rehearsal, service.sessions),
    )
    routes = [
        Route(path, answering(endpoint), methods=methods.split())
        for face in faces
        for path, (methods, endpoint) in face.routes().items()
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[
            Middleware(Gate, keys=options.api_keys),
            Middleware(FaultInjector, rehearsal, service.sessions.end_all),
        ],
    )

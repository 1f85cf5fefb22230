"""What operators look at: health, lanes, configuration, version, metrics."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from tinkex_proxy.api.breakers import Breakers, breakers_router
from tinkex_proxy.api.lifecycle import Lifecycle, lifecycle_router
from tinkex_proxy.api.log_level import log_router
from tinkex_proxy.api.snapshots import Snapshots, snapshots_router
from tinkex_proxy.runtime.accounts import Accounts
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.intake import Intake
from tinkex_proxy.runtime.logs import Logs

__all__ = ["Operations", "Readiness", "operations_router"]

# What ends a page in the format of OpenMetrics.
_END: Final = b"# EOF\n"


@dataclass(slots=True)
class Readiness:
    """Whether we can do our work, and why not.

    Attributes:
        started: the listener is up.
        reached: the upstream has answered at least once since we started.
        draining: we are shutting down.
        reason: why the upstream has not been reached.
    """

    started: bool = False
    reached: bool = False
    draining: bool = False
    reason: str = "the upstream has not been asked yet"

    def obstacle(self) -> str | None:
        """What keeps us from being ready, or None."""
        if self.draining:
            return "draining"
        if not self.started:
            return "starting"
        return None if self.reached else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """What the operators' routes read; `scraped` is what `/metrics` gives, where there is such."""

    accounts: Accounts
    clock: Clock
    intake: Intake
    readiness: Readiness
    scraped: CollectorRegistry | None
    upstream: str
    config: Callable[[], Mapping[str, object]]
    version: Mapping[str, object]
    breakers: Breakers
    snapshots: Snapshots
    lifecycle: Lifecycle
    logs: Logs


def operations_router(ops: Operations) -> APIRouter:
    """The operators' routes."""
    router = APIRouter(tags=["operations"])
    _health(router, ops)
    router.include_router(breakers_router(ops.breakers))
    router.include_router(lifecycle_router(ops.lifecycle))
    router.include_router(log_router(ops.logs))
    _insight(router, ops)
    router.include_router(snapshots_router(ops.snapshots))
    if ops.scraped is not None:
        _metrics(router, ops.scraped)
    return router


def _health(router: APIRouter, ops: Operations) -> None:
    def state(obstacle: str | None) -> JSONResponse:
        body = {"status": "ok" if obstacle is None else "unavailable"}
        if obstacle is not None:
            body["reason"] = obstacle
        headers = {"cache-control": "no-store"}
        return JSONResponse(body, 200 if obstacle is None else 503, headers)

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> JSONResponse:
        """200 as long as the event loop turns."""
        return state(None)

    @router.get("/health/startup", summary="Has it started?")
    async def startup() -> JSONResponse:
        """200 once the listener is up."""
        return state(None if ops.readiness.started else "starting")

    @router.get("/health/ready", summary="Should it get traffic?")
    async def ready() -> JSONResponse:
        """200 once the upstream has answered and until draining begins; else 503 and why."""
        return state(ops.readiness.obstacle())


def _insight(router: APIRouter, ops: Operations) -> None:
    @router.get("/lanes", summary="All lanes")
    async def lanes() -> JSONResponse:
        """Every model's lane: depth, what is on the wire, sequence numbers, queue state.

        And every key's pace: what is out, what may be out, for how long all is held back and why;
        what was sent again and how much more may be, and what the upstream holds in which state;
        what its calls hold. And what all calls hold beside the bounds, and how many were shed.
        """
        now = ops.clock.now()
        shown = [
            {"upstream": ops.upstream, "key_id": account.key_id, **model.snapshot(now)}
            for account in ops.accounts
            for model in account.models.values()
        ]
        keys = [
            {**account.snapshot(), **ops.intake.snapshot_of(account.key_id)}
            for account in ops.accounts
        ]
        return JSONResponse({"lanes": shown, "keys": keys, "admission": ops.intake.snapshot()})

    @router.get("/config", summary="The configuration in force")
    async def config() -> JSONResponse:
        """Every setting; secrets are masked."""
        return JSONResponse(dict(ops.config()))

    @router.get("/version", summary="What is running")
    async def version() -> JSONResponse:
        """Version, Python, transport, upstream."""
        flavours = sorted({account.flavour.value for account in ops.accounts if account.learned})
        return JSONResponse({**ops.version, "upstream_flavours": flavours})


def _metrics(router: APIRouter, registry: CollectorRegistry) -> None:
    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        """Prometheus text, or OpenMetrics where the client asks for it."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        pieces = []
        for family in registry.collect():
            pieces.append(encode(_Family(family)).removesuffix(_END))
            await asyncio.sleep(0)  # all at once hold everybody up: at rest for 4 ms
        end = _END if "openmetrics" in content_type else b""
        return Response(b"".join([*pieces, end]), headers={"content-type": content_type})


class _Family(Collector):
    """One family of series, to be written by itself."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    @override
    def collect(self) -> Iterable[Metric]:
        return (self._family,)

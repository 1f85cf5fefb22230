"""The routes of the snapshot: all metrics or one, as JSON; forgetting them; following them."""

import uuid
from dataclasses import dataclass

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.errors import RouteNotFound
from tinkex_proxy.runtime.feed import Feed
from tinkex_proxy.runtime.snapshot import Snapshot

__all__ = ["Snapshots", "snapshots_router"]


@dataclass(frozen=True, slots=True)
class Snapshots:
    """What the routes work with.

    Attributes:
        snapshot: the metrics.
        feed: tells of them in intervals.
    """

    snapshot: Snapshot
    feed: Feed


def snapshots_router(snapshots: Snapshots) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["metrics"])
    _look(router, snapshots)
    _reset(router, snapshots.snapshot)
    return router


def _look(router: APIRouter, snapshots: Snapshots) -> None:
    @router.get("/metrics/snapshot", summary="All metrics as JSON", response_class=Response)
    async def everything() -> Response:
        """Counters, gauges, histograms with P50, P95 and P99, summaries (docs/metrics.md)."""
        return _json(snapshots.snapshot.get_all_metrics())

    @router.get("/metrics/snapshot/{name}", summary="One metric as JSON", response_class=Response)
    async def one(name: str, request: Request) -> Response:
        """One metric by its name."""
        shown = snapshots.snapshot.get_snapshot(name)
        return _unknown(request, name) if shown is None else _json(shown)

    @router.get("/metrics/events", summary="All metrics, in intervals", response_class=Response)
    async def events(request: Request) -> Response:
        """Server-sent events, one each `metrics.snapshot_interval_ms`."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        told = snapshots.feed.follow(request.headers.get("last-event-id"))
        return StreamingResponse(told, media_type="text/event-stream", headers=headers)


def _reset(router: APIRouter, snapshot: Snapshot) -> None:
    @router.post("/metrics/reset", summary="Forget all of the snapshot", response_class=Response)
    async def reset() -> Response:
        """Begin anew; `/metrics` is not touched, whose counters must not fall."""
        return _json({"reset": snapshot.reset()})

    @router.post("/metrics/reset/{name}", summary="Forget one metric", response_class=Response)
    async def reset_one(name: str, request: Request) -> Response:
        """Begin one metric of the snapshot anew."""
        names = snapshot.reset(name)
        return _json({"reset": names}) if names else _unknown(request, name)


def _json(body: object) -> Response:
    """The answer; a loss that is no number is written as null."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(msgspec.json.encode(body), 200, headers)


def _unknown(request: Request, name: str) -> Response:
    error = RouteNotFound(f"No metric {name!r}; GET /metrics/snapshot lists them.")
    request_id = uuid.uuid4().hex
    answer = problem_answer(error, instance=request.url.path, request_id=request_id)
    return Response(answer.body, answer.status, {**answer.headers, "x-request-id": request_id})

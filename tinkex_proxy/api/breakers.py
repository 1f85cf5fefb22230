"""The routes of the circuit breakers: look, follow, explain, take over."""

import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.core.circuit import Force
from tinkex_proxy.errors import InvalidRequest, ProxyError, RouteNotFound
from tinkex_proxy.runtime.breakers import Breaker
from tinkex_proxy.runtime.feed import Feed

__all__ = ["Breakers", "breakers_router"]

# A body is one number with its name.
MAX_BODY_BYTES: Final = 1024
# A year: whoever wants longer wants "until it is reset".
MAX_TTL_S: Final = 31_536_000.0

_SUMMARIES: Final[Mapping[Force, str]] = {
    Force.OPEN: "Let nothing through",
    Force.CLOSE: "Hold it closed: outcomes count, and none trips it",
    Force.DISABLE: "Let everything through and count nothing",
}


class _Hold(msgspec.Struct, forbid_unknown_fields=True):
    """For how long; without it, until it is reset."""

    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL_S)] | None = None


class Breakers:
    """All breakers, as the routes need them.

    Args:
        upstream: what they guard.
        held: gives all breakers with the public name of their key.
        feed: tells what moves.
    """

    def __init__(
        self, upstream: str, held: Callable[[], list[tuple[str, Breaker]]], feed: Feed
    ) -> None:
        self._upstream = upstream
        self._held = held
        self.feed = feed

    def snapshots(self) -> list[dict[str, object]]:
        """Every breaker; `state` is right without traffic."""
        return [breaker.snapshot(self._upstream, key_id) for key_id, breaker in self._held()]

    def force(self, breaker_id: str, what: Force, ttl_s: float | None) -> dict[str, object]:
        """Make one what an operator wants; gives its snapshot.

        Raises:
            RouteNotFound: there is none with this id.
        """
        self._find(breaker_id)[1].force(what, ttl_s)
        return self.snapshot(breaker_id)

    def reset(self, breaker_id: str) -> dict[str, object]:
        """Let one follow its upstream again; gives its snapshot.

        Raises:
            RouteNotFound: there is none with this id.
        """
        self._find(breaker_id)[1].reset()
        return self.snapshot(breaker_id)

    def explain(self, breaker_id: str) -> dict[str, object]:
        """Why one is as it is.

        Raises:
            RouteNotFound: there is none with this id.
        """
        return self._find(breaker_id)[1].explain()

    def snapshot(self, breaker_id: str) -> dict[str, object]:
        """One breaker.

        Raises:
            RouteNotFound: there is none with this id.
        """
        key_id, breaker = self._find(breaker_id)
        return breaker.snapshot(self._upstream, key_id)

    def _find(self, breaker_id: str) -> tuple[str, Breaker]:
        for key_id, breaker in self._held():
            if breaker.id == breaker_id:
                return key_id, breaker
        raise RouteNotFound(f"No breaker {breaker_id!r}; GET /breakers lists them.")


def breakers_router(breakers: Breakers) -> APIRouter:
    """The routes; `events` comes before the ids, which it would otherwise be taken for."""
    router = APIRouter(tags=["breakers"])
    _look(router, breakers)
    for force, summary in _SUMMARIES.items():
        _take_over(router, breakers, force, summary)
    _reset(router, breakers)
    return router


def _look(router: APIRouter, breakers: Breakers) -> None:
    @router.get("/breakers", summary="All circuit breakers")
    async def everyone() -> JSONResponse:
        """Every breaker; `state` is right without traffic."""
        return JSONResponse({"breakers": breakers.snapshots()})

    @router.get("/breakers/events", summary="What moves, as it moves", response_class=Response)
    async def events(request: Request) -> Response:
        """Server-sent events; `Last-Event-ID` asks for what came after it."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        told = breakers.feed.follow(request.headers.get("last-event-id"))
        return StreamingResponse(told, media_type="text/event-stream", headers=headers)

    @router.get("/breakers/{breaker_id}", summary="One circuit breaker")
    async def one(breaker_id: str, request: Request) -> Response:
        """One breaker by its id."""
        return _answer(request, lambda: breakers.snapshot(breaker_id))

    @router.get("/breakers/{breaker_id}/explain", summary="Why it is as it is")
    async def explain(breaker_id: str, request: Request) -> Response:
        """What counted, what did not and why, what came late, and what would change it."""
        return _answer(request, lambda: breakers.explain(breaker_id))


def _take_over(router: APIRouter, breakers: Breakers, force: Force, summary: str) -> None:
    path = f"/breakers/{{breaker_id}}/{force.value}"

    @router.post(path, summary=summary, name=f"{force.value}_breaker")
    async def take_over(breaker_id: str, request: Request) -> Response:
        """For `ttl_s` seconds (in the body, as JSON, or the query), or until it is reset."""
        raw = await _body(request)
        return _answer(request, lambda: breakers.force(breaker_id, force, _ttl_s(request, raw)))


def _reset(router: APIRouter, breakers: Breakers) -> None:
    @router.post("/breakers/{breaker_id}/reset", summary="Let it follow its upstream again")
    async def reset(breaker_id: str, request: Request) -> Response:
        """Forget everything: what was forced, what was counted, how often it tripped."""
        raw = await _body(request)

        def act() -> dict[str, object]:
            if _ttl_s(request, raw) is not None:
                raise InvalidRequest("A reset takes no ttl_s: it is done at once.")
            return breakers.reset(breaker_id)

        return _answer(request, act)


async def _body(request: Request) -> bytes:
    """The body, as far as it can be one that we take."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            break
    return raw[: MAX_BODY_BYTES + 1]


def _ttl_s(request: Request, raw: bytes) -> float | None:
    asked = dict(request.query_params)
    if raw.strip() and asked:
        raise InvalidRequest("ttl_s is wanted once: in the body or in the query.")
    try:
        if len(raw) > MAX_BODY_BYTES:
            raise msgspec.ValidationError(f"The body is longer than {MAX_BODY_BYTES} bytes")
        if raw.strip():
            return msgspec.json.decode(raw, type=_Hold).ttl_s
        return msgspec.convert(asked, _Hold, strict=False).ttl_s
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f'{error}. Send {{"ttl_s": 60}} or ?ttl_s=60: seconds above 0 and at most '
            f"{MAX_TTL_S:.0f}; or nothing, for until it is reset.",
            pointer="/ttl_s",
        ) from None


def _answer(request: Request, act: Callable[[], dict[str, object]]) -> Response:
    try:
        return JSONResponse(act())
    except ProxyError as error:
        request_id = uuid.uuid4().hex
        answer = problem_answer(error, instance=request.url.path, request_id=request_id)
        named = {**answer.headers, "x-request-id": request_id}
        return Response(answer.body, answer.status, named)

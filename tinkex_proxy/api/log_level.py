"""The log's level, looked at and changed over HTTP while the proxy runs.

A process that was started without a file has no other way: its environment and options stay what
they are. What is changed here lasts until it is changed again, here or by a reload that brings
another `log.level`, or until the process ends.
"""

import uuid

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.runtime.logs import LEVELS, Logs

__all__ = ["log_router"]


def log_router(logs: Logs) -> APIRouter:
    """`/log` and `/log/{level}`."""
    router = APIRouter(tags=["operations"])

    @router.get("/log", summary="The level of the log")
    async def level() -> JSONResponse:
        """Least severe line that is written; `GET /config` has the one that was configured."""
        return JSONResponse({"level": logs.level}, headers={"cache-control": "no-store"})

    @router.post("/log/{level}", summary="Change the level of the log", response_class=Response)
    async def turn(level: str, request: Request) -> Response:
        """`debug`, `info`, `warning` or `error`, from the next line on."""
        if level not in LEVELS:
            error = InvalidRequest(f"No level {level!r}; there are {', '.join(LEVELS)}.")
            request_id = uuid.uuid4().hex
            answer = problem_answer(error, instance=request.url.path, request_id=request_id)
            named = {**answer.headers, "x-request-id": request_id}
            return Response(answer.body, answer.status, named)
        logs.turn(level)
        return JSONResponse({"level": logs.level})

    return router

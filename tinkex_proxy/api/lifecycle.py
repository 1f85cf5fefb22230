"""What operators do to the process over HTTP: end it, and have it read its configuration again."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.errors import BadConfiguration
from tinkex_proxy.runtime.drain import Ending

__all__ = ["Lifecycle", "lifecycle_router"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """What these routes need.

    Attributes:
        ending: the end of this proxy.
        running: what is still under way, ready for JSON.
        reload: reads the configuration again; gives what came of it, ready for JSON.
    """

    ending: Ending
    running: Callable[[], Mapping[str, object]]
    reload: Callable[[], Mapping[str, object]]

    def progress(self) -> dict[str, object]:
        """How far the end is, and what it waits for."""
        left_s = self.ending.left_s
        return {
            "state": self.ending.stage.value,
            "asked_by": self.ending.why,
            "left_s": None if left_s is None else round(left_s, 3),
            **self.running(),
        }


def lifecycle_router(lifecycle: Lifecycle) -> APIRouter:
    """`/drain` and `/config/reload`."""
    router = APIRouter(tags=["operations"])

    @router.post("/drain", summary="Finish what runs, then end", status_code=202)
    async def drain() -> JSONResponse:
        """As SIGTERM: the process ends by itself. Asked again, it says how far it is."""
        lifecycle.ending.ask("POST /drain")
        headers = {"location": "/drain", "cache-control": "no-store"}
        return JSONResponse(lifecycle.progress(), 202, headers)

    @router.get("/drain", summary="How far the end is")
    async def progress() -> JSONResponse:
        """`serving`, `pausing`, `draining` or `leaving`, and what is still under way."""
        return JSONResponse(lifecycle.progress(), headers={"cache-control": "no-store"})

    @router.post("/config/reload", summary="Read the configuration again", response_class=Response)
    async def reload(request: Request) -> Response:
        """As SIGHUP: what can change does, all or nothing; what cannot is named."""
        try:
            return JSONResponse(dict(lifecycle.reload()))
        except BadConfiguration as error:
            request_id = uuid.uuid4().hex
            answer = problem_answer(error, instance=request.url.path, request_id=request_id)
            named = {**answer.headers, "x-request-id": request_id}
            return Response(answer.body, answer.status, named)

    return router

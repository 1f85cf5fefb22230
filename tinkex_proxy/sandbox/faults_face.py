"""Faults while the sandbox runs: looked at, changed, ended. Faults never hit these calls."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.faults import BadFault
from tinkex_proxy.sandbox.http import Routes
from tinkex_proxy.sandbox.plans import Plan, read_plan
from tinkex_proxy.sandbox.rehearsal import Rehearsal
from tinkex_proxy.sandbox.sessions import Sessions

__all__ = ["FaultsFace"]


class FaultsFace:
    """What whoever rehearses calls."""

    def __init__(self, rehearsal: Rehearsal, sessions: Sessions) -> None:
        self._rehearsal = rehearsal
        self._sessions = sessions

    async def faults(self, request: Request) -> Response:
        """Tell the plan; before that, PUT sets it and DELETE ends it."""
        if request.method == "PUT":
            try:
                self._rehearsal.change(read_plan(await request.body()))
            except BadFault as error:
                raise BadRequest(str(error)) from None
        elif request.method == "DELETE":
            self._rehearsal.change(Plan())
        return JSONResponse(self._rehearsal.described())

    async def expire(self, _: Request) -> Response:
        """End all sessions now, and their models with them."""
        return JSONResponse({"ended": self._sessions.end_all()})

    def routes(self) -> Routes:
        """Path, methods and endpoint of each."""
        return {
            "/sandbox/faults": ("GET PUT DELETE", self.faults),
            "/sandbox/sessions": ("DELETE", self.expire),
        }

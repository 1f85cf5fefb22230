"""What every request passes first: the key is checked, and the answer is marked as a sandbox's.

Plain ASGI: an answer goes out as it is made. Faults that a user rehearses come behind it (see
`injection`), so that their answers say too that a sandbox gave them.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gate"]

SERVER = "tinkex-sandbox"


class Gate:
    """Middleware.

    Args:
        app: what is behind it.
        keys: API keys that are let through; with none, everybody is.
    """

    def __init__(self, app: ASGIApp, keys: frozenset[str]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["server"] = SERVER
            await send(message)

        await self._answerer(scope)(scope, receive, marked)

    def _answerer(self, scope: Scope) -> ASGIApp:
        if not self._keys:
            return self._app
        key = Headers(scope=scope).get("x-api-key")
        if key is None:
            return JSONResponse({"detail": "API key is missing"}, 401)
        if key not in self._keys:
            return JSONResponse({"detail": "Invalid API key"}, 401)
        return self._app

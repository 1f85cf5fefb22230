"""Service calls: is it there, what does it offer, sessions."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinkex_proxy.sandbox.http import Routes, read_fields
from tinkex_proxy.sandbox.service import Service

__all__ = ["ServiceFace"]


class ServiceFace:
    """Service calls."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def healthz(self, _: Request) -> Response:
        """Say that it is up, and what it is."""
        return JSONResponse({"status": "ok", "service": "tinkex_proxy sandbox"})

    async def capabilities(self, _: Request) -> Response:
        """Tell the base models."""
        models = [
            {"model_name": name, "max_context_length": 32768, "trainable": True, "sampleable": True}
            for name in self._service.options.models
        ]
        return JSONResponse({"supported_models": models})

    async def client_config(self, _: Request) -> Response:
        """Tell the limits."""
        return JSONResponse(
            {
                "pjwt_auth_enabled": False,
                "fwdbwd_max_chunk_len": self._service.options.max_chunk_len,
                "fwdbwd_max_chunk_bytes_count": self._service.options.max_chunk_bytes,
            }
        )

    async def dynamic_config(self, _: Request) -> Response:
        """Tell nothing more."""
        return JSONResponse({})

    async def create_session(self, _: Request) -> Response:
        """Make a session."""
        session = self._service.sessions.create()
        message = "This is a sandbox: a toy model on this machine's CPU."
        return JSONResponse(
            {
                "type": "create_session",
                "session_id": session.session_id,
                "info_message": message,
                "warning_message": None,
                "error_message": None,
            }
        )

    async def heartbeat(self, request: Request) -> Response:
        """Keep a session alive."""
        body = await read_fields(request)
        self._service.sessions.beat(str(body.get("session_id")))
        return JSONResponse({"type": "session_heartbeat"})

    async def finish_session(self, request: Request) -> Response:
        """End a session, as its client asks when it closes."""
        self._service.finish_session(request.path_params["session_id"])
        return JSONResponse({"type": "session_finish"})

    async def telemetry(self, _: Request) -> Response:
        """Take telemetry and drop it."""
        return JSONResponse({"status": "accepted"})

    def routes(self) -> Routes:
        """Path, method and endpoint of each."""
        return {
            "/api/v1/healthz": ("GET", self.healthz),
            "/api/v1/get_server_capabilities": ("GET", self.capabilities),
            "/api/v1/client/config": ("POST", self.client_config),
            "/api/v1/client/dynamic_config": ("POST", self.dynamic_config),
            "/api/v1/create_session": ("POST", self.create_session),
            "/api/v1/session_heartbeat": ("POST", self.heartbeat),
            "/api/v1/sessions/{session_id}/finish": ("POST", self.finish_session),
            "/api/v1/telemetry": ("POST", self.telemetry),
        }

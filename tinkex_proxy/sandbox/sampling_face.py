"""Sampling calls, and the long poll that every submit ends in."""

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinkex_proxy.sandbox import forms
from tinkex_proxy.sandbox.bodies import BadRequest, Outputs
from tinkex_proxy.sandbox.futures import Failed, Gone, Result, Sampled
from tinkex_proxy.sandbox.http import PROTOBUF, Routes, read_form
from tinkex_proxy.sandbox.service import Service

__all__ = ["SamplingFace"]


class SamplingFace:
    """Sampling calls and polls."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def create_sampler(self, request: Request) -> Response:
        """Open a sampling session."""
        form, _ = await read_form(request, forms.CreateSampler)
        sampler = self._service.create_sampler(form)
        return JSONResponse(
            {"type": "create_sampling_session", "sampling_session_id": sampler.sampler_id}
        )

    async def join_sampler(self, request: Request) -> Response:
        """Number one more client of a sampling session."""
        form, _ = await read_form(request, forms.JoinSampler)
        number = self._service.shelf.sampler(form.sampling_session_id).join()
        return JSONResponse({"type": "join_sampling_session", "client_counter": number})

    async def asample(self, request: Request) -> Response:
        """Draw samples."""
        request_id, sequences = self._service.sample(*await read_form(request, forms.Asample))
        return JSONResponse({"request_id": request_id, "sample_sequence_ids": sequences})

    async def retrieve(self, request: Request) -> Response:
        """Hold a poll until the result is there."""
        form, _ = await read_form(request, forms.Retrieve)
        promise = self._service.promises.find(form.request_id)
        result = await self._service.promises.wait(promise, self._service.options.poll_hold_s)
        if result is None:
            waiting = {
                "type": "try_again",
                "request_id": form.request_id,
                "queue_state": "active",
                "queue_state_reason": None,
            }
            return JSONResponse(waiting, 408)
        answer = _encoded(result, request, json_only=self._service.options.flavours == "json")
        if (
            form.allow_metadata_only
            and len(answer.body) > self._service.options.metadata_above_bytes
        ):
            size = len(answer.body)
            return JSONResponse({"status": "complete_metadata", "response_payload_size": size})
        return answer

    async def cancel(self, _: Request) -> Response:
        """Take a cancellation; what runs, runs on."""
        return JSONResponse({"type": "cancel_future"})

    def routes(self) -> Routes:
        """Path, method and endpoint of each."""
        return {
            "/api/v1/create_sampling_session": ("POST", self.create_sampler),
            "/api/v1/join_sampling_session": ("POST", self.join_sampler),
            "/api/v1/asample": ("POST", self.asample),
            "/api/v1/retrieve_future": ("POST", self.retrieve),
            "/api/v1/cancel_future": ("POST", self.cancel),
        }


def _encoded(result: Result, request: Request, *, json_only: bool) -> Response:
    """A result as the poll asks for it."""
    protobuf = not json_only and PROTOBUF in request.headers.get("accept", "")
    if isinstance(result, Gone):
        raise BadRequest(result.reason, 410)
    if isinstance(result, Failed):
        return JSONResponse({"error": result.error, "category": result.category})
    if isinstance(result, Outputs):
        if protobuf:
            return Response(result.to_protobuf(), media_type=PROTOBUF)
        return Response(msgspec.json.encode(result.to_json()), media_type="application/json")
    if isinstance(result, Sampled):
        if protobuf:
            return Response(result.protobuf, media_type=PROTOBUF)
        return Response(msgspec.json.encode(result.json), media_type="application/json")
    return Response(msgspec.json.encode(result), media_type="application/json")

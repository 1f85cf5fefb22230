"""What all faces of the sandbox share: reading forms, keeping promises' names, refusing."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.futures import Promise

__all__ = ["PROTOBUF", "Endpoint", "Routes", "answering", "promised", "read_fields", "read_form"]

PROTOBUF = "application/x-protobuf"
T = TypeVar("T")
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Routes: TypeAlias = Mapping[str, tuple[str, Endpoint]]


def answering(endpoint: Endpoint) -> Endpoint:
    """Turn a refusal into its status before the framework sees it."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except BadRequest as error:
            return JSONResponse({"detail": str(error)}, error.status)

    return answer


async def read_form(request: Request, form: type[T]) -> tuple[T, bytes]:
    """The body, decoded and as it came.

    Raises:
        BadRequest: it does not fit the form.
    """
    body = await request.body()
    try:
        return msgspec.json.decode(body, type=form), body
    except msgspec.DecodeError as error:
        raise BadRequest(str(error)) from None


async def read_fields(request: Request) -> dict[str, object]:
    """The body as a JSON object."""
    fields, _ = await read_form(request, dict[str, object])
    return fields


def promised(promise: Promise) -> Response:
    """What a submit is answered with."""
    return JSONResponse({"request_id": promise.request_id, "model_id": promise.model_id})

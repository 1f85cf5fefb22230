"""The few ASGI moves that the hot paths make without a framework: read a body, send an answer."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TypeAlias

from tinkex_proxy.errors import PayloadTooLarge
from tinkex_proxy.runtime.ledger import Answer

__all__ = [
    "ASGIApp",
    "CallerLeft",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "headers_of",
    "read_body",
    "send_answer",
    "too_large",
]

Scope: TypeAlias = MutableMapping[str, object]
Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class CallerLeft(Exception):  # noqa: N818 - an event, not an error
    """The caller hung up; there is nobody to answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; of a repeated one, the last."""
    raw = scope["headers"]
    pairs: Iterable[tuple[bytes, bytes]] = raw if isinstance(raw, list | tuple) else ()
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}


async def read_body(headers: Mapping[str, str], receive: Receive, max_bytes: int) -> bytes:
    """Read the whole body.

    Raises:
        CallerLeft: it was cut off; what came is not the call, and may not stand for it under its
            `Idempotency-Key`.
        PayloadTooLarge: it says that it is, or turns out to be, longer than `max_bytes`.
    """
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_large(int(announced), max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunk = message.get("body", b"")
        if isinstance(chunk, bytes) and chunk:
            chunks.append(chunk)
            size += len(chunk)
        if size > max_bytes:
            raise too_large(size, max_bytes)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(size: int, max_bytes: int) -> PayloadTooLarge:
    """The error that names the limit and the size."""
    return PayloadTooLarge(
        f"The body has {size} bytes or more; the limit is {max_bytes} (server.max_body_bytes). "
        "Send the datums in several calls: gradients add up until optim_step."
    )


async def send_answer(send: Send, answer: Answer, extra: Mapping[str, str]) -> None:
    """Send head and body."""
    named = {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        **answer.headers,
        **extra,
    }
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})

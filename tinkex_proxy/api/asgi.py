"""The few ASGI moves that the hot paths make without a framework: read a body, send an answer."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tinkex_proxy.errors import BodyStalled, PayloadTooLarge
from tinkex_proxy.runtime.deadlines import within
from tinkex_proxy.runtime.intake import Hold
from tinkex_proxy.runtime.ledger import Answer

__all__ = [
    "ANSWER",
    "BODY",
    "CALLER",
    "CALLERS",
    "LEAVING",
    "NAMED",
    "SDK_ROUTE",
    "ASGIApp",
    "BodyLimits",
    "CallerLeft",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "StatusNoted",
    "announced",
    "body_there",
    "body_within",
    "by_name",
    "fit",
    "headers_of",
    "named_of",
    "pairs_of",
    "read_body",
    "read_pieces",
    "send_answer",
    "takes_answers",
    "too_large",
]

Scope: TypeAlias = MutableMapping[str, object]
Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Where callers ask for what is their own business; all else is the operators'.
CALLERS: Final = ("/v1/", "/api/v1/")
# The one route of all that SDKs ask for.
SDK_ROUTE: Final = "/api/v1/{path:path}"
# What our server offers besides ASGI (`cycle.py`); others have none of it.
BODY: Final = "tinkex.body"
ANSWER: Final = "tinkex.answer"
CALLER: Final = "tinkex.caller"
LEAVING: Final = "tinkex.leaving"
NAMED: Final = "tinkex.named"


class CallerLeft(Exception):  # noqa: N818 - an event, not an error
    """The caller hung up; there is nobody to answer."""


def pairs_of(scope: Scope) -> Sequence[tuple[bytes, bytes]]:
    """The request's headers as they came, names in lower case."""
    raw = scope["headers"]
    return raw if isinstance(raw, list | tuple) else ()


def named_of(scope: Scope) -> Mapping[bytes, bytes] | None:
    """The same by name, if none comes twice; else None."""
    offered = scope.get("extensions")
    if isinstance(offered, dict) and NAMED in offered:
        known: Mapping[bytes, bytes] | None = offered[NAMED]
        return known
    return by_name(pairs_of(scope))


def by_name(pairs: Sequence[tuple[bytes, bytes]]) -> Mapping[bytes, bytes] | None:
    """Headers by name, if none comes twice; else None."""
    named = dict(pairs)
    return named if len(named) == len(pairs) else None


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; of a repeated one, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs_of(scope)}


def body_there(scope: Scope) -> bytes | None:
    """The request's body, if all of it has come and the server tells; nobody else gets it then."""
    offered = scope.get("extensions")
    take = offered.get(BODY) if isinstance(offered, dict) else None
    return take() if take is not None else None


def takes_answers(scope: Scope) -> bool:
    """Whether an answer may be sent in one message."""
    offered = scope.get("extensions")
    return isinstance(offered, dict) and ANSWER in offered


class StatusNoted:
    """A `send` that notes the status of the answer.

    Args:
        send: sends it.

    Attributes:
        status: of the answer; None before its head has come.
    """

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        """Pass a message on."""
        status = message.get("status")
        if isinstance(status, int):
            self.status = status
        return self._send(message)


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a body may be.

    Attributes:
        max_bytes: longest.
        stall_s: longest time in which nothing of it comes.
    """

    max_bytes: int
    stall_s: float


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    limits: BodyLimits,
    hold: Hold | None = None,
) -> bytes:
    """Read the whole body, as `read_pieces` does, and join it here and now."""
    return b"".join(await read_pieces(headers, receive, limits, hold))


def body_within(scope: Scope, limits: BodyLimits, hold: Hold) -> bytes | None:
    """The whole body, if it has come (`body_there`); None if it has to be read.

    Raises:
        Overloaded, PayloadTooLarge: as for one that is read.
    """
    there = body_there(scope)
    if there is not None:
        fit(len(there), limits, hold)
    return there


async def read_pieces(
    headers: Mapping[str, str],
    receive: Receive,
    limits: BodyLimits,
    hold: Hold | None = None,
) -> list[bytes]:
    """Read the whole body, in the pieces in which it comes.

    Args:
        headers: by lower-case name.
        receive: gives it.
        limits: what it may be.
        hold: grows as long as the body is announced to be, or with it; None where it is so short
            that nobody counts it.

    Raises:
        BodyStalled: nothing of it came for too long.
        CallerLeft: it was cut off; what came is not the call, and may not stand for it under its
            `Idempotency-Key`.
        Overloaded: there is no room for it; where its length was announced, nothing of it was read.
        PayloadTooLarge: it says that it is, or turns out to be, longer than it may be.
    """
    fit(announced(headers), limits, hold)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        chunk, more = await _chunk(receive, limits.stall_s)
        if chunk:
            chunks.append(chunk)
            size += len(chunk)
        fit(size, limits, hold)
    return chunks


def announced(headers: Mapping[str, str]) -> int:
    """How many bytes a body is said to have; 0 where that is not said."""
    said = headers.get("content-length", "")
    return int(said) if said.isdigit() else 0


def fit(size: int, limits: BodyLimits, hold: Hold | None = None) -> None:
    """Make sure that so many bytes of a body are allowed, and that there is room for them.

    Args:
        size: how many.
        limits: what it may be.
        hold: grows to it; None where that is somebody else's to do.

    Raises:
        Overloaded, PayloadTooLarge: they are not.
    """
    if size > limits.max_bytes:
        raise too_large(size, limits.max_bytes)
    if hold is not None:
        hold.grow(size)


async def _chunk(receive: Receive, seconds: float) -> tuple[bytes, bool]:
    """What comes next of a body, and whether there is more."""
    message = await _soon(receive, seconds)
    if message["type"] == "http.disconnect":
        raise CallerLeft
    chunk = message.get("body", b"")
    return chunk if isinstance(chunk, bytes) else b"", bool(message.get("more_body", False))


async def _soon(receive: Receive, seconds: float) -> Message:
    try:
        with within(seconds):
            return await receive()
    except TimeoutError:
        raise BodyStalled(
            f"Nothing of the body came for {seconds:g} s (admission.body_timeout_s); room is held "
            "for it meanwhile. Nothing was sent; send the call again.",
        ) from None


def too_large(size: int, max_bytes: int) -> PayloadTooLarge:
    """The error that names the limit and the size."""
    return PayloadTooLarge(
        f"The body has {size} bytes or more; the limit is {max_bytes} (server.max_body_bytes). "
        "Send the datums in several calls: gradients add up until optim_step."
    )


async def send_answer(
    send: Send, answer: Answer, extra: Mapping[str, str], *, whole: bool = False
) -> None:
    """Send head and body; in one message if it is to be `whole` (`takes_answers`)."""
    named = {"content-type": "application/json", **answer.headers, **extra}
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
    if whole:
        told = {"type": ANSWER, "status": answer.status, "headers": headers, "body": answer.body}
        await send(told)
        return
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})

"""Passing a request on as it came, and its answer back: nothing is decoded, all is streamed.

Method, path, query, end-to-end headers and body go up as they are, compressed bodies included, and
the answer comes back the same way, in the pieces it arrives in; long polls are held. Where the
proxy has to see an answer (`Seen`), that one is asked for uncompressed and read whole.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from tinkex_proxy.api.asgi import (
    ANSWER,
    BodyLimits,
    CallerLeft,
    Receive,
    Scope,
    Send,
    announced,
    by_name,
    named_of,
    pairs_of,
    read_body,
)
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.runtime.intake import Hold
from tinkex_proxy.runtime.trace_context import NAMES, TraceContext
from tinkex_proxy.runtime.transport import Passed, Passing, encoded
from tinkex_proxy.runtime.upstream import Unanswered, Upstream
from tinkex_proxy.runtime.whose import Whose

__all__ = ["Seen", "body_of", "hand_down", "passing_of", "placed", "relay"]

# Bodies up to this size are read before they are sent; longer ones go up as they come.
WHOLE_BYTES = 1024 * 1024

# RFC 9110 section 7.6.1, and what the next hop's client sets for itself.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

_NOT_UP = _HOP_BY_HOP | {b"content-length"}
_NOT_BACK = _HOP_BY_HOP | {b"date"}  # uvicorn dates it
_NOT_BACK_WHOLE = _NOT_BACK | {b"content-length"}
# These have none, and may say how long it would be; uvicorn would wait for it.
_BODILESS = frozenset({204, 304})
_TRACING = frozenset(name.encode() for name in NAMES)

# Looks at the answer to a request, and gives what its sender gets instead of the answer's body.
Seen = Callable[[bytes], bytes]


async def relay(  # noqa: PLR0913 - what a relayed request is made of
    upstream: Upstream,
    operation: Operation,
    passing: Passing,
    send: Send,
    *,
    seen: Seen | None = None,
    pause: Callable[[], Awaitable[None]] | None = None,
    whole: bool = False,
) -> None:
    """Send a request up and its answer down.

    Args:
        upstream: under whose key and breaker.
        operation: how the exchange is judged.
        passing: the request.
        send: takes the answer.
        seen: shown the body of a good answer, which is then read whole.
        pause: waits before an answer of 5xx goes down.
        whole: whether `send` takes an answer in one message.

    Raises:
        CircuitOpen: the breaker is open; nothing was sent.
        Unanswered: no answer came; nothing was sent down.
        CallerLeft: the answer broke off; half of it is out, so only cutting it off is honest.
    """
    if seen is not None:
        headers = [pair for pair in passing.headers if pair[0] != b"accept-encoding"]
        passing = replace(passing, headers=[*headers, (b"accept-encoding", b"identity")])
    begun = False
    try:
        if passing.short:
            passed = await upstream.relay_whole(operation, passing)
            if seen is not None:
                passed = await _shown(passed, seen)
            await hand_down(passed, send, whole=whole)
            return
        async with upstream.relay(operation, passing) as passed:
            answer = await _shown(passed, seen)
            if pause is not None and passed.status >= 500:
                await pause()
            begun = True
            await hand_down(answer, send)
    except Unanswered:
        if begun:
            raise CallerLeft from None
        raise


async def body_of(
    headers: Mapping[str, str],
    receive: Receive,
    limits: BodyLimits,
    hold: Hold,
) -> bytes | AsyncIterator[bytes]:
    """A request's body, to be passed on: whole if it is short, else as it comes.

    Args:
        headers: its headers by name.
        receive: gives its body.
        limits: what the body may be.
        hold: what the request holds: its body, or of a longer one what is on its way.

    Raises:
        BodyStalled: nothing of the body came for too long.
        CallerLeft: it was cut off.
        Overloaded: there is no room for it.
        PayloadTooLarge: it is longer than it may be.
    """
    size = announced(headers)
    if size <= WHOLE_BYTES or size > limits.max_bytes:
        return await read_body(headers, receive, limits, hold)
    hold.grow(WHOLE_BYTES)
    return _pieces(receive)


def passing_of(
    scope: Scope,
    body: bytes | AsyncIterator[bytes],
    *,
    timeout_s: float,
    short: bool,
    whose: Whose,
    route: str,
) -> Passing:
    """The request to pass on.

    Args:
        scope: what it came as.
        body: its body.
        timeout_s: how long the head of an answer is waited for.
        short: whether the answer is known to be.
        whose: what it is, in logs, and its place in a trace.
        route: its path, from a set that callers cannot make grow.
    """
    # Without a length of its caller's, the client sets it from the body that it is given.
    dropped = _NOT_UP if isinstance(body, bytes) else _HOP_BY_HOP
    pairs = pairs_of(scope)
    dropped = _dropped(dropped, pairs, named_of(scope))
    named = [pair for pair in pairs if pair[0] not in dropped and pair[0][:9] != b"x-tinkex-"]
    method, target = str(scope["method"]), _target(scope)
    return Passing(method, target, named, body, timeout_s, short, whose.trace, (whose,), route)


def placed(passing: Passing, trace: TraceContext) -> Passing:
    """A request with its own place in a trace, instead of its sender's."""
    others = [pair for pair in passing.headers if pair[0] not in _TRACING]
    return replace(passing, headers=[*others, *encoded(trace.headers().items())], trace=trace)


async def _shown(passed: Passed, seen: Seen | None) -> Passed:
    """An answer; a good one as it is to be after somebody has seen it."""
    if seen is None or not 200 <= passed.status < 300:
        return passed
    whole = seen(await passed.whole())
    headers = [pair for pair in passed.headers if pair[0] != b"content-length"]
    return Passed(passed.status, [*headers, (b"content-length", b"%d" % len(whole))], whole)


async def hand_down(
    passed: Passed,
    send: Send,
    *,
    whole: bool = False,
    more: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Give an answer back: in one message, or head first and then each piece as it comes.

    Args:
        passed: the answer.
        send: takes it.
        whole: whether all of it is there, and `send` takes it in one message.
        more: headers of ours.
    """
    bodiless = passed.status in _BODILESS
    ours = _NOT_BACK_WHOLE if whole or bodiless else _NOT_BACK
    dropped = _dropped(ours, passed.headers, by_name(passed.headers))
    headers = [pair for pair in passed.headers if pair[0] not in dropped]
    headers += more
    if whole and not bodiless:
        said = {"type": ANSWER, "status": passed.status, "headers": headers, "body": passed.body}
        await send(said)
        return
    await send({"type": "http.response.start", "status": passed.status, "headers": headers})
    if isinstance(passed.body, bytes):
        await send({"type": "http.response.body", "body": passed.body})
        return
    async for piece in passed.pieces():
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _target(scope: Scope) -> str:
    """Path and query as they came, escapes included."""
    raw, query = scope.get("raw_path"), scope.get("query_string")
    path = raw.decode("latin-1") if isinstance(raw, bytes) else str(scope["path"])
    return f"{path}?{query.decode('latin-1')}" if isinstance(query, bytes) and query else path


def _dropped(
    dropped: frozenset[bytes],
    headers: Sequence[tuple[bytes, bytes]],
    named: Mapping[bytes, bytes] | None,
) -> frozenset[bytes]:
    """Names of headers that are not passed on: some, and those that `Connection` names.

    Args:
        dropped: some.
        headers: all that there are.
        named: the same by name, if none comes twice.
    """
    if named is None or named.get(b"connection", b"keep-alive") != b"keep-alive":
        for name, value in headers:
            if name == b"connection":
                dropped |= {token.strip() for token in value.lower().split(b",")}
    return dropped


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        piece = message.get("body", b"")
        if isinstance(piece, bytes) and piece:
            yield piece
        if not message.get("more_body", False):
            return

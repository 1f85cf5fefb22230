"""The least that a Python proxy has to do: what is below it, the server and the client cost.

`echo` answers with fixed bytes once the body has come; `proxy` sends the body up with the client
that we use and its answer down, `reqwest` with the one that we use for https. None of them looks at
anything, watches anything, or minds an error.
"""

import os
from collections.abc import Awaitable, Callable

import pyqwest

from tinkex_proxy.runtime.http1_transport import Http1Transport
from tinkex_proxy.runtime.transport import Passing

Message = dict[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPSTREAM = os.environ.get("COMPARE_UPSTREAM", "")
BODY = b'{"request_id":"fixed"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))],
}
END = {"type": "http.response.body", "body": BODY}
NAMES = (b"content-type", b"x-api-key")
KEPT = (b"content-type", b"content-length")
OURS = Http1Transport(UPSTREAM) if UPSTREAM else None
# By hyper's count: as many idle connections as there are callers.
REQWEST = pyqwest.Client(
    pyqwest.HTTPTransport(pool_max_idle_per_host=4096, follow_redirects=False, enable_otel=False)
)


async def _body(receive: Receive) -> bytes:
    message = await receive()
    if not message.get("more_body"):
        return bytes(message.get("body", b""))
    pieces = [bytes(message.get("body", b""))]
    while message.get("more_body"):
        message = await receive()
        pieces.append(bytes(message.get("body", b"")))
    return b"".join(pieces)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Answer the same to everything."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await _body(receive)
    await send(START)
    await send(END)


async def proxy(scope: Message, receive: Receive, send: Send) -> None:
    """Pass a body up and an answer down."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = await _body(receive)
    headers = [pair for pair in scope["headers"] if pair[0] in NAMES]
    answer = await OURS.relay_whole(Passing("POST", scope["path"], headers, body, 60.0))
    kept = [pair for pair in answer.headers if pair[0] in KEPT]
    await send({"type": "http.response.start", "status": answer.status, "headers": kept})
    await send({"type": "http.response.body", "body": answer.body})


async def reqwest(scope: Message, receive: Receive, send: Send) -> None:
    """The same, with the other client."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = await _body(receive)
    headers = [(n.decode(), v.decode()) for n, v in scope["headers"] if n in NAMES]
    answer = await REQWEST.execute("POST", f"{UPSTREAM}{scope['path']}", headers, body)
    named = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    kept = [pair for pair in named if pair[0] in KEPT]
    await send({"type": "http.response.start", "status": answer.status, "headers": kept})
    await send({"type": "http.response.body", "body": answer.content})

"""The official SDKs, unmodified: `/api/v1/*` is passed on as it comes, and back.

`TINKER_BASE_URL=http://localhost:8465` is all a user of the SDK sets. Method, path, query,
end-to-end headers and body go up as they are, compressed bodies included, and the answer comes back
the same way, in the pieces it arrives in; long polls are held; nothing is decoded. What the proxy
adds is the breaker of the caller's key, metrics, and refusals that the SDK can bear:

* a submit or a question is answered 503 with a jittered `Retry-After` of at most a minute, which
  SDK 0.38 obeys to the second (so without jitter all its clients would come back at once);
* a poll is held and then answered 408 with `try_again`: answered 503, the SDK asks again at once,
  470 times a second and future (measured on 0.38.0);
* heartbeats always go up, because a session that misses them takes its models with it.

Errors of ours have the upstream's own shape, `{"detail": …}`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping

import msgspec
from starlette.routing import BaseRoute, Route

from tinkex_proxy.api.asgi import (
    Receive,
    Scope,
    Send,
    headers_of,
    read_body,
    send_answer,
    too_large,
)
from tinkex_proxy.api.callers import CallerLeft, key_of
from tinkex_proxy.api.calls import Services
from tinkex_proxy.api.problems import status_of
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import CircuitOpen, Draining, ProxyError
from tinkex_proxy.runtime.events import CallEnded
from tinkex_proxy.runtime.ledger import Answer
from tinkex_proxy.runtime.transport import Passed, Passing
from tinkex_proxy.runtime.upstream import Unanswered, Upstream

__all__ = ["SdkRoute", "operation_of", "sdk_routes"]

# Bodies up to this size are read before they are sent; longer ones go up as they come.
WHOLE_BYTES = 1024 * 1024
# A held poll ends before the 45 s after which the SDK asks for it anew.
MAX_HOLD_S = 40.0
MAX_RETRY_AFTER_S = 60.0
# The SDK's own polls are abandoned after 90 s, SkyRL holds them for 300 s.
POLL_TIMEOUT_S = 330.0

# RFC 9110 §7.6.1, and what the next hop's client sets for itself.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_POLLS = frozenset({"retrieve_future", "retrieve_futures"})


def operation_of(method: str, path: str) -> Operation:
    """How a request is judged and refused."""
    name = path.rpartition("/")[2]
    if name in _POLLS:
        return Operation.POLL
    if name == "session_heartbeat":
        return Operation.HEARTBEAT
    return Operation.SUBMIT if method == "POST" else Operation.QUERY


class SdkRoute:
    """The endpoint of everything under `/api/v1`.

    Args:
        services: accounts, clock, hub.
        request_timeout_s: how long the head of an answer is waited for, polls apart.
    """

    def __init__(self, services: Services, *, request_timeout_s: float) -> None:
        self._services = services
        self._request_timeout_s = request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on and its answer back."""
        services = self._services
        operation = operation_of(str(scope["method"]), str(scope["path"]))
        began, code = services.clock.now(), "ok"
        try:
            await self._pass(operation, scope, receive, send)
        except CallerLeft:
            code = "withdrawn"
        except ProxyError as error:
            code = error.code
            await send_answer(send, _refusal(error), {})
        finally:
            took = services.clock.now() - began
            services.hub.tell(CallEnded(f"sdk_{operation.value}", code, took))

    async def _pass(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        if self._services.draining:
            raise Draining("The proxy is shutting down and takes no new calls.", retry_after_s=1.0)
        headers = headers_of(scope)
        passing = await self._passing(operation, scope, headers, receive)
        account = self._services.accounts.of(key_of(headers))
        relaying = asyncio.get_running_loop().create_task(
            self._relay(account.upstream, operation, passing, send)
        )
        account.serve(relaying)
        gone: asyncio.Task[None] | None = None
        if isinstance(passing.body, bytes):  # else its pieces are still being received
            gone = asyncio.get_running_loop().create_task(_hung_up(receive))
        try:
            tasks = [relaying] if gone is None else [relaying, gone]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not relaying.done():
                raise CallerLeft
            await relaying
        finally:
            for task in (relaying, gone):
                if task is not None:
                    task.cancel()

    async def _relay(
        self, upstream: Upstream, operation: Operation, passing: Passing, send: Send
    ) -> None:
        """Send, or hold a poll that cannot be sent now and tell it to come again."""
        begun = False
        try:
            async with upstream.relay(operation, passing) as passed:
                begun = True
                await _pass_back(passed, send)
        except CircuitOpen as error:
            if operation is not Operation.POLL:
                raise
            await self._hold(passing, error.detail, error.retry_after_s or 1.0, send)
        except Unanswered as silence:
            if begun:
                raise CallerLeft from None  # half an answer is out: only cutting it off is honest
            detail = f"The upstream did not answer ({silence.detail})."
            if operation is not Operation.POLL:
                raise CircuitOpen(detail, retry_after_s=1.0) from None
            await self._hold(passing, detail, 2.0, send)

    async def _hold(self, passing: Passing, reason: str, seconds: float, send: Send) -> None:
        await self._services.clock.sleep(min(seconds, MAX_HOLD_S))
        body = {
            "type": "try_again",
            "request_id": _request_id(passing.body),
            "queue_state": "paused_capacity",
            "queue_state_reason": reason,
        }
        await send_answer(send, Answer(408, msgspec.json.encode(body)), {})

    async def _passing(
        self, operation: Operation, scope: Scope, headers: Mapping[str, str], receive: Receive
    ) -> Passing:
        polls = operation is Operation.POLL
        max_bytes = self._services.settings.max_body_bytes
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdigit() else 0
        if size > max_bytes:
            raise too_large(size, max_bytes)
        body: bytes | AsyncIterator[bytes]
        if size > WHOLE_BYTES:
            body = _pieces(receive)
        else:
            body = await read_body(headers, receive, max_bytes)
        return Passing(
            str(scope["method"]),
            _target(scope),
            _end_to_end(scope, keep_length=not isinstance(body, bytes)),
            body,
            POLL_TIMEOUT_S if polls else self._request_timeout_s,
        )


async def _pass_back(passed: Passed, send: Send) -> None:
    """Head first, then each piece as it comes."""
    dropped = {*_HOP_BY_HOP, *_named_in_connection(passed.headers), "date"}  # uvicorn dates it
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in passed.headers
        if name.lower() not in dropped
    ]
    await send({"type": "http.response.start", "status": passed.status, "headers": headers})
    async for piece in passed.body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _refusal(error: ProxyError) -> Answer:
    headers = {}
    if error.retry_after_s is not None:
        spread = random.uniform(1.0, 1.5)  # noqa: S311 - jitter, not a secret
        seconds = min(MAX_RETRY_AFTER_S, max(1.0, error.retry_after_s * spread))
        headers["retry-after"] = f"{seconds:.0f}"
    return Answer(status_of(error), msgspec.json.encode({"detail": error.detail}), headers)


def _target(scope: Scope) -> str:
    """Path and query as they came, escapes included."""
    raw, query = scope.get("raw_path"), scope.get("query_string")
    path = raw.decode("latin-1") if isinstance(raw, bytes) else str(scope["path"])
    return f"{path}?{query.decode('latin-1')}" if isinstance(query, bytes) and query else path


def _end_to_end(scope: Scope, *, keep_length: bool) -> list[tuple[str, str]]:
    raw = scope["headers"]
    pairs = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in (raw if isinstance(raw, list | tuple) else ())
    ]
    dropped = {*_HOP_BY_HOP, *_named_in_connection(pairs)}
    if not keep_length:
        dropped.add("content-length")  # the client sets it from the body it is given
    return [
        (name, value)
        for name, value in pairs
        if name not in dropped and not name.startswith("x-tinkex-")
    ]


def _named_in_connection(headers: object) -> set[str]:
    pairs = headers if isinstance(headers, list | tuple) else ()
    said = [value for name, value in pairs if name.lower() == "connection"]
    return {token.strip().lower() for value in said for token in value.split(",")}


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


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _request_id(body: object) -> str | None:
    try:
        named = msgspec.json.decode(
            body if isinstance(body, bytes) else b"", type=dict[str, object]
        )
    except msgspec.DecodeError:
        return None
    found = named.get("request_id")
    return found if isinstance(found, str) else None


def sdk_routes(services: Services, *, request_timeout_s: float) -> list[BaseRoute]:
    """Everything under `/api/v1`, whatever its method."""
    return [Route("/api/v1/{path:path}", SdkRoute(services, request_timeout_s=request_timeout_s))]

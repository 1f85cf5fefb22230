"""Faults carried out: something is done to a request or an answer as a whole.

Plain ASGI, inside the gate. What acts is the application behind it: "before acting" means that it
never saw the request, "after acting" that it did its work and its answer was kept from the client.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

import msgspec
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinkex_proxy.sandbox.abort import abort_of
from tinkex_proxy.sandbox.dice import NOTHING, Decision
from tinkex_proxy.sandbox.faults import Error, Lost, Paused, Reset
from tinkex_proxy.sandbox.rehearsal import Rehearsal

__all__ = ["OWN", "FaultInjector"]

OWN = "/sandbox/"  # paths that faults never hit
PIECES_PER_S = 10  # of a slow body
Sleep = Callable[[float], Awaitable[None]]


class FaultInjector:
    """Middleware.

    Args:
        app: what is behind it.
        rehearsal: decides about each request.
        expire: ends all sessions.
        sleep: waits; for tests.
    """

    def __init__(
        self,
        app: ASGIApp,
        rehearsal: Rehearsal,
        expire: Callable[[], object],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._app = app
        self._rehearsal = rehearsal
        self._expire = expire
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, with what is decided about it."""
        decision = NOTHING
        if scope["type"] == "http" and not scope["path"].startswith(OWN):
            decision = self._rehearsal.decide(scope["path"])
        if decision is NOTHING:
            await self._app(scope, receive, send)
            return
        if decision.delay_s > 0:
            await self._sleep(decision.delay_s)
        if decision.expire:
            self._expire()
        if decision.request_bytes_per_s is not None:
            receive = self._unhurried(receive, decision.request_bytes_per_s)
        if decision.instead is not None:
            # It comes whole, or the client would see its own sending fail instead.
            receive = _given(await _whole_body(receive), receive)
            await self._give(decision.instead, scope, receive, send)
        else:
            await self._act(decision, scope, receive, send)

    async def _act(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> None:
        again = decision.again
        if again is None:
            await self._act_once(decision, scope, receive, send)
            return
        body = await _whole_body(receive)
        if again.lag_s == 0:
            await self._app(dict(scope), _given(body, receive), _dropped)
        await self._act_once(decision, scope, _given(body, receive), send)
        if again.lag_s > 0:
            await self._sleep(again.lag_s)
            await self._app(dict(scope), _given(body, receive), _dropped)

    async def _act_once(
        self, decision: Decision, scope: Scope, receive: Receive, send: Send
    ) -> None:
        afterwards = decision.afterwards
        if decision.bytes_per_s is not None:
            send = self._paced(send, decision.bytes_per_s)
        if isinstance(afterwards, Reset) and afterwards.when == "midway":
            await self._app(dict(scope), receive, _halved(scope, receive, send))
        elif afterwards is not None:
            await self._app(dict(scope), receive, _dropped)
            await self._give(afterwards, scope, receive, send)
        else:
            await self._app(dict(scope), receive, send)

    async def _give(
        self, fault: Error | Reset | Lost | Paused, scope: Scope, receive: Receive, send: Send
    ) -> None:
        match fault:
            case Reset():
                await _reset(scope, receive)
            case Error():
                await _refusal(fault)(scope, receive, send)
            case Lost():
                await _lose(fault, scope, receive)
            case Paused():
                answer = _pause(fault, await _whole_body(receive))
                await self._sleep(fault.hold_s)
                await answer(scope, receive, send)

    def _unhurried(self, receive: Receive, bytes_per_s: float) -> Receive:
        """Take a body in slowly; the server lets the sender wait while more of it is pending."""

        async def slowly() -> Message:
            message = await receive()
            await self._sleep(len(message.get("body", b"")) / bytes_per_s)
            return message

        return slowly

    def _paced(self, send: Send, bytes_per_s: float) -> Send:
        size = max(1, int(bytes_per_s / PIECES_PER_S))

        async def slowly(message: Message) -> None:
            body = message.get("body", b"")
            while len(body) > size:
                await send({"type": "http.response.body", "body": body[:size], "more_body": True})
                await self._sleep(size / bytes_per_s)
                body = body[size:]
            await send({**message, "body": body} if body else message)

        return slowly


def _refusal(fault: Error) -> JSONResponse:
    headers = {}
    if fault.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(fault.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(fault.retry_after_s * 1000))
    detail = f"A fault of the sandbox, {fault.when} acting"
    return JSONResponse({"detail": detail}, fault.status, headers)


def _pause(fault: Paused, body: bytes) -> JSONResponse:
    try:
        request_id = msgspec.json.decode(body, type=dict[str, object]).get("request_id")
    except msgspec.MsgspecError:
        request_id = None
    waiting = {"type": "try_again", "request_id": request_id}
    return JSONResponse(
        {**waiting, "queue_state": fault.state, "queue_state_reason": fault.reason}, 408
    )


async def _reset(scope: Scope, receive: Receive) -> None:
    abort = abort_of(scope)
    if abort is None:
        raise ConnectionResetError("a fault of the sandbox; this server cannot reset connections")
    abort()
    await _until_gone(receive)  # or uvicorn would take our silence for a mistake


async def _lose(fault: Lost, scope: Scope, receive: Receive) -> None:
    try:
        async with asyncio.timeout(fault.hold_s):
            await _until_gone(receive)
    except TimeoutError:
        await _reset(scope, receive)


def _halved(scope: Scope, receive: Receive, send: Send) -> Send:
    async def half(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "body": body[: len(body) // 2], "more_body": True})
        await _reset(scope, receive)

    return half


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole_body(receive: Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _given(body: bytes, receive: Receive) -> Receive:
    """The same body once more, and then what else comes."""
    given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return given.pop() if given else await receive()

    return give


async def _dropped(_: Message) -> None:
    """Keep an answer from its client."""

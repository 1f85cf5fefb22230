"""The official SDKs, unmodified: everything under `/api/v1/`.

`TINKER_BASE_URL=http://localhost:8465` is all a user of the SDK sets. Training calls join their
model's lane (`sdk_lane.py`; `sdk.mode = "transparent"` switches it off), all else is relayed as it
comes (`relay.py`) under the breaker of the caller's key, and refusals are such as the SDK obeys
(`sdk_refusals.py`). Heartbeats always go up, because a session that misses them takes its models
with it. While the proxy shuts down, polls go on too: what was taken on is still delivered.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import msgspec
from starlette.routing import BaseRoute, Route

from tinkex_proxy.api.asgi import (
    SDK_ROUTE,
    Message,
    Receive,
    Scope,
    Send,
    body_there,
    headers_of,
    read_pieces,
    send_answer,
    takes_answers,
)
from tinkex_proxy.api.callers import CallerLeft, key_of
from tinkex_proxy.api.calls import Services
from tinkex_proxy.api.compression import inflated
from tinkex_proxy.api.http_metrics import SDK_CALLS
from tinkex_proxy.api.relay import Seen, passing_of, placed, relay
from tinkex_proxy.api.sdk_futures import SdkFutures, Timed
from tinkex_proxy.api.sdk_lane import LANE_CALLS, OPERATION, LaneCalls, Request
from tinkex_proxy.api.sdk_refusals import held_for, refusal, spread, try_again
from tinkex_proxy.api.sdk_seen import beat_of, seen_of
from tinkex_proxy.api.server_timing import HEADER, server_timing
from tinkex_proxy.api.traced import trace_named, trace_of
from tinkex_proxy.api.watch import Released, Watch
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.timeline import Part, Timeline
from tinkex_proxy.errors import (
    CircuitOpen,
    Draining,
    MethodNotAllowed,
    OutcomeUnknown,
    ProxyError,
)
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import CallEnded, CallTimed, Note
from tinkex_proxy.runtime.intake import Hold
from tinkex_proxy.runtime.ledger import Answer
from tinkex_proxy.runtime.records import AskedRecord, CallRecord
from tinkex_proxy.runtime.trace_context import recorded
from tinkex_proxy.runtime.transport import Passing
from tinkex_proxy.runtime.upstream import Unanswered
from tinkex_proxy.runtime.whose import Whose

__all__ = ["SdkRoute", "SdkRouteSettings", "operation_of", "sdk_routes"]

# The SDK's own polls are abandoned after 90 s, SkyRL holds them for 300 s.
POLL_TIMEOUT_S = 330.0
# A poll that the upstream answers 5xx is repeated by the SDK at once, without end.
POLL_PAUSE_S = 1.0
_BASE = "/api/v1/"
# The first would show the configured key to whoever asks an upstream that echoes.
_NOT_RELAYED = frozenset({"TRACE", "CONNECT"})
# The code of a request whose caller did not wait for the answer.
_LEFT = "withdrawn"
# Refused, the SDK would ask for these at once and without end, or lose its models. They only wait.
_NEVER_SHED = frozenset({Operation.POLL, Operation.HEARTBEAT})
# What is waited for with these is the upstream's work, not its taking a request.
_ANSWERED_LATE = frozenset({Operation.POLL, Operation.QUERY})
# These are answered with a promise, or a word. All else may be long, and goes down as it comes.
_ANSWERED_SHORTLY = frozenset({Operation.SUBMIT, Operation.HEARTBEAT})
_POLLS = frozenset({"retrieve_future", "retrieve_futures"})
# What a poll or a heartbeat says fits many times over, and every connection may have as much on its
# way. So polls and heartbeats up to this size are neither shed nor counted.
UNCOUNTED_BYTES = 64 * 1024
# Relayed calls whose body or answer the proxy has to see in lane mode.
_LOOKED_AT = frozenset({"client/config", "create_model", "retrieve_future", "session_heartbeat"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkRouteSettings:
    """What holds for every SDK call.

    Attributes:
        lanes: whether training calls join lanes.
        coalesce: whether they share requests where they do not say.
        request_timeout_s: how long the head of an answer is waited for, polls apart.
    """

    lanes: bool
    coalesce: bool
    request_timeout_s: float


class _Incoming(msgspec.Struct, frozen=True):
    """A request that has come: its call, itself, and its body uncompressed where that is needed."""

    name: str
    passing: Passing
    body: bytes | None


def operation_of(method: str, path: str) -> Operation:
    """How a request is judged and refused."""
    name = path.rpartition("/")[2]
    if name in _POLLS:
        return Operation.POLL
    if name == "session_heartbeat":
        return Operation.HEARTBEAT
    return Operation.SUBMIT if method == "POST" else Operation.QUERY


class _Sending:
    """What takes an answer, knows whether one has begun, and says where its time went until then.

    Args:
        send: takes it.
        clock: measures when.
        whole: whether it takes one in one message.

    Attributes:
        whole: as given.
        request_id: names the request; an answer of ours to one that was refused says it.
        begun: whether one has.
        timed: what is told of the time of a call that is relayed; None until one is.
    """

    def __init__(self, send: Send, clock: Clock, *, whole: bool) -> None:
        self._send = send
        self._clock = clock
        self.whole = whole
        self.request_id = secrets.token_hex(16)
        self.begun = False
        self.timed: Timed | None = None

    async def __call__(self, message: Message) -> None:
        if not self.begun and self.timed is not None:
            line = self.timed.timeline
            line.enter(Part.DOWNLOAD, self._clock.now())
            headers = message.get("headers")
            if isinstance(headers, list):
                headers.append((HEADER.encode(), server_timing(line).encode()))
        self.begun = True
        await self._send(message)


class SdkRoute:
    """The endpoint of everything under `/api/v1`.

    Args:
        services: accounts, clock, hub.
        settings: what holds for every call.
    """

    def __init__(self, services: Services, settings: SdkRouteSettings) -> None:
        self._services = services
        self._settings = settings
        self._futures = SdkFutures(
            services.ledger, services.released, clock=services.clock, hub=services.hub
        )
        self._lanes = LaneCalls(services.ledger, self._futures, coalesce=settings.coalesce)
        services.revivers[OPERATION] = self._revive

    def reconfigure(self, settings: SdkRouteSettings) -> None:
        """Take other settings from the next call on."""
        self._settings = settings
        self._lanes.coalesce = settings.coalesce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        operation = operation_of(str(scope["method"]), str(scope["path"]))
        services = self._services
        # The end waits for what was taken on; polls can be put to whoever comes after us.
        counted = services.polls if operation is Operation.POLL else services.open
        with counted:
            sending = _Sending(send, services.clock, whole=takes_answers(scope))
            await self._serve(operation, scope, receive, sending)

    async def _serve(
        self, operation: Operation, scope: Scope, receive: Receive, send: _Sending
    ) -> None:
        services = self._services
        began, code = services.clock.now(), "ok"
        try:
            if services.draining and operation in {Operation.SUBMIT, Operation.QUERY}:
                raise Draining(
                    "The proxy is shutting down and takes no new calls.", retry_after_s=1.0
                )
            if scope["method"] in _NOT_RELAYED:
                raise MethodNotAllowed(f"{scope['method']} is not passed on.")
            await self._answer(operation, scope, receive, send)
        except CallerLeft:
            code = _LEFT
        except asyncio.CancelledError:
            if send.begun or not services.released.is_set():
                raise
            lost = OutcomeUnknown("The proxy stopped before the answer was there.")
            code = lost.code
            await send_answer(send, refusal(lost), {"x-request-id": send.request_id})
        except ProxyError as error:
            code = error.code
            answer = refusal(error, sample=str(scope["path"]).endswith("/asample"))
            if operation is Operation.POLL and answer.status >= 500:
                answer = await self._held(None, error.detail, error.retry_after_s)
            await send_answer(send, answer, {"x-request-id": send.request_id})
        finally:
            self._tell(f"sdk_{operation.value}", code, began, send, scope)

    def _tell(self, named: str, code: str, began: float, send: _Sending, scope: Scope) -> None:
        """Tell how a request ended, and where its time went if it was relayed."""
        now, hub, timed = self._services.clock.now(), self._services.hub, send.timed
        hub.tell(CallEnded(named, code, now - began, recorded(trace_of(scope))))
        if timed is not None:
            timed.timeline.end(now)
            hub.tell(CallTimed(named, code, timed.timeline, timed.whose))
        elif code != "ok":
            said = "the caller hung up" if code == _LEFT else "refused"
            fields = {"operation": named, "request_id": send.request_id, "code": code}
            hub.tell(Note("debug", said, fields={**fields, **trace_named(scope)}))

    def _revive(self, account: Account, call: CallRecord, asked: AskedRecord) -> bool:
        hold = self._services.intake.hold(account.key_id, owed=True)
        return self._lanes.revive(account, call, asked, hold)

    async def _answer(
        self, operation: Operation, scope: Scope, receive: Receive, send: _Sending
    ) -> None:
        headers = headers_of(scope)
        accounts, light = self._services.accounts, _is_light(operation, headers)
        owner = accounts.key_id_of(key_of(headers))
        with self._services.intake.hold(owner, exempt=light) as hold:
            trace = self._services.tracer.below(trace_of(scope))
            whose = Whose(send.request_id, owner, trace)
            incoming = await self._received(operation, scope, headers, receive, hold, whose)
            arrived = self._services.clock.now()
            account = accounts.of(key_of(headers))
            if (this := asyncio.current_task()) is not None:
                account.serve(this)  # busy: it must not be dropped while this call is under way
            seen: Seen | None = None
            if incoming.body is not None:
                request = Request(
                    incoming.name, headers, incoming.body, account, hold, arrived, trace
                )
                answer = await self._over_lanes(request, receive)
                if answer is not None:
                    await send_answer(send, answer, {}, whole=send.whole)
                    return
                longest = self._services.settings.body.max_bytes
                seen = seen_of(request.name, account, request.body, max_body_bytes=longest)
            hold.count()
            awaited = Part.COMPUTE if operation in _ANSWERED_LATE else Part.UPLOAD
            timeline = Timeline(arrived)
            timeline.enter(awaited, self._services.clock.now())
            send.timed = Timed(f"sdk_{operation.value}", timeline, whose)
            passing = incoming.passing
            place = self._services.tracer.below(trace)
            if place is not None and place is not trace:  # else it goes as it came
                passing = placed(passing, place)
            await self._relay(operation, account, passing, receive, send, seen)

    async def _received(
        self,
        operation: Operation,
        scope: Scope,
        headers: Mapping[str, str],
        receive: Receive,
        hold: Hold,
        whose: Whose,
    ) -> _Incoming:
        """Read what there is to read, within what the call may hold."""
        name = str(scope["path"]).removeprefix(_BASE)
        limits = self._services.settings.body
        if not (self._settings.lanes and name in LANE_CALLS):
            hold.count()  # what is for a lane may be a repetition, and has to be read first
        body = whole = None
        if self._looks_at(scope, name):
            there = body_there(scope)
            pieces = await read_pieces(headers, receive, limits, hold, there=there)
            most = min(limits.max_bytes, UNCOUNTED_BYTES) if hold.exempt else limits.max_bytes
            body, whole = await self._services.aside.copy(
                partial(_opened, headers, pieces, most),
                large=sum(map(len, pieces)) >= LARGE_BODY_BYTES,
            )
            if whole is not body:
                hold.add(len(whole))
        passing = await passing_of(
            scope,
            headers,
            receive,
            limits=limits,
            timeout_s=self._timeout_s(operation),
            body=body,
            hold=hold,
            short=operation in _ANSWERED_SHORTLY and name in SDK_CALLS,
            whose=whose,
            route=_route_of(str(scope["path"])),
        )
        return _Incoming(name, passing, whole)

    def _looks_at(self, scope: Scope, name: str) -> bool:
        """Whether a call joins a lane, or has to be seen for the lanes' sake."""
        if not self._settings.lanes or scope["method"] != "POST":
            return False
        return name in LANE_CALLS or name in _LOOKED_AT

    def _timeout_s(self, operation: Operation) -> float:
        return POLL_TIMEOUT_S if operation is Operation.POLL else self._settings.request_timeout_s

    async def _over_lanes(self, request: Request, receive: Receive) -> Answer | None:
        """The answer to a call that concerns a lane; None to one that is relayed."""
        if request.name in LANE_CALLS:
            return await self._lanes.submit(request, receive)
        if request.name == "retrieve_future":
            return await self._futures.retrieve(
                request.account, request.headers, request.body, receive
            )
        if request.name == "session_heartbeat":
            request.account.beat(beat_of(request.body))
        return None

    async def _relay(
        self,
        operation: Operation,
        account: Account,
        passing: Passing,
        receive: Receive,
        send: _Sending,
        seen: Seen | None,
    ) -> None:
        """Pass a request on and its answer back, for as long as its caller stays."""
        heard = receive if isinstance(passing.body, bytes) else None  # else it is being received
        released = self._services.released if operation is Operation.POLL else None
        try:
            with Watch(heard, released, lambda: send.begun):
                await self._relay_or_hold(account, operation, passing, send, seen)
        except Released:
            await send_answer(send, try_again(_request_id(passing.body), "active", None), {})

    async def _relay_or_hold(
        self,
        account: Account,
        operation: Operation,
        passing: Passing,
        send: _Sending,
        seen: Seen | None,
    ) -> None:
        """Relay, or hold a poll that cannot be sent now and tell it to come again."""
        try:
            pause = self._pause if operation is Operation.POLL else None
            upstream, whole = account.upstream, send.whole
            await relay(upstream, operation, passing, send, seen=seen, pause=pause, whole=whole)
        except CircuitOpen as error:
            if operation is not Operation.POLL:
                raise
            reason, seconds = error.detail, error.retry_after_s
        except Unanswered as silence:
            reason, seconds = f"The upstream did not answer ({silence.detail}).", 2.0
            if operation is not Operation.POLL:
                raise CircuitOpen(reason, retry_after_s=1.0) from None
        else:
            return
        await send_answer(send, await self._held(passing.body, reason, seconds), {})

    async def _pause(self) -> None:
        """What the SDK does not do after a poll that the upstream answered 5xx."""
        await self._services.clock.sleep(spread(POLL_PAUSE_S))

    async def _held(self, body: object, reason: str, seconds: float | None) -> Answer:
        """A poll's answer where there is none to be had, after a while."""
        await self._services.clock.sleep(held_for(seconds))
        return try_again(_request_id(body), "paused_capacity", reason)


def _opened(headers: Mapping[str, str], pieces: list[bytes], most: int) -> tuple[bytes, bytes]:
    """A body as it came, and as it was before it was compressed; the pieces are gone then."""
    body = b"".join(pieces)
    pieces.clear()
    return body, inflated(headers, body, most)


def _is_light(operation: Operation, headers: Mapping[str, str]) -> bool:
    """Whether a request is neither shed nor counted."""
    if operation not in _NEVER_SHED or "transfer-encoding" in headers:
        return False
    announced = headers.get("content-length", "0")
    return announced.isdigit() and int(announced) <= UNCOUNTED_BYTES


def _request_id(body: object) -> str | None:
    try:
        named = msgspec.json.decode(
            body if isinstance(body, bytes) else b"", type=dict[str, object]
        )
    except msgspec.DecodeError:
        return None
    found = named.get("request_id")
    return found if isinstance(found, str) else None


def sdk_routes(endpoint: SdkRoute, services: Services) -> list[BaseRoute]:
    """Everything under `/api/v1`, whatever its method."""
    return [Route(SDK_ROUTE, services.traced(endpoint, _route_of, _only_waits))]


def _only_waits(path: str) -> bool:
    return operation_of("POST", path) in _NEVER_SHED


def _route_of(path: str) -> str:
    """A call's route; callers can ask for any path, so only those that SDKs have are told apart."""
    return path if path.removeprefix(_BASE) in SDK_CALLS else SDK_ROUTE

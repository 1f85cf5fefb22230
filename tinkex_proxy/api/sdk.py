"""The official SDKs, unmodified: everything under `/api/v1/`.

`TINKER_BASE_URL=http://localhost:8465` is all a user of the SDK sets. Training calls join their
model's lane (`sdk_lane.py`; `sdk.mode = "transparent"` switches it off), all else is relayed as it
comes (`relay.py`) under the breaker of the caller's key, and refusals are such as the SDK obeys
(`sdk_refusals.py`). Heartbeats always go up, because a session that misses them takes its models
with it. While the proxy shuts down, polls go on too: what was taken on is still delivered.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from tinkex_proxy.api.asgi import (
    ANSWER,
    Message,
    Receive,
    Scope,
    Send,
    body_within,
    headers_of,
    read_pieces,
    send_answer,
    takes_answers,
)
from tinkex_proxy.api.callers import CallerLeft, key_of
from tinkex_proxy.api.calls import Services
from tinkex_proxy.api.compression import inflated
from tinkex_proxy.api.relay import Seen, body_of, passing_of, placed, relay
from tinkex_proxy.api.sdk_futures import SdkFutures, Timed
from tinkex_proxy.api.sdk_kinds import Kind, kind_of
from tinkex_proxy.api.sdk_lane import LANE_CALLS, OPERATION, LaneCalls, Request
from tinkex_proxy.api.sdk_refusals import held_for, refusal, spread, try_again
from tinkex_proxy.api.sdk_seen import beat_of, seen_of
from tinkex_proxy.api.server_timing import HEADER, server_timing
from tinkex_proxy.api.traced import trace_named, trace_of
from tinkex_proxy.api.watch import Leaving, Released, Watch, leaving_of
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
from tinkex_proxy.runtime.whose import Whose, fresh_id

__all__ = ["SdkRoute", "SdkRouteSettings", "Sending", "no_answer"]

# The SDK's own polls are abandoned after 90 s, SkyRL holds them for 300 s.
POLL_TIMEOUT_S = 330.0
# A poll that the upstream answers 5xx is repeated by the SDK at once, without end.
POLL_PAUSE_S = 1.0
# The first would show the configured key to whoever asks an upstream that echoes.
_NOT_RELAYED = frozenset({"TRACE", "CONNECT"})
# The code of a request whose caller did not wait for the answer.
_LEFT = "withdrawn"
# What is waited for with these is the upstream's work, not its taking a request.
_ANSWERED_LATE = frozenset({Operation.POLL, Operation.QUERY})
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


class Sending:
    """What takes an answer, knows whether one has begun, and says where its time went until then.

    Args:
        send: takes it.
        clock: measures when.
        whole: whether it takes one in one message.

    Attributes:
        whole: as given.
        request_id: names the request; an answer of ours to one that was refused says it.
        status: of the answer; None until one has begun.
        timed: what is told of the time of a call that is relayed; None until one is.
        account: of its caller, once that is known.
    """

    def __init__(self, send: Send, clock: Clock, *, whole: bool) -> None:
        self._send = send
        self._clock = clock
        self.whole = whole
        self.request_id = fresh_id()
        self.status: int | None = None
        self.timed: Timed | None = None
        self.account: Account | None = None

    def has_begun(self) -> bool:
        """Whether an answer has."""
        return self.status is not None

    def __call__(self, message: Message) -> Awaitable[None]:
        """Take a message of an answer, and see to it that it is sent."""
        begins = self.status is None
        if begins and self.timed is not None:
            line, now = self.timed.timeline, self._clock.now()
            if message["type"] == ANSWER:  # all of it
                line.end(now)
            else:
                line.enter(Part.DOWNLOAD, now)
            headers = message.get("headers")
            if isinstance(headers, list):
                headers.append((HEADER.encode(), server_timing(line).encode()))
        if begins:
            self.status = message.get("status")  # type: ignore[assignment]  # of its head
        return self._send(message)


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
        services = self._services
        kind = kind_of(str(scope["method"]), str(scope["path"]))
        began = services.clock.now()
        sending = Sending(send, services.clock, whole=takes_answers(scope))
        # The end waits for what was taken on; polls can be put to whoever comes after us.
        with services.polls if kind.operation is Operation.POLL else services.open:
            try:
                self._let_in(kind.operation, str(scope["method"]))
                await self._answer(kind, scope, receive, sending)
            except BaseException as error:  # noqa: BLE001 - raised again, unless it is answered
                await self.conclude(error, kind, scope, sending, began)
            else:
                self._tell(kind.told, "ok", began, sending, scope)

    async def conclude(
        self, error: BaseException, kind: Kind, scope: Scope, sending: Sending, began: float
    ) -> None:
        """Answer a request that came to an error, and tell of it.

        Args:
            error: what it came to; raised again if it is no answer to anything.
            kind: what the request is.
            scope: what it came as.
            sending: takes the answer.
            began: the moment when it came.
        """
        code = "ok"
        try:
            if isinstance(error, CallerLeft):
                code = _LEFT
            elif isinstance(error, asyncio.CancelledError):
                if sending.has_begun() or not self._services.released.is_set():
                    raise error
                lost = OutcomeUnknown("The proxy stopped before the answer was there.")
                code = lost.code
                await send_answer(sending, refusal(lost), {"x-request-id": sending.request_id})
            elif isinstance(error, ProxyError):
                code = error.code
                answer = refusal(error, sample=str(scope["path"]).endswith("/asample"))
                if kind.operation is Operation.POLL and answer.status >= 500:
                    answer = await self._held(None, error.detail, error.retry_after_s)
                await send_answer(sending, answer, {"x-request-id": sending.request_id})
            else:
                raise error
        finally:
            del error  # or what it was raised through would hold itself
            self._tell(kind.told, code, began, sending, scope)

    def _let_in(self, operation: Operation, method: str) -> None:
        """Refuse what is not taken at all, or not any more."""
        if self._services.draining and operation in {Operation.SUBMIT, Operation.QUERY}:
            raise Draining("The proxy is shutting down and takes no new calls.", retry_after_s=1.0)
        if method in _NOT_RELAYED:
            raise MethodNotAllowed(f"{method} is not passed on.")

    def _tell(self, named: str, code: str, began: float, send: Sending, scope: Scope) -> None:
        """A request has ended: tell how, and where its time went if it was relayed."""
        now, hub, timed = self._services.clock.now(), self._services.hub, send.timed
        if send.account is not None:
            send.account.end(send)
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

    async def _answer(self, kind: Kind, scope: Scope, receive: Receive, send: Sending) -> None:
        services, headers = self._services, headers_of(scope)
        accounts, key, trace = services.accounts, key_of(headers), trace_of(scope)
        owner = accounts.key_id_of(key)
        with services.intake.hold(owner, exempt=kind.waits and _is_light(headers)) as hold:
            if trace is not None:
                trace = services.tracer.below(trace)
            whose = Whose(send.request_id, owner, trace)
            body, opened = await self._received(kind, scope, headers, receive, hold)
            arrived = services.clock.now()
            account = accounts.of(key)
            send.account = account
            account.begin(send)  # busy: it must not be dropped while this call is under way
            seen: Seen | None = None
            if opened is not None:
                request = Request(kind.name, headers, opened, account, hold, arrived, trace)
                answer = await self._over_lanes(request, leaving_of(scope, receive))
                if answer is not None:
                    await send_answer(send, answer, {}, whole=send.whole)
                    return
                longest = services.settings.body.max_bytes
                seen = seen_of(request.name, account, request.body, max_body_bytes=longest)
            hold.count()
            awaited = Part.COMPUTE if kind.operation in _ANSWERED_LATE else Part.UPLOAD
            timeline = Timeline(arrived)
            timeline.enter(awaited, services.clock.now())
            send.timed = Timed(kind.told, timeline, whose)
            timeout_s = self._settings.request_timeout_s
            passing = passing_of(
                scope,
                body,
                timeout_s=POLL_TIMEOUT_S if kind.operation is Operation.POLL else timeout_s,
                short=kind.short,
                whose=whose,
                route=kind.route,
            )
            if trace is not None:
                place = services.tracer.below(trace)
                if place is not None and place is not trace:  # else it goes as it came
                    passing = placed(passing, place)
            # Who still sends its body is heard of by who reads it.
            leaving = leaving_of(scope, receive) if isinstance(body, bytes) else None
            await self._relay(kind.operation, account, passing, leaving, send, seen)

    async def _received(
        self,
        kind: Kind,
        scope: Scope,
        headers: Mapping[str, str],
        receive: Receive,
        hold: Hold,
    ) -> tuple[bytes | AsyncIterator[bytes], bytes | None]:
        """The body, within what the call may hold; also uncompressed where it has to be seen."""
        name, limits = kind.name, self._services.settings.body
        lanes = self._settings.lanes
        if not (lanes and name in LANE_CALLS):
            hold.count()  # what is for a lane may be a repetition, and has to be read first
        come = body_within(scope, limits, hold)
        if scope["method"] != "POST" or self.relays(name):
            if come is not None:
                return come, None
            return await body_of(headers, receive, limits, hold), None
        pieces = [come] if come is not None else await read_pieces(headers, receive, limits, hold)
        most = min(limits.max_bytes, UNCOUNTED_BYTES) if hold.exempt else limits.max_bytes
        body, whole = await self._services.aside.copy(
            partial(_opened, headers, pieces, most),
            large=sum(map(len, pieces)) >= LARGE_BODY_BYTES,
        )
        if whole is not body:
            hold.add(len(whole))
        return body, whole

    def relays(self, name: str) -> bool:
        """Whether calls of this name are relayed unseen."""
        return not self._settings.lanes or not (name in LANE_CALLS or name in _LOOKED_AT)

    @property
    def timeout_s(self) -> float:
        """How long the head of an answer is waited for, polls apart."""
        return self._settings.request_timeout_s

    async def _over_lanes(self, request: Request, leaving: Leaving) -> Answer | None:
        """The answer to a call that concerns a lane; None to one that is relayed."""
        if request.name in LANE_CALLS:
            return await self._lanes.submit(request, leaving)
        if request.name == "retrieve_future":
            return await self._futures.retrieve(
                request.account, request.headers, request.body, leaving
            )
        if request.name == "session_heartbeat":
            request.account.beat(beat_of(request.body))
        return None

    async def _relay(
        self,
        operation: Operation,
        account: Account,
        passing: Passing,
        leaving: Leaving | None,
        send: Sending,
        seen: Seen | None,
    ) -> None:
        """Pass a request on and its answer back, for as long as its caller stays."""
        polls = operation is Operation.POLL
        try:
            with Watch(leaving, self._services.released if polls else None, send.has_begun):
                if polls:
                    await self._relay_or_hold(account, passing, send, seen)
                else:
                    upstream, whole = account.upstream, send.whole
                    await relay(upstream, operation, passing, send, seen=seen, whole=whole)
        except Unanswered as silence:
            raise no_answer(silence) from None
        except Released:
            await send_answer(send, try_again(_request_id(passing.body), "active", None), {})

    async def _relay_or_hold(
        self, account: Account, passing: Passing, send: Sending, seen: Seen | None
    ) -> None:
        """Relay a poll, or hold one that cannot be sent now and tell it to come again."""
        try:
            upstream, pause = account.upstream, self._pause
            await relay(upstream, Operation.POLL, passing, send, seen=seen, pause=pause)
        except CircuitOpen as error:
            reason, seconds = error.detail, error.retry_after_s
        except Unanswered as silence:
            reason, seconds = no_answer(silence).detail, 2.0
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


def no_answer(silence: Unanswered) -> CircuitOpen:
    """What is said of a relayed request that came to no answer."""
    said = f"The upstream did not answer ({silence.detail})."
    return CircuitOpen(said, retry_after_s=1.0)


def _opened(headers: Mapping[str, str], pieces: list[bytes], most: int) -> tuple[bytes, bytes]:
    """A body as it came, and as it was before it was compressed; the pieces are gone then."""
    body = b"".join(pieces)
    pieces.clear()
    return body, inflated(headers, body, most)


def _is_light(headers: Mapping[str, str]) -> bool:
    """Whether a request is known to be short."""
    if "transfer-encoding" in headers:
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

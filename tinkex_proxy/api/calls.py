"""What all plain calls share: key, deadline, idempotency, disconnects, errors, timing.

A call is an ASGI endpoint mounted beside FastAPI's own routes, because a training call is megabytes
and a rollout makes thousands of samples: no per-request framework work, one decode, one encode.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import msgspec

from tinkex_proxy.api.asgi import (
    ASGIApp,
    BodyLimits,
    CallerLeft,
    Receive,
    Scope,
    Send,
    body_within,
    headers_of,
    read_pieces,
    send_answer,
    takes_answers,
)
from tinkex_proxy.api.callers import (
    Wishes,
    coalesce_of,
    digest_of,
    key_of,
    wait_for,
    wishes_of,
)
from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.api.server_timing import HEADER, server_timing
from tinkex_proxy.api.traced import Traced, trace_named, trace_of
from tinkex_proxy.api.watch import leaving_of
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.errors import Draining, ProxyError
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.accounts import Accounts
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES, Aside
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.drain import OpenRequests, Release
from tinkex_proxy.runtime.events import CallEnded, CallRecognised, CallTimed, Note
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.intake import Hold, Intake
from tinkex_proxy.runtime.ledger import Answer, Entry, Ledger
from tinkex_proxy.runtime.records import AskedRecord, CallRecord
from tinkex_proxy.runtime.trace_context import recorded
from tinkex_proxy.runtime.tracer import OFF, Tracer
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.runtime.turns import Turn
from tinkex_proxy.runtime.whose import Whose, fresh_id
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.answer_json import encode_answer

__all__ = ["Asked", "CallRoute", "Handler", "PlainSettings", "Reviver", "Services", "accepted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSettings:
    """What holds for every plain call.

    Attributes:
        body: what a body may be.
        default_timeout_s: deadline of a caller that names none, or None.
        extra_loss_fns: losses the upstream has beyond those we know.
    """

    body: BodyLimits
    default_timeout_s: float | None = None
    extra_loss_fns: frozenset[str] = frozenset()


# Goes on with a promised call of an earlier run; says whether it can.
Reviver: TypeAlias = Callable[[Account, CallRecord, AskedRecord], bool]


@dataclass(slots=True, kw_only=True)
class Services:
    """What the calls work with.

    Attributes:
        accounts: every key's.
        ledger: calls that outlive their connection.
        clock: measures and sleeps.
        hub: is told.
        intake: takes calls on, or sheds them.
        settings: what holds for every plain call.
        draining: whether new calls are refused.
        open: the requests that the end waits for.
        polls: those of SDKs, which it does not wait for.
        released: set at the very end, for those who are held: they come again elsewhere.
        tracer: gives calls their place in a trace.
        aside: does what takes too long on the event loop.
        revivers: by operation, who goes on with a promised call of an earlier run.
    """

    accounts: Accounts
    ledger: Ledger
    clock: Clock
    hub: Hub
    intake: Intake
    settings: PlainSettings
    draining: bool = False
    open: OpenRequests = field(default_factory=OpenRequests)
    polls: OpenRequests = field(default_factory=OpenRequests)
    released: Release = field(default_factory=Release)
    tracer: Tracer = OFF
    aside: Aside = field(default_factory=Aside)
    revivers: dict[str, Reviver] = field(default_factory=dict)

    def traced(
        self, app: ASGIApp, named: Callable[[str], str], waits: Callable[[str], bool]
    ) -> Traced:
        """A route whose requests have their place in a trace; `Traced` says by which names."""
        return Traced(app, named, waits, self.tracer, clock=self.clock, hub=self.hub)

    def revive(self, account: Account, calls: Sequence[CallRecord]) -> None:
        """Take over an earlier run's calls of one key, and go on with those that were promised."""
        for call, asked in self.ledger.restore(calls):
            reviver = self.revivers.get(asked.operation)
            if reviver is None or not reviver(account, call, asked):
                self.ledger.abandon(call)
                named = (Whose(call.id, account.key_id),)
                said = "a call of an earlier run cannot be gone on with"
                self.hub.tell(Note("warning", said, calls=named))

    def reconfigure(self, settings: PlainSettings) -> None:
        """Let these hold for every plain call from the next one on."""
        self.settings = settings


class Asked(msgspec.Struct, frozen=True):
    """One call, decoded as far as all calls are alike."""

    account: Account
    body: bytes
    ticket: Ticket
    settings: PlainSettings
    path: str
    path_params: Mapping[str, str]
    request_id: str
    whose: Whose


Handler: TypeAlias = Callable[[Asked], Awaitable[object]]


class CallRoute:
    """The ASGI endpoint of one call.

    Args:
        operation: the call's name in metrics and logs.
        handler: does it; gives what is encoded as JSON.
        services: what it works with.

    Attributes:
        operation: the same.
    """

    def __init__(self, operation: str, handler: Handler, services: Services) -> None:
        self.operation = operation
        self._handler = handler
        self._services = services
        services.revivers[operation] = self._revive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id = fresh_id()
        extra = {"x-request-id": request_id}
        with self._services.open:
            try:
                answer = await self._answer(scope, receive, request_id, extra)
            except CallerLeft:
                self.hung_up(scope, request_id)
                return
            except ProxyError as error:
                answer = self.refused(error, scope, request_id)
            await send_answer(send, answer, extra, whole=takes_answers(scope))

    def hung_up(self, scope: Scope, request_id: str) -> None:
        """A line about a caller who has."""
        self._note("info", "the caller hung up", scope, request_id)

    def refused(self, error: ProxyError, scope: Scope, request_id: str) -> Answer:
        """The answer to a request that came to no call, and a line about it."""
        self._note("debug", "refused", scope, request_id, code=error.code)
        return problem_answer(error, instance=str(scope["path"]), request_id=request_id)

    def _note(
        self, level: str, message: str, scope: Scope, request_id: str, **fields: object
    ) -> None:
        """A line about a request that came to no call, or no longer has its caller."""
        named = {"operation": self.operation, "request_id": request_id}
        told = {**named, **fields, **trace_named(scope)}
        self._services.hub.tell(Note(level, message, fields=told))

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: str, extra: dict[str, str]
    ) -> Answer:
        services = self._services
        headers = headers_of(scope)
        if services.draining:
            raise Draining("The proxy is shutting down and takes no new calls.", retry_after_s=1.0)
        wishes = wishes_of(headers, default_timeout_s=services.settings.default_timeout_s)
        try:
            with services.intake.hold(services.accounts.key_id_of(key_of(headers))) as hold:
                entry, ticket = await self._taken_on(
                    scope, headers, receive, wishes, hold, request_id
                )
        except asyncio.CancelledError:
            if not services.released.is_set():
                raise
            raise Draining(
                "The proxy stopped before the call had come whole; nothing was sent.",
                retry_after_s=1.0,
            ) from None
        if entry.id != request_id:
            extra["x-tinkex-repeats"] = entry.id
        if wishes.respond_async:
            await services.ledger.promise(entry)
            return accepted(entry)
        promise = partial(services.ledger.promise, entry)
        leaving = leaving_of(scope, receive)
        return await wait_for(entry, ticket, leaving, timeout_s=wishes.timeout_s, promise=promise)

    async def _taken_on(
        self,
        scope: Scope,
        headers: Mapping[str, str],
        receive: Receive,
        wishes: Wishes,
        hold: Hold,
        request_id: str,
    ) -> tuple[Entry, Ticket | None]:
        """The first call under this Idempotency-Key, or this call, started."""
        services, path = self._services, str(scope["path"])
        if wishes.idempotency_key is None:  # else it may be no further call, and has to be read
            hold.count()
        limits = services.settings.body
        come = body_within(scope, limits, hold)
        pieces = [come] if come is not None else await read_pieces(headers, receive, limits, hold)
        turn, begun = None, False
        if large := sum(map(len, pieces)) >= LARGE_BODY_BYTES:
            turn = services.accounts.of(key_of(headers)).turns.join()
        try:
            keyed = wishes.idempotency_key is not None
            joining = partial(_joined, pieces, str(scope["method"]), path, keyed=keyed)
            body, digest = await services.aside.copy(joining, large=True) if large else joining()
            # Nothing is awaited between this and the call's start: an idle account may be dropped.
            account = services.accounts.of(key_of(headers))
            if wishes.idempotency_key is not None:
                first = services.ledger.repeated(account.key_id, wishes.idempotency_key, digest)
                if first is not None:
                    services.hub.tell(CallRecognised(self.operation))
                    return first, None
            hold.count()
            ticket = self._ticket(scope, wishes, hold, turn)
            params = _params_of(scope)
            wanted = {} if wishes.coalesce else {"x-tinkex-coalesce": "off"}
            key = wishes.idempotency_key
            entry = services.ledger.start(
                services.ledger.id_of(account.key_id, key, request_id),
                account.key_id,
                partial(self.begin, account, body, ticket, path, params),
                key=key,
                digest=digest,
                asked=AskedRecord(self.operation, path, params, wanted, body),
            )
            begun = True
        finally:
            if turn is not None and not begun:
                turn.leave()  # what comes later may not overtake a call; this will be none
        _started(entry, account, ticket, hold)
        return entry, ticket

    def _ticket(self, scope: Scope, wishes: Wishes, hold: Hold, place: Turn | None) -> Ticket:
        now = self._services.clock.now()
        return Ticket(
            deadline=None if wishes.timeout_s is None else now + wishes.timeout_s,
            coalesce=wishes.coalesce,
            hold=hold,
            timeline=Timeline(now),
            trace=self._services.tracer.below(trace_of(scope)),
            place=place,
        )

    def begin(
        self,
        account: Account,
        body: bytes,
        ticket: Ticket,
        path: str,
        params: Mapping[str, str],
        entry: Entry,
    ) -> Coroutine[object, object, Answer]:
        """What does a call; its entry is the ledger's."""
        ticket.origin = entry
        entry.whose = whose = Whose(entry.id, account.key_id, ticket.trace)
        settings = self._services.settings
        return self._run(Asked(account, body, ticket, settings, path, params, entry.id, whose))

    def _revive(self, account: Account, call: CallRecord, asked: AskedRecord) -> bool:
        """Go on with a promised call of an earlier run; its deadline has gone with its caller."""
        hold = self._services.intake.hold(account.key_id, owed=True)
        hold.grow(len(asked.body))
        hold.count()
        ticket = Ticket(
            coalesce=coalesce_of(asked.headers, default=True),
            hold=hold,
            timeline=Timeline(self._services.clock.now()),
        )
        begin = partial(self.begin, account, asked.body, ticket, asked.path, asked.params)
        entry = self._services.ledger.restart(call, begin)
        _started(entry, account, ticket, hold)
        return True

    async def _run(self, asked: Asked) -> Answer:
        """Do the call; whatever happens becomes an answer."""
        services = self._services
        timeline = asked.ticket.timeline
        code = "ok"
        try:
            result = await self._handler(asked)
            if asked.ticket.large:
                body = await services.aside.do(partial(encode_answer, result), large=True)
            else:
                body = encode_answer(result)
            answer = Answer(200, body, _headers(result))
        except ProxyError as error:
            code = error.code
            answer = problem_answer(error, instance=asked.path, request_id=asked.request_id)
        except asyncio.CancelledError:
            code = "withdrawn"
            raise
        except Exception as bug:  # noqa: BLE001 - nobody gets a stack trace; the log does
            code = "internal_error"
            services.hub.tell(Note("error", f"{self.operation} failed", bug, (asked.whose,)))
            fault = ProxyError("The proxy failed; its log tells why.")
            answer = problem_answer(fault, instance=asked.path, request_id=asked.request_id)
        finally:
            timeline.end(services.clock.now())
            trace_id = recorded(asked.whose.trace)
            services.hub.tell(CallEnded(self.operation, code, timeline.whole_s, trace_id))
            self._tell_time(asked, code)
        headers = {**answer.headers, HEADER: server_timing(timeline)}
        return Answer(answer.status, answer.body, headers, answer.retryable)

    def _tell_time(self, asked: Asked, code: str) -> None:
        timeline, models = asked.ticket.timeline, tuple(asked.ticket.model_ids)
        told = CallTimed(self.operation, code, timeline, asked.whose, models)
        self._services.hub.tell(told)


def _joined(pieces: list[bytes], method: str, path: str, *, keyed: bool) -> tuple[bytes, bytes]:
    """A body, and the digest of its call if it has a key; the pieces are gone then."""
    body = b"".join(pieces)  # of one piece it is the piece itself
    pieces.clear()
    return body, digest_of(method, path, body) if keyed else b""


def _started(entry: Entry, account: Account, ticket: Ticket, hold: Hold) -> None:
    """Have what a call holds given up when it has ended, whether it came to begin or not."""
    account.begin(entry)
    hold.hand_over()

    def ended() -> None:
        ticket.leave()
        account.end(entry)
        hold.give_up()

    entry.at_end = ended


def _params_of(scope: Scope) -> dict[str, str]:
    given = scope.get("path_params")
    if not given:
        return {}
    return {str(k): str(v) for k, v in given.items()} if isinstance(given, Mapping) else {}


def _headers(result: object) -> dict[str, str]:
    headers = {}
    if isinstance(result, plain.TrainingAnswer):
        batch = result.batch
        headers["x-tinkex-batch"] = (
            f"{batch.id}; requests={batch.requests}; datums={batch.datums}; index={batch.index}"
        )
    return headers


def accepted(entry: Entry) -> Answer:
    """202, and where the answer will be."""
    body = msgspec.json.encode({"future_id": entry.id, "status": "pending"})
    headers = {"location": f"/v1/futures/{entry.id}", "preference-applied": "respond-async"}
    return Answer(202, body, headers)

"""One upstream under one API key: the only way from here to the network.

Every request goes through the breaker of its {base URL, key}, carries that key and no other, and is
judged by the table of `core.outcome`. What comes back is either an answer, whatever its status, or
one of two exceptions: `CircuitOpen` (nothing was sent) or `Unanswered` (with its fault).

Heartbeats pass an open breaker: a session that is not kept alive takes its models with it. So do
probes, which only ask whether and how the upstream answers, and never count.

Submits of a key that was asked to slow down wait for their turn (`pace.py`), whoever asked for
them.

A long poll is no probe of a half-open circuit: it is held for minutes, and who asks meanwhile would
be refused. A question goes first in its place.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from tinkex_proxy.core.advice import advice_of
from tinkex_proxy.core.breaker import Permit
from tinkex_proxy.core.budget import RetryBudget
from tinkex_proxy.core.outcome import Fault, Operation, Outcome, of_fault, of_status
from tinkex_proxy.core.retry import Kind
from tinkex_proxy.errors import ApiKeyRefused, UpstreamFault
from tinkex_proxy.runtime.breakers import Breaker
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Exchange
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.pace import Leave, Pace
from tinkex_proxy.runtime.retries import Retries
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.tracer import OFF, Tracer
from tinkex_proxy.runtime.transport import (
    Passed,
    Passing,
    Request,
    Response,
    Transport,
    TransportFault,
    decoded,
    encoded,
)
from tinkex_proxy.runtime.whose import NOBODY, Behalf

__all__ = [
    "JSON",
    "PROTOBUF",
    "Ask",
    "Terms",
    "Unanswered",
    "Upstream",
    "detail_of",
    "json_of",
]

JSON = "application/json"
PROTOBUF = "application/x-protobuf"

_UNGUARDED = frozenset({Operation.HEARTBEAT, Operation.PROBE})
_KEYS = frozenset({b"x-api-key", b"authorization"})
_KNOCK = "/api/v1/healthz"
KNOCK_TIMEOUT_S = 5.0
# Submits of one key that are out at once; the SDK's own figure for samples.
MAX_SUBMITS = 2000
# An upstream that answers its health check with 429 says neither yes nor no.
MAX_KNOCKS = 5


class Unanswered(Exception):  # noqa: N818 - an event to act on, not yet an error
    """No answer came.

    Attributes:
        fault: `CONNECT` says that nothing was sent; otherwise the request may have run.
        detail: one line for a person.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request to the upstream.

    Attributes:
        operation: how it is judged and whether the breaker guards it.
        path: below the base URL, such as `/api/v1/optim_step`.
        body: JSON text or protobuf bytes.
        content_type: of the body.
        accept: media type wanted back.
        identity: sent as `X-Idempotency-Key`; the same for every repetition of one request.
        kind: how a submit is repeated (`core.retry`); that of other calls is their operation's.
        repeatable: whether the upstream recognises a repetition, so that a lost answer may be asked
            for again.
        persistent: whether to wait for an upstream that is not there, or not to be asked now,
            instead of saying so at once: an SDK's call that was taken on is not given back.
        doubtful: whether it may have been sent before, by an earlier run.
        timeout_s: seconds until the whole answer must be there; None takes the upstream's default.
        patience: True where running out of time is our own choice (a long poll) and says nothing
            about the upstream.
        flow: whose turn a submit takes where turns have to be taken: a lane, a sampling session.
        leave: to send it the first time, where its sender has waited for that already.
        on_head: called when the head of an answer is there, where its body may be large.
        behalf: on whose behalf it is sent; its trace goes along.
    """

    operation: Operation
    path: str
    body: bytes = b""
    content_type: str = JSON
    accept: str = JSON
    identity: str | None = None
    kind: Kind = Kind.TRAINING
    repeatable: bool = True
    persistent: bool = False
    doubtful: bool = False
    timeout_s: float | None = None
    method: str = "POST"
    patience: bool = False
    flow: Hashable = None
    leave: Leave | None = None
    on_head: Callable[[], None] | None = None
    behalf: Behalf = NOBODY


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How one upstream is dealt with.

    Attributes:
        timeout_s: how long an answer is waited for where the request does not say.
        retry_ratio: repetitions for each request (`core.budget`).
        retries_per_s: repetitions a second on top.
        tracer: gives requests their place in a trace.
    """

    timeout_s: float = 60.0
    retry_ratio: float = 0.2
    retries_per_s: float = 10.0
    tracer: Tracer = OFF


class Upstream:
    """Asks one upstream under one key.

    Args:
        transport: opened on the upstream's base URL.
        api_key: sent as `X-API-Key`; None sends none.
        breaker: guards all but heartbeats.
        clock: measures exchanges.
        hub: told of every exchange.
        terms: how long it is waited for, how much is repeated.
    """

    def __init__(
        self,
        transport: Transport,
        api_key: str | None,
        breaker: Breaker,
        *,
        clock: Clock,
        hub: Hub,
        terms: Terms | None = None,
    ) -> None:
        terms = terms or Terms()
        self._timeout_s = terms.timeout_s
        self._tracer = terms.tracer
        self._transport = transport
        self._auth: Mapping[str, str] = {} if api_key is None else {"x-api-key": api_key}
        self._auth_pairs = encoded(self._auth.items())
        self.breaker = breaker
        self.pace = Pace(clock, most=MAX_SUBMITS)
        self.retries = Retries(clock, hub, RetryBudget(terms.retry_ratio, terms.retries_per_s))
        self._clock = clock
        self._hub = hub
        self.reached: bool | None = None

    def reconfigure(self, *, timeout_s: float) -> None:
        """Wait so long for answers from the next request on."""
        self._timeout_s = timeout_s

    def ask(self, ask: Ask) -> Awaitable[Response]:
        """Send one request and give the answer, whatever its status.

        Raises:
            CircuitOpen: the breaker is open; nothing was sent.
            Unanswered: no whole answer came.
        """
        return self._submit(ask) if ask.operation is Operation.SUBMIT else self._ask(ask)

    async def _submit(self, ask: Ask) -> Response:
        """The same of one that takes its turn."""
        sent_at = None if ask.leave is None else ask.leave.use()
        if sent_at is None:
            sent_at = await self.pace.go(ask.flow)
        status, wait_s = None, None
        try:
            response = await self._ask(ask)
            status = response.status
            wait_s = advice_of(response.headers).wait_s if status >= 400 else None
        finally:
            self.pace.ended(sent_at, status, wait_s=wait_s)
        return response

    async def _ask(self, ask: Ask) -> Response:
        permit = self._permit(ask.operation)
        if permit is not None and permit.is_probe and ask.operation is Operation.POLL:
            permit = await self._knocked(permit)
        began = self._clock.now()
        trace = self._tracer.below(ask.behalf.trace)
        status: int | None = None
        date: str | None = None
        outcome = Outcome.NEUTRAL
        detail, silence = "cancelled", None
        try:
            response = await self._transport.send(self._request(ask, trace))
            status, date = response.status, response.headers.get("date")
            outcome = of_status(ask.operation, status)
            detail = f"{ask.path} answered {status}"
        except TransportFault as fault:
            self.reached = self.reached if fault.fault is Fault.TIMEOUT else False
            outcome, silence = _judge(ask, fault.fault), fault.fault.value
            detail = f"{ask.path}: {fault.detail}"
            raise Unanswered(fault.fault, fault.detail) from None
        finally:
            if permit is not None:
                timed, calls = ask.operation is not Operation.POLL, ask.behalf.calls
                self.breaker.settle(permit, outcome, detail, timed=timed, calls=calls)
            took = self._clock.now() - began
            told = (ask.operation.label, status, outcome, took, ask.method, ask.path)
            self._hub.tell(Exchange(*told, trace, silence, date))
        self.reached = True
        return response

    @asynccontextmanager
    async def relay(self, operation: Operation, passing: Passing) -> AsyncIterator[Passed]:
        """Pass a caller's own request on and its answer back, without reading either.

        The caller's key is the caller's business; ours is added only where it sent none. The
        breaker judges the head of the answer, and a body that breaks off.

        Raises:
            CircuitOpen: the breaker is open; nothing was sent.
            Unanswered: no answer came, or it broke off.
        """
        permit = self._permit(operation)
        if permit is not None and permit.is_probe and operation is Operation.POLL:
            permit = await self._knocked(permit)
        way = _Way(operation, passing, permit, self._clock.now())
        status: int | None = None
        try:
            async with self._transport.relay(self._with_key(passing)) as passed:
                status = passed.status
                self._paced(way, passed)
                yield passed
        except BaseException as error:
            self._broke_off(way, status, error)
            raise
        self._answered(way, status)

    async def relay_whole(self, operation: Operation, passing: Passing) -> Passed:
        """The same, where the answer is short: it is there whole, or not at all.

        Raises:
            CircuitOpen: the breaker is open; nothing was sent.
            Unanswered: no answer came, or it broke off.
        """
        permit = self._permit(operation)  # polls are none of these
        way = _Way(operation, passing, permit, self._clock.now())
        try:
            passed = await self._transport.relay_whole(self._with_key(passing))
            self._paced(way, passed)
        except BaseException as error:
            self._broke_off(way, None, error)
            raise
        self._answered(way, passed.status)
        return passed

    def _paced(self, way: "_Way", passed: Passed) -> None:
        """Hear what the head of an answer says about the pace."""
        if way.operation is Operation.SUBMIT:
            refused = passed.status >= 400
            wait_s = advice_of(decoded(passed.headers)).wait_s if refused else None
            self.pace.heard(way.began, passed.status, wait_s=wait_s)

    def _answered(self, way: "_Way", status: int) -> None:
        """A relayed request was answered, to the end."""
        outcome = of_status(way.operation, status)
        self._ended(way, status, outcome, f"{way.passing.path} answered {status}", None)

    def _broke_off(self, way: "_Way", status: int | None, error: BaseException) -> None:
        """A relayed request came to no answer, or to a part of one.

        Raises:
            Unanswered: that was the upstream's doing.
        """
        if not isinstance(error, TransportFault):
            self._ended(way, status, Outcome.NEUTRAL, "cancelled", None)
            return
        detail, silence = f"{way.passing.path}: {error.detail}", error.fault.value
        self._ended(way, status, of_fault(error.fault), detail, silence)
        raise Unanswered(error.fault, error.detail) from None

    def _ended(
        self, way: "_Way", status: int | None, outcome: Outcome, detail: str, silence: str | None
    ) -> None:
        operation, passing = way.operation, way.passing
        if way.permit is not None:
            timed, calls = operation is not Operation.POLL, passing.calls
            self.breaker.settle(way.permit, outcome, detail, timed=timed, calls=calls)
        path, took_s = passing.path.partition("?")[0], self._clock.now() - way.began
        told = (operation.label, status, outcome, took_s, passing.method, path)
        self._hub.tell(Exchange(*told, passing.trace, silence, route=passing.route))

    def _permit(self, operation: Operation) -> Permit | None:
        """Leave to send; None for what goes without. A poll's may be a probe's: `_knocked`.

        Raises:
            CircuitOpen: the circuit is open, or half-open with its probes out.
        """
        return None if operation in _UNGUARDED else self.breaker.acquire()

    async def _knocked(self, permit: Permit) -> Permit:
        """Leave for a poll that would probe, after a question in its place.

        Raises:
            CircuitOpen: the answer was no good, or another probes now.
        """
        for _ in range(MAX_KNOCKS):
            await self._knock(permit)
            permit = self.breaker.acquire()
            if not permit.is_probe:
                break
        return permit

    async def _knock(self, permit: Permit) -> None:
        """Probe with a question that is answered at once."""
        ask = Ask(operation=Operation.QUERY, path=_KNOCK, method="GET", timeout_s=KNOCK_TIMEOUT_S)
        outcome, detail = Outcome.NEUTRAL, "cancelled"
        try:
            response = await self._transport.send(self._request(ask))
            outcome = of_status(ask.operation, response.status)
            detail = f"{ask.path} answered {response.status}"
        except TransportFault as fault:
            outcome, detail = of_fault(fault.fault), f"{ask.path}: {fault.detail}"
        finally:
            self.breaker.settle(permit, outcome, detail)

    def _with_key(self, passing: Passing) -> Passing:
        if not self._auth_pairs:
            return passing
        for name, _ in passing.headers:
            if name in _KEYS:
                return passing
        return replace(passing, headers=[*passing.headers, *self._auth_pairs])

    def _request(self, ask: Ask, trace: TraceContext | None = None) -> Request:
        headers = {"accept": ask.accept, "user-agent": "tinkex-proxy", **self._auth}
        if ask.method == "POST":
            headers["content-type"] = ask.content_type
        if trace is not None:
            headers |= trace.headers()
        if ask.identity is not None:
            headers["x-idempotency-key"] = ask.identity
        if ask.operation is Operation.PROBE:
            # SkyRL 0.3.0 breaks a connection some time after it stumbled over a probe's body, and
            # whatever would have gone out on it next would be lost.
            headers["connection"] = "close"
        timeout_s = self._timeout_s if ask.timeout_s is None else ask.timeout_s
        return Request(ask.method, ask.path, headers, ask.body, timeout_s, ask.on_head)


class _Way(msgspec.Struct, frozen=True):
    """A request of a caller's own on its way.

    Attributes:
        operation: how it is judged.
        passing: the request.
        permit: leave to send it, where it needs any.
        began: the moment at which it went.
    """

    operation: Operation
    passing: Passing
    permit: Permit | None
    began: float


def _judge(ask: Ask, fault: Fault) -> Outcome:
    if fault is Fault.TIMEOUT and ask.patience:
        return Outcome.NEUTRAL
    return of_fault(fault)


def json_of(response: Response) -> dict[str, object]:
    """Read an answer that must be a JSON object.

    Raises:
        ApiKeyRefused: the upstream answered 401 or 403.
        UpstreamFault: it is not one, or its status is not 2xx.
    """
    if response.status in {401, 403}:
        raise ApiKeyRefused(
            f"The upstream refused the API key ({response.status}: {detail_of(response)}). "
            "Check upstream.api_key, or the X-API-Key header you sent."
        )
    if not 200 <= response.status < 300:
        raise UpstreamFault(f"The upstream answered {response.status}: {detail_of(response)}")
    try:
        return msgspec.json.decode(response.body, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise UpstreamFault(
            f"The upstream answered {response.status}, not with a JSON object: {error}"
        ) from None


def detail_of(response: Response) -> str:
    """What an error answer says, in at most 500 characters."""
    text = response.body.decode("utf-8", "replace")
    try:
        body = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        return text[:500] or "(no text)"
    if isinstance(body, dict):
        for field in ("detail", "error", "message"):
            if isinstance(said := body.get(field), str):
                return said[:500]
    return text[:500]

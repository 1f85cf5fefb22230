"""Lane mode: the training calls of SDKs join their model's lane, beside the plain calls.

The upstream's numbers are the lane's; an SDK's own `seq_id` says in which order its calls go and
which of them is a repetition. A call is answered when the upstream has admitted it, with the
upstream's answer and a `request_id` of ours; one that waits for an earlier number is answered at
once, because the SDK sends the first piece of a large call last, when the others are answered.
Once admitted or answered, a call is in the proxy's care: it goes on when its caller has hung up and
waits for an upstream that is away, and its result is kept under both its `request_id` and its
number.

Models that the proxy has not seen being made (it was restarted, say) are relayed as they are.
"""

import asyncio
from collections.abc import Mapping
from functools import partial

import msgspec

from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.api.callers import coalesce_of, digest_of
from tinkex_proxy.api.sdk_futures import Running, SdkFutures, Timed
from tinkex_proxy.api.watch import Leaving
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.errors import Draining, IdempotencyKeyReused, ProxyError, UpstreamConflict
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES
from tinkex_proxy.runtime.events import CallRecognised
from tinkex_proxy.runtime.intake import Hold
from tinkex_proxy.runtime.ledger import Answer, Entry, Ledger
from tinkex_proxy.runtime.models import Model
from tinkex_proxy.runtime.records import AskedRecord, CallRecord
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.upstream import JSON
from tinkex_proxy.runtime.whose import Whose
from tinkex_proxy.runtime.work import Order, Training, Work
from tinkex_proxy.wire.sdk import address_of, read_order, read_training

__all__ = ["LANE_CALLS", "OPERATION", "LaneCalls", "Request"]

_TRAINING = frozenset({"forward_backward", "forward"})
# Calls that belong on a model's lane, by their path below `/api/v1/`.
LANE_CALLS = _TRAINING | {
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "save_weights_external",
    "load_weights",
    "unload_model",
}
# What these calls are called in the journal.
OPERATION = "sdk"
# How long a submit waits for the upstream's word; well below the 60 s that the SDK gives it.
ADMISSION_S = 30.0


class Request(msgspec.Struct, frozen=True):
    """One request of an SDK, its body read.

    Attributes:
        name: the call: its path below `/api/v1/`.
        headers: by lower-case name.
        body: uncompressed.
        account: of its caller.
        hold: what it holds.
        arrived: when it was there as a whole.
        trace: the place of the call in a trace, if it belongs to one.
    """

    name: str
    headers: Mapping[str, str]
    body: bytes
    account: Account
    hold: Hold
    arrived: float
    trace: TraceContext | None = None


class _Numbered(msgspec.Struct, frozen=True):
    """Work for a model, and its place in its caller's count."""

    model_id: str
    seq_id: int | None
    work: Work


class LaneCalls:
    """The calls of SDKs that go over lanes.

    Args:
        ledger: tells repetitions.
        futures: what they are promised.
        coalesce: whether their `forward_backward` calls share requests where they do not say.
    """

    def __init__(self, ledger: Ledger, futures: SdkFutures, *, coalesce: bool) -> None:
        self._ledger = ledger
        self._futures = futures
        self.coalesce = coalesce

    def revive(self, account: Account, call: CallRecord, asked: AskedRecord, hold: Hold) -> bool:
        """Go on with a promised call of an earlier run; whether its model is still there."""
        now = account.tools.clock.now()
        request = Request(asked.path, asked.headers, asked.body, account, hold, now)
        numbered = self._read(request)
        model = None if numbered is None else account.found(numbered.model_id)
        if numbered is None or model is None or model.gone is not None:
            return False
        caller = asked.headers.get("x-tinkex-caller", "")
        hold.grow(len(asked.body))
        _make_room(hold, model, caller, numbered)
        begin = partial(_placed, request, model, caller, numbered)
        entry = self._futures.revive(account, call, begin)
        hold.until(entry.task)
        return True

    async def submit(self, request: Request, leaving: Leaving) -> Answer | None:
        """Take a call on and answer its submit; None when it is to be relayed.

        Raises:
            ProxyError: it cannot be taken on, or the upstream refused it.
            CallerLeft: the caller hung up.
        """
        account = request.account
        if not account.learned:
            account.upstream.breaker.check()  # nothing is asked of an upstream that is to rest
            await account.learn()
        caller = request.headers.get("x-tinkex-caller", "")
        large = request.name in _TRAINING and len(request.body) >= LARGE_BODY_BYTES
        try:
            asked, digest = await account.tools.aside.do(
                lambda: (self._read(request), digest_of("POST", request.name, request.body)),
                large=large,
            )
        except ProxyError:
            _skip(request, caller)
            raise
        # A model that we have not seen being made is its callers' own: its numbers are not ours.
        model = None if asked is None else account.found(asked.model_id)
        if asked is None or model is None:
            return None
        key = None if asked.seq_id is None else f"\0{asked.model_id}\0{caller}\0{asked.seq_id}"
        entry = None if key is None else self._repeated(account, key, digest)
        if entry is not None:
            account.tools.hub.tell(CallRecognised(f"sdk_{request.name}"))
        else:
            if asked.seq_id is not None and model.callers.taken(caller, asked.seq_id):
                raise _reused(asked.seq_id, "and its answer is no longer kept")
            account.upstream.breaker.check()
            _make_room(request.hold, model, caller, asked)
            entry = self._futures.promise(
                account,
                partial(_placed, request, model, caller, asked),
                key=key,
                digest=digest,
                asked=_recorded(request),
            )
            request.hold.until(entry.task)
        return await self._admission(entry, asked, leaving)

    def _read(self, request: Request) -> _Numbered | None:
        if request.name not in _TRAINING:
            order = read_order(request.body)
            if order.model_id is None:
                return None
            path = f"/api/v1/{request.name}"
            work = Order(path, order.fields, of_sdk=order)
            return _Numbered(order.model_id, order.seq_id, work)
        content_type = request.headers.get("content-type", JSON)
        training = read_training(request.body, content_type, request.account.flavour)
        shares = coalesce_of(request.headers, default=self.coalesce)
        return _Numbered(
            training.model_id,
            training.seq_id,
            Training(
                fragment=training.fragment,
                loss_fn=training.loss_fn,
                loss_fn_config=training.loss_fn_config,
                forward_only=training.forward_only,
                coalesce=shares and request.account.settings.coalesce and not training.unknown,
                of_sdk=training,
            ),
        )

    def _repeated(self, account: Account, key: str, digest: bytes) -> Entry | None:
        try:
            return self._ledger.repeated(account.key_id, key, digest)
        except IdempotencyKeyReused:
            seq_id = int(key.rpartition("\0")[2])
            raise _reused(seq_id, "with another body") from None

    async def _admission(self, entry: Entry, asked: _Numbered, leaving: Leaving) -> Answer:
        """Wait for the upstream's word on a submit."""
        promise = {"request_id": entry.id, "model_id": asked.model_id}
        running = self._futures.running(entry.id)
        admitted = None if running is None else running.call.admitted
        if running is None or admitted is None or running.waits:
            await self._futures.keep(entry)
            return Answer(200, msgspec.json.encode(promise))
        entry.waiters += 1
        try:
            await self._futures.wait_with(admitted, leaving, ADMISSION_S)
        except CallerLeft:
            alone = entry.waiters == 1 and not running.promised
            if alone and running.model.driver.withdraw([running.call]):
                entry.task.cancel()
            raise
        finally:
            entry.waiters -= 1
        if admitted.cancelled():  # taken back by another connection's end: as if it had not come
            raise Draining("The call was taken back; send it again.", retry_after_s=1.0)
        if not admitted.done():
            running.promised = True
            await self._futures.keep(entry)
            return Answer(200, msgspec.json.encode(promise))
        if (error := admitted.exception()) is not None:
            await asyncio.wait([entry.task])  # forgotten before its repetition can come
            raise error
        said = _fields_of(admitted.result().body)
        return Answer(200, msgspec.json.encode({**said, "request_id": entry.id}))


def _placed(request: Request, model: Model, caller: str, asked: _Numbered, entry: Entry) -> Running:
    """Take a call on: onto the lane, behind what its caller counted before, or into a flight."""
    callers, number = model.callers, asked.seq_id
    entry.whose = Whose(entry.id, entry.owner, request.trace)
    timed = Timed(f"sdk_{request.name}", Timeline(request.arrived), entry.whose)
    if model.driver.flights.carries(entry.id):
        return Running(model, model.make(asked.work, entry), timed, caller, number, waits=False)
    if number is not None and callers.taken(caller, number):
        callers.give_back(caller, number)  # an earlier run had it refused, and ended
    placed = callers.place(caller, number, asked.work, entry)
    return Running(model, placed.call, timed, caller, number, placed.waits)


def _recorded(request: Request) -> AskedRecord:
    """What of a request it takes to do it again."""
    wanted = ("content-type", "x-tinkex-caller", "x-tinkex-coalesce")
    headers = {name: request.headers[name] for name in wanted if name in request.headers}
    return AskedRecord(OPERATION, request.name, {}, headers, request.body)


def _make_room(hold: Hold, model: Model, caller: str, asked: _Numbered) -> None:
    """Find room for a call that is to be taken on.

    One that is shed has not come: those that its caller counts behind it wait for its repetition.

    Raises:
        Overloaded: there is none.
    """
    awaited = model.callers.awaits(caller, asked.seq_id)
    early = asked.seq_id is not None and asked.seq_id > model.callers.expected(caller)
    work = asked.work
    hold.queue(model.depth, awaited=awaited)
    hold.add(len(work.fragment.data) if isinstance(work, Training) else 0, early=early)
    hold.count(awaited=awaited)


def _skip(request: Request, caller: str) -> None:
    """Let the calls after one that cannot be read go: its SDK goes on with the next number."""
    content_type = request.headers.get("content-type", JSON)
    model_id, seq_id = address_of(request.body, content_type)
    model = None if model_id is None else request.account.found(model_id)
    if model is not None and seq_id is not None:
        model.callers.skip(caller, seq_id)


def _reused(seq_id: int, how: str) -> UpstreamConflict:
    error = UpstreamConflict(
        f"Sequence number {seq_id} was reused: it came before, {how}. Several processes that train "
        "one model each count from 1: tell them apart by a header X-Tinkex-Caller."
    )
    error.upstream_said = (409, error.detail)
    return error


def _fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return {}

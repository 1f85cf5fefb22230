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
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tinkex_proxy.api.asgi import CallerLeft, Receive
from tinkex_proxy.api.callers import coalesce_of, digest_of
from tinkex_proxy.api.relay import hung_up
from tinkex_proxy.api.sdk_refusals import MAX_HOLD_S, try_again
from tinkex_proxy.errors import (
    FutureNotFound,
    IdempotencyKeyReused,
    OutcomeUnknown,
    ProxyError,
    UpstreamConflict,
    UpstreamFailed,
)
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.ledger import Answer, Entry, Ledger
from tinkex_proxy.runtime.models import Model
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import JSON
from tinkex_proxy.runtime.work import BATCH_HEADER, Call, Order, Training, Work
from tinkex_proxy.wire.output import is_protobuf
from tinkex_proxy.wire.sdk import json_answer, read_order, read_training

__all__ = ["LANE_CALLS", "LaneCalls", "Request"]

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
# Begins the ids of our futures; an upstream's are left to the upstream.
_PREFIX = "tinkex-"
# How long a submit waits for the upstream's word; well below the 60 s that the SDK gives it.
ADMISSION_S = 30.0
# Results from here up are announced by their size first where the SDK allows that, so that it takes
# no more of them at once than it has room for.
METADATA_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request of an SDK, its body read.

    Attributes:
        name: the call: its path below `/api/v1/`.
        headers: by lower-case name.
        body: uncompressed.
        account: of its caller.
    """

    name: str
    headers: Mapping[str, str]
    body: bytes
    account: Account


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Work for a model, and its place in its caller's count."""

    model_id: str
    seq_id: int | None
    work: Work


@dataclass(frozen=True, slots=True)
class _Running:
    """A call under way, by the id of its future."""

    model: Model
    call: Call
    caller: str
    seq_id: int | None
    waits: bool


class _Poll(msgspec.Struct):
    request_id: str | int | None = None
    allow_metadata_only: bool = False


class LaneCalls:
    """The calls of SDKs that go over lanes.

    Args:
        ledger: keeps their answers.
        coalesce: whether their `forward_backward` calls share requests where they do not say.
    """

    def __init__(self, ledger: Ledger, *, coalesce: bool) -> None:
        self._ledger = ledger
        self._coalesce = coalesce
        self._running: dict[str, _Running] = {}

    async def submit(self, request: Request, receive: Receive) -> Answer | None:
        """Take a call on and answer its submit; None when it is to be relayed.

        Raises:
            ProxyError: it cannot be taken on, or the upstream refused it.
            CallerLeft: the caller hung up.
        """
        account = request.account
        await account.learn()
        asked = self._read(request)
        model = None if asked is None else self._model(account, asked)
        if asked is None or model is None:
            return None
        caller = request.headers.get("x-tinkex-caller", "")
        key = None if asked.seq_id is None else f"\0{asked.model_id}\0{caller}\0{asked.seq_id}"
        digest = digest_of("POST", request.name, request.body)
        entry = None if key is None else self._repeated(account, key, digest)
        if entry is None:
            if asked.seq_id is not None and model.callers.taken(caller, asked.seq_id):
                raise _reused(asked.seq_id, "and its answer is no longer kept")
            account.upstream.breaker.check()
            entry = self._start(account, model, caller, asked, key, digest)
        return await self._admission(entry, asked, receive)

    async def retrieve(self, request: Request, receive: Receive) -> Answer | None:
        """Answer a poll of one of our futures; None when it is the upstream's.

        Raises:
            CallerLeft: the caller hung up.
        """
        try:
            asked = msgspec.json.decode(request.body, type=_Poll)
        except msgspec.DecodeError:
            return None
        request_id = str(asked.request_id)
        if not request_id.startswith(_PREFIX):
            return None
        try:
            entry = self._ledger.find(request.account.key_id, request_id)
        except FutureNotFound as gone:  # the SDK resubmits what is gone, and only then
            return Answer(410, msgspec.json.encode({"detail": gone.detail}))
        await _either(entry.task, receive, MAX_HOLD_S)
        if not entry.task.done() or entry.task.cancelled():
            return self._not_yet(request_id)
        answer = entry.task.result()
        content_type = answer.headers.get("content-type", JSON)
        if is_protobuf(content_type) and not is_protobuf(request.headers.get("accept", "")):
            headers = {**answer.headers, "content-type": JSON}
            answer = Answer(200, json_answer(answer.body), headers)
        if asked.allow_metadata_only and len(answer.body) >= METADATA_BYTES:
            size = {"status": "complete_metadata", "response_payload_size": len(answer.body)}
            return Answer(200, msgspec.json.encode(size))
        self._ledger.fetched(entry)
        return answer

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
        shares = coalesce_of(request.headers, default=self._coalesce)
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

    def _model(self, account: Account, asked: _Numbered) -> Model | None:
        """The model, with a lane; None for one whose numbers are its caller's."""
        model = account.found(asked.model_id)
        if model is not None:
            return model
        if asked.seq_id != 1 or account.is_relayed(asked.model_id):
            account.relay(asked.model_id)
            return None
        facts = {"model_id": asked.model_id, "base_model": None, "rank": None}
        session_id = asked.model_id.partition(":train:")[0]
        return account.adopt(facts, asked.model_id, session_id, of_sdk=True)

    def _repeated(self, account: Account, key: str, digest: bytes) -> Entry | None:
        try:
            return self._ledger.repeated(account.key_id, key, digest)
        except IdempotencyKeyReused:
            seq_id = int(key.rpartition("\0")[2])
            raise _reused(seq_id, "with another body") from None

    def _start(
        self,
        account: Account,
        model: Model,
        caller: str,
        asked: _Numbered,
        key: str | None,
        digest: bytes,
    ) -> Entry:
        placed = model.callers.place(caller, asked.seq_id, asked.work)
        running = _Running(model, placed.call, caller, asked.seq_id, placed.waits)
        request_id = _PREFIX + uuid.uuid4().hex
        entry = self._ledger.start(
            request_id, account.key_id, self._run(running), key=key, digest=digest
        )
        entry.wanted = True
        account.serve(entry.task)
        self._running[request_id] = running
        entry.task.add_done_callback(lambda _: self._running.pop(request_id, None))
        return entry

    async def _run(self, running: _Running) -> Answer:
        """What the future of a call comes to."""
        try:
            answered = await running.call.answer
        except ProxyError as error:
            nothing_ran = not _was_admitted(running.call) and not isinstance(error, OutcomeUnknown)
            if nothing_ran:
                running.model.callers.give_back(running.caller, running.seq_id)
            return _failed(error, retryable=nothing_ran)
        except asyncio.CancelledError:
            running.model.callers.give_back(running.caller, running.seq_id)
            raise
        if not isinstance(answered, Response):
            raise TypeError("an SDK's call is answered as the upstream answers")
        work = running.call.work
        if isinstance(work, Order) and work.path.endswith("/unload_model"):
            running.model.end(f"The model {running.model.model_id} was unloaded.")
        headers = {"content-type": answered.headers.get("content-type", JSON)}
        if BATCH_HEADER in answered.headers:
            headers[BATCH_HEADER] = answered.headers[BATCH_HEADER]
        return Answer(200, answered.body, headers)

    async def _admission(self, entry: Entry, asked: _Numbered, receive: Receive) -> Answer:
        """Wait for the upstream's word on a submit."""
        promise = {"request_id": entry.id, "model_id": asked.model_id}
        running = self._running.get(entry.id)
        admitted = None if running is None else running.call.admitted
        if running is None or admitted is None or running.waits:
            return Answer(200, msgspec.json.encode(promise))
        entry.waiters += 1
        try:
            await _either(admitted, receive, ADMISSION_S)
        except CallerLeft:
            if entry.waiters == 1 and running.model.driver.withdraw([running.call]):
                entry.task.cancel()
            raise
        finally:
            entry.waiters -= 1
        if not admitted.done():
            return Answer(200, msgspec.json.encode(promise))
        if (error := admitted.exception()) is not None:
            await asyncio.wait([entry.task])  # forgotten before its repetition can come
            raise error
        said = _fields_of(admitted.result().body)
        return Answer(200, msgspec.json.encode({**said, "request_id": entry.id}))

    def _not_yet(self, request_id: str) -> Answer:
        running = self._running.get(request_id)
        state, reason = "active", None
        if running is not None:
            if running.waits and not running.call.left:
                expected = running.model.callers.expected(running.caller)
                reason = f"waits for the call with seq_id {expected}"
            queue = running.model.driver.queue_state
            if queue is not None:
                state, reason = queue.state, queue.reason
        return try_again(request_id, state, reason)


async def _either(
    awaited: "asyncio.Future[Response] | asyncio.Task[Answer]", receive: Receive, seconds: float
) -> None:
    """Wait for one thing, as long as the caller does.

    Raises:
        CallerLeft: the caller hung up first.
    """
    if awaited.done():
        return
    gone = asyncio.get_running_loop().create_task(hung_up(receive))
    try:
        await asyncio.wait((awaited, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not awaited.done():
            raise CallerLeft
    finally:
        gone.cancel()


def _was_admitted(call: Call) -> bool:
    admitted = call.admitted
    return admitted is not None and admitted.done() and admitted.exception() is None


def _failed(error: ProxyError, *, retryable: bool) -> Answer:
    """How a future says that its request failed, for good."""
    category = error.category if isinstance(error, UpstreamFailed) else "unknown"
    if error.upstream_said is not None and 400 <= error.upstream_said[0] < 500:
        category = "user"
    body = {"error": error.detail, "category": category}
    return Answer(200, msgspec.json.encode(body), {"content-type": JSON}, retryable=retryable)


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

"""The futures that SDKs are promised in lane mode: what they come to, and polls for them.

A poll is held until its future has ended or for `MAX_HOLD_S`, and then answered `try_again`. A
result comes as the upstream gave it, in protobuf or JSON as the poll asks; a failed request as
`{"error", "category"}`; a future that is not known (any more) as 410, which the SDK takes for gone.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.api.sdk_refusals import MAX_HOLD_S, try_again
from tinkex_proxy.api.server_timing import HEADER, server_timing
from tinkex_proxy.api.watch import Leaving, Until
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.errors import (
    CircuitOpen,
    FutureNotFound,
    OutcomeUnknown,
    ProxyError,
    UpstreamFailed,
)
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.drain import Release
from tinkex_proxy.runtime.events import CallTimed, Trained
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.ledger import Answer, Entry, Ledger
from tinkex_proxy.runtime.models import Model
from tinkex_proxy.runtime.records import AskedRecord, CallRecord
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import JSON
from tinkex_proxy.runtime.whose import Whose
from tinkex_proxy.runtime.work import BATCH_HEADER, Call, Order, Training
from tinkex_proxy.wire.output import is_protobuf, loss_sum_of
from tinkex_proxy.wire.sdk import json_answer

__all__ = ["Running", "SdkFutures"]

T = TypeVar("T")

# Begins the ids of our futures; an upstream's are left to the upstream.
_PREFIX = "tinkex-"
# Results from here up are announced by their size first where the SDK allows that, so that it takes
# no more of them at once than it has room for.
METADATA_BYTES = 1024 * 1024


class Timed(msgspec.Struct, frozen=True):
    """What is told of a call's time.

    Attributes:
        operation: what it is called in metrics and logs.
        timeline: from its submit until its result is there.
        whose: its name.
    """

    operation: str
    timeline: Timeline
    whose: Whose


@dataclass(eq=False, slots=True)
class Running:
    """A call under way.

    Attributes:
        model: whose lane it is on, or on its way to.
        call: the call.
        timed: what is told of its time.
        caller: who made it.
        seq_id: its place in the caller's count, or None.
        waits: whether it came before its turn.
        promised: whether its caller has been given the future before the upstream's word.
    """

    model: Model
    call: Call
    timed: Timed
    caller: str
    seq_id: int | None
    waits: bool
    promised: bool = False


class _Poll(msgspec.Struct):
    request_id: str | int | None = None
    allow_metadata_only: bool = False


class SdkFutures:
    """The futures of SDK calls.

    Args:
        ledger: keeps what they come to.
        release: set when polls are not to be held any more.
        clock: measures them.
        hub: is told where their time went.
    """

    def __init__(self, ledger: Ledger, release: Release, *, clock: Clock, hub: Hub) -> None:
        self._ledger = ledger
        self._release = release
        self._clock = clock
        self._hub = hub
        self._running: dict[str, Running] = {}

    def running(self, request_id: str) -> Running | None:
        """The call behind a future, while it is under way."""
        return self._running.get(request_id)

    def promise(
        self,
        account: Account,
        begin: Callable[[Entry], Running],
        *,
        key: str | None,
        digest: bytes,
        asked: AskedRecord,
    ) -> Entry:
        """Make the future of a call that is being taken on.

        Args:
            account: whose call it is.
            begin: takes it on.
            key: tells its repetitions.
            digest: of its body.
            asked: the request, to do it again after our end.
        """
        owner = account.key_id
        request_id = self._ledger.id_of(owner, key, _PREFIX + uuid.uuid4().hex)
        work = partial(self._run, begin)
        entry = self._ledger.start(request_id, owner, work, key=key, digest=digest, asked=asked)
        entry.wanted = entry.promised = True
        self._watch(account, entry)
        return entry

    def revive(
        self, account: Account, call: CallRecord, begin: Callable[[Entry], Running]
    ) -> Entry:
        """Go on with a call of an earlier run."""
        entry = self._ledger.restart(call, partial(self._run, begin))
        self._watch(account, entry)
        return entry

    async def keep(self, entry: Entry) -> None:
        """Have a future that is about to be handed out outlast this process.

        Raises:
            JournalUnavailable: that cannot be.
        """
        await self._ledger.promise(entry)

    def _run(
        self, begin: Callable[[Entry], Running], entry: Entry
    ) -> Coroutine[object, object, Answer]:
        running = begin(entry)
        self._running[entry.id] = running
        entry.leaving = partial(running.model.callers.leaving, running.caller, running.seq_id)
        return self._timed(running)

    async def _timed(self, running: Running) -> Answer:
        """What the future of a call comes to, with where its time went."""
        timed, code = running.timed, "withdrawn"
        try:
            answer, code = await _run(running)
        finally:
            now = self._clock.now()
            timed.timeline.join(running.call.timeline, now)
            timed.timeline.end(now)
            models = (running.model.model_id,)
            told = CallTimed(timed.operation, code, timed.timeline, timed.whose, models)
            self._hub.tell(told)
        return msgspec.structs.replace(
            answer, headers={**answer.headers, HEADER: server_timing(timed.timeline)}
        )

    def _watch(self, account: Account, entry: Entry) -> None:
        account.serve(entry.task)
        entry.task.add_done_callback(lambda _: self._ended(account, entry))

    def _ended(self, account: Account, entry: Entry) -> None:
        running = self._running.pop(entry.id, None)
        if running is None or entry.task.cancelled() or entry.task.exception() is not None:
            return
        work, answer = running.call.work, entry.task.result()
        if isinstance(work, Training) and not work.forward_only:
            loss = loss_sum_of(answer.body, answer.headers.get("content-type", JSON))
            if loss is not None:
                told = Trained(running.model.model_id, loss, work.fragment.datums)
                account.tools.hub.tell(told)

    async def retrieve(
        self, account: Account, headers: Mapping[str, str], body: bytes, leaving: Leaving
    ) -> Answer | None:
        """Answer a poll of one of our futures; None when it is the upstream's.

        Raises:
            CallerLeft: the caller hung up.
        """
        try:
            asked = msgspec.json.decode(body, type=_Poll)
        except msgspec.DecodeError:
            return None
        request_id = str(asked.request_id)
        if not request_id.startswith(_PREFIX):
            return None
        try:
            entry = self._ledger.find(account.key_id, request_id)
        except FutureNotFound as gone:
            return Answer(410, msgspec.json.encode({"detail": gone.detail}))
        await self.wait_with(entry.task, leaving, MAX_HOLD_S)
        if not entry.task.done() or entry.task.cancelled():
            return self._not_yet(account, request_id)
        answer = _as_asked(entry.task.result(), headers)
        if asked.allow_metadata_only and len(answer.body) >= METADATA_BYTES:
            size = {"status": "complete_metadata", "response_payload_size": len(answer.body)}
            return Answer(200, msgspec.json.encode(size))
        self._ledger.fetched(entry)
        return answer

    async def wait_with(
        self,
        awaited: "asyncio.Future[T]",
        leaving: Leaving,
        seconds: float,
    ) -> None:
        """Wait for one thing, for so long, and as long as the caller and we are there.

        Raises:
            CallerLeft: the caller hung up first.
        """
        if awaited.done() or self._release.is_set():
            return
        with Until(awaited, leaving, seconds, self._release) as end:
            await end.came
        if end.left:
            raise CallerLeft

    def _not_yet(self, account: Account, request_id: str) -> Answer:
        try:
            account.upstream.breaker.check()
        except CircuitOpen as shut:
            return try_again(request_id, "paused_capacity", shut.detail)
        held = account.upstream.pace.held_back()
        if held is not None:
            return try_again(request_id, "paused_rate_limit", held[1])
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


async def _run(running: Running) -> tuple[Answer, str]:
    """What the future of a call comes to, and that in a word."""
    try:
        answered = await running.call.answer
    except ProxyError as error:
        nothing_ran = not _was_admitted(running.call) and not isinstance(error, OutcomeUnknown)
        if nothing_ran:
            running.model.callers.give_back(running.caller, running.seq_id)
        return _failed(error, retryable=nothing_ran), error.code
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
    return Answer(200, answered.body, headers), "ok"


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


def _as_asked(answer: Answer, headers: Mapping[str, str]) -> Answer:
    """A result in JSON for a poll that does not take protobuf."""
    content_type = answer.headers.get("content-type", JSON)
    if not is_protobuf(content_type) or is_protobuf(headers.get("accept", "")):
        return answer
    return Answer(200, json_answer(answer.body), {**answer.headers, "content-type": JSON})

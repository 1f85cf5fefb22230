"""Driving one lane: `core.lane` decides, this sends.

One task per lane that has something waiting: it submits what the lane gives, waits for that submit
(not for its result) and asks the lane again. Results are awaited by tasks of their own, so an
`optim_step` is with the upstream before the answer of the batch ahead of it.
"""

import asyncio
import copy
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tinkex_proxy.core.coalesce import FlushReason, Item
from tinkex_proxy.core.lane import Batch, Lane
from tinkex_proxy.errors import ModelGone, ProxyError, UpstreamFault
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import BatchLeft, Hub, Note
from tinkex_proxy.runtime.futures import Poller, QueueState
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.work import Call, Order, Work, accept_of, encode, read
from tinkex_proxy.wire.datum import Flavour

__all__ = ["LaneDriver", "Tools"]

_LINGERING = frozenset({FlushReason.IDLE, FlushReason.LINGER, FlushReason.DEADLINE})
# uvloop's timers count whole milliseconds; shorter waits take turns of the event loop instead.
TIMER_GRAIN_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every lane of one key works with.

    Attributes:
        submitter: gets requests admitted.
        poller: waits for their results.
        knows: asks the upstream whether it still has a model.
        tasks: runs what outlives a call.
        clock: measures.
        hub: is told.
    """

    submitter: Submitter
    poller: Poller
    knows: Callable[[str], Awaitable[bool]]
    tasks: Tasks
    clock: Clock
    hub: Hub


class LaneDriver:
    """One model's lane at work.

    Args:
        model_id: the upstream's id of the model.
        lane: order, batches and numbers.
        tools: submits, polls, tasks.
        flavour: how training bodies are encoded.
        on_gone: told why, when the upstream no longer knows the model.
    """

    def __init__(
        self,
        model_id: str,
        lane: Lane,
        tools: Tools,
        *,
        flavour: Flavour,
        on_gone: Callable[[str], None],
    ) -> None:
        self.model_id = model_id
        self.lane = lane
        self.flavour = flavour
        self._states: dict[int, QueueState] = {}
        self.batches = 0
        self.items = 0
        self.later = tools.clock.call_later
        self._tools = tools
        self._on_gone = on_gone
        self._calls: dict[int, Call] = {}
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._wire_free_at = self.used_at = tools.clock.now()
        self._doubtful_seq: int | None = None

    @property
    def queue_state(self) -> QueueState | None:
        """What the upstream says of the oldest request that it holds back, or of the oldest."""
        states = list(self._states.values())
        paused = [state for state in states if state.state != "active"]
        return next(iter(paused or states), None)

    @property
    def idle(self) -> bool:
        """Whether no call is anywhere between its coming and its answer."""
        return not self._calls

    def put(self, works: Sequence[Work], *, deadline: float | None) -> list[Call]:
        """Put work behind all other work of the lane, in this order and with nothing between."""
        calls = [self.make(work, deadline=deadline) for work in works]
        self.enqueue(calls)
        return calls

    def make(self, work: Work, *, deadline: float | None = None) -> Call:
        """Make a call of some work; it is not on the lane yet."""
        self.items += 1
        loop = asyncio.get_running_loop()
        item = _item_of(self.items, work, deadline)
        admitted = loop.create_future() if work.of_sdk else None
        call = Call(work, item, self._tools.clock.now(), loop.create_future(), admitted)
        self._calls[item.id] = call
        return call

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Put calls behind all other work of the lane, in this order and with nothing between."""
        now = self.used_at = self._tools.clock.now()
        for call in calls:
            self.lane.add(call.item, now)
        self._awaken()

    def withdraw(self, calls: Sequence[Call]) -> bool:
        """Take calls out whose caller has left: all of them, or none if any has left already."""
        if any(call.left or call.answer.done() for call in calls):
            return False
        for call in calls:
            self.lane.withdraw(call.item.id)
            self._calls.pop(call.item.id, None)
            call.answer.cancel()
            if call.admitted is not None:
                call.admitted.cancel()
        self._awaken()
        return True

    def close(self, error: ProxyError) -> None:
        """Fail what has not left, on the lane or still on its way to it."""
        self.lane.close()
        for call in [call for call in self._calls.values() if not call.left]:
            self._fail(call.item, error)

    def drain(self) -> None:
        """Let nothing linger any more."""
        self.lane.drain()
        self._awaken()

    def _awaken(self) -> None:
        if self._runner is None:
            self._runner = self._tools.tasks.spawn(f"lane {self.model_id}", self._run())
        self._wake.set()

    async def _run(self) -> None:
        clock = self._tools.clock
        try:
            while True:
                self._wake.clear()
                now = clock.now()
                batch = self.lane.poll(now)
                if batch is not None:
                    await self._submit(batch, now)
                elif (ask_at := self.lane.ask_at(now)) is None:
                    return
                else:
                    await self._pause(ask_at - now)
        finally:
            self._runner = None

    async def _pause(self, seconds: float) -> None:
        if seconds < TIMER_GRAIN_S:
            await asyncio.sleep(0)
            return
        call_off = self._tools.clock.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            call_off()

    async def _submit(self, batch: Batch, now: float) -> None:
        calls = [self._calls[item.id] for item in batch.items]
        self._mark_left(batch, calls, now)
        try:
            ask = encode(
                self.model_id, batch, calls, flavour=self.flavour, identity=uuid.uuid4().hex
            )
            verdict = await self._tools.submitter.submit(ask)
            gone = isinstance(verdict, Refused) and await self._is_gone(verdict)
        except Exception as bug:  # noqa: BLE001 - whatever it is, no caller may wait for ever
            self._tools.hub.tell(Note("error", f"submitting for {self.model_id} failed", bug))
            for item in self.lane.refused(bisect=False):
                self._fail(item, UpstreamFault("The proxy failed to submit this request."))
            return
        self._wire_free_at = self._tools.clock.now()
        for call in calls:
            call.timeline.upload_s = self._wire_free_at - now
        if isinstance(verdict, Refused):
            self._on_refused(batch, calls, verdict, gone=gone)
            return
        self.lane.admitted()
        self._doubtful_seq = None
        for call in calls:
            if call.admitted is not None and not call.admitted.done():
                call.admitted.set_result(verdict.response)
        name = f"result {self.model_id}#{batch.seq_id}"
        self._tools.tasks.spawn(name, self._collect(batch, calls, verdict))

    def _mark_left(self, batch: Batch, calls: Sequence[Call], now: float) -> None:
        self.batches += 1
        for call in calls:
            call.left = True
            waited = now - call.since
            lingered = now - max(call.since, self._wire_free_at)
            call.timeline.linger_s = lingered if batch.reason in _LINGERING else 0.0
            call.timeline.queue_s = waited - call.timeline.linger_s
        self._tools.hub.tell(
            BatchLeft(
                self.model_id,
                batch.seq_id,
                batch.reason.value,
                len(calls),
                batch.datums,
                batch.waited_s,
            )
        )

    async def _is_gone(self, verdict: Refused) -> bool:
        """Whether a refusal means that the upstream has lost the model.

        A 404 can also be about a checkpoint, or a call that this upstream does not have: ask.
        """
        return verdict.status in {404, 410} and not await self._tools.knows(self.model_id)

    def _on_refused(
        self, batch: Batch, calls: Sequence[Call], verdict: Refused, *, gone: bool
    ) -> None:
        if verdict.status == 409 and self._doubtful_seq == batch.seq_id:
            self._doubtful_seq = None
            self.lane.outnumbered()
            refused: Sequence[Item] = ()
        else:
            if verdict.doubtful:
                self._doubtful_seq = batch.seq_id
            refused = self.lane.refused(bisect=verdict.bisect)
        error = verdict.error
        if gone:
            error = ModelGone(f"The upstream no longer knows the model {self.model_id} ({error}).")
            error.upstream_said = verdict.error.upstream_said
        for item in refused:
            self._fail(item, error)
        for call in calls:
            call.left = call.answer.done()
        if gone:
            self._on_gone(error.detail)

    async def _collect(self, batch: Batch, calls: Sequence[Call], verdict: Admitted) -> None:
        try:
            response = await self._result(batch, calls, verdict)
            answers = read(response, calls, batch_id=f"{self.model_id}#{batch.seq_id}")
            for call, answer in zip(calls, answers, strict=True):
                self._calls.pop(call.item.id, None)
                if not call.answer.done():
                    call.answer.set_result(answer)
        except ProxyError as error:
            for call in calls:
                self._fail(call.item, error)
        finally:
            self._states.pop(batch.seq_id, None)
            self.lane.settled()
            for call in calls:
                self._fail(call.item, UpstreamFault("The proxy failed to read this answer."))

    async def _result(self, batch: Batch, calls: Sequence[Call], verdict: Admitted) -> Response:
        if verdict.request_id is None:
            return verdict.response
        clock = self._tools.clock
        began = queued_until = clock.now()

        def on_state(state: QueueState) -> None:
            nonlocal queued_until
            self._states[batch.seq_id] = state
            if state.state != "active":
                queued_until = clock.now()

        response = await self._tools.poller.result(
            verdict.request_id, accept=accept_of(calls[0]), on_state=on_state
        )
        for call in calls:
            call.timeline.upstream_queue_s = queued_until - began
            call.timeline.compute_s = clock.now() - queued_until
        return response

    def _fail(self, item: Item, error: ProxyError) -> None:
        call = self._calls.pop(item.id, None)
        for waiting in () if call is None else (call.answer, call.admitted):
            if waiting is not None and not waiting.done():
                waiting.set_exception(copy.copy(error))  # each caller's own, to add to
                waiting.exception()  # seen: a caller that has left retrieves nothing


def _item_of(number: int, work: Work, deadline: float | None) -> Item:
    if isinstance(work, Order):
        return Item(id=number, key=None, deadline=deadline)
    return Item(
        id=number,
        key=work.key,
        datums=work.fragment.datums,
        size_bytes=work.fragment.size_bytes,
        deadline=deadline,
    )

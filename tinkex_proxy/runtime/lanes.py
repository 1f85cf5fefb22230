"""Driving one lane: `core.lane` decides, this sends.

One task per lane that has something waiting: it submits what the lane gives, waits for that submit
(not for its result) and asks the lane again. Results are awaited by tasks of their own, so an
`optim_step` is with the upstream before the answer of the batch ahead of it.

What leaves is in the journal first. A lane that goes on from an earlier run's journal begins with
what was under way then (`flights.py`): nothing else leaves before it is known whether the upstream
has what was on the wire.
"""

import asyncio
import copy
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from tinkex_proxy.core.coalesce import FlushReason, Item, Limits
from tinkex_proxy.core.lane import Batch, Lane
from tinkex_proxy.core.timeline import Part, Timeline
from tinkex_proxy.errors import (
    JournalUnavailable,
    OutcomeUnknown,
    ProxyError,
    UpstreamFault,
)
from tinkex_proxy.runtime.admit import Admitter, gone_for
from tinkex_proxy.runtime.aside import (
    LARGE_ANSWER_BYTES,
    LARGE_BODY_BYTES,
    TURN_BYTES,
    Aside,
    spread,
)
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import BatchEnded, BatchLeft, Note
from tinkex_proxy.runtime.flights import Flights
from tinkex_proxy.runtime.futures import LARGE_BYTES, Poller, QueueState, Waiters
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.landing import Landing
from tinkex_proxy.runtime.lane_pages import LanePages
from tinkex_proxy.runtime.pace import Leave
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.recognition import Recognition
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.trace_context import leading
from tinkex_proxy.runtime.tracer import OFF, Tracer
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.whose import Behalf
from tinkex_proxy.runtime.work import (
    Answered,
    Call,
    Order,
    Origin,
    Work,
    accept_of,
    encode,
    read,
)
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
        book: the key's part of the journal.
        recognition: whether the upstream knows repetitions again.
        tracer: gives batches their place in a trace.
        aside: writes large requests and reads large answers.
    """

    submitter: Submitter
    poller: Poller
    knows: Callable[[str], Awaitable[bool]]
    tasks: Tasks
    clock: Clock
    hub: Hub
    book: Book = field(default_factory=Book)
    recognition: Recognition = field(default_factory=Recognition)
    tracer: Tracer = OFF
    aside: Aside = field(default_factory=Aside)


class _Sent(msgspec.Struct, frozen=True):
    """A batch that has left.

    Attributes:
        left: what was told of it.
        calls: whose parts it holds.
        behalf: on whose behalf it goes, and its place in a trace.
        began: when it left.
    """

    left: BatchLeft
    calls: Sequence[Call]
    behalf: Behalf
    began: float


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
        self._pages = LanePages(tools.book, model_id, tools.aside)
        self._admitter = Admitter(model_id, lane, tools.submitter, tools.recognition, tools.knows)
        self._landing = Landing(self, lane, self._pages, self._admitter, tools.tasks, tools.clock)
        self._tools = tools
        self._on_gone = on_gone
        self._calls: dict[int, Call] = {}
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._wire_free_at = self.used_at = tools.clock.now()

    @property
    def queue_state(self) -> QueueState | None:
        """What the upstream says of the oldest request that it holds back, or of the oldest."""
        states = list(self._states.values())
        paused = [state for state in states if state.state != "active"]
        return next(iter(paused or states), None)

    @property
    def flights(self) -> Flights:
        """What an earlier run had under way."""
        return self._landing.flights

    @property
    def idle(self) -> bool:
        """Whether no call is anywhere between its coming and its answer."""
        return not self._calls

    def put(
        self,
        works: Sequence[Work],
        *,
        deadline: float | None,
        origin: Origin | None = None,
        part: str = "0",
    ) -> list[Call]:
        """Put work behind all other work of the lane, in this order and with nothing between.

        Args:
            works: the work.
            deadline: when its caller stops waiting, or None.
            origin: the caller's call that it is part of, if somebody may come for that again.
            part: which part; the works are its pieces.
        """
        calls = [
            self.make(work, deadline=deadline, origin=origin, part=f"{part}.{piece}")
            for piece, work in enumerate(works)
        ]
        self.enqueue(calls)
        return calls

    def make(
        self,
        work: Work,
        *,
        deadline: float | None = None,
        origin: Origin | None = None,
        part: str = "0.0",
    ) -> Call:
        """Make a call of some work; it is not on the lane yet, or boards a flight."""
        self.items += 1
        loop = asyncio.get_running_loop()
        item = _item_of(self.items, work, deadline)
        admitted = loop.create_future() if work.of_sdk else None
        timeline = Timeline(self._tools.clock.now(), Part.QUEUE)
        call = Call(work, item, timeline, loop.create_future(), origin, part, admitted)
        self._calls[item.id] = call
        self._landing.board(call)
        return call

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Put calls behind all other work of the lane, in this order and with nothing between.

        Those that have boarded a flight have left.
        """
        now = self.used_at = self._tools.clock.now()
        for call in calls:
            if not call.left:
                self.lane.add(call.item, now)
        self.awaken()

    def resume(self, pages: Sequence[Page], *, keep_s: float) -> None:
        """Go on from an earlier run.

        Args:
            pages: the requests that were under way then, by number.
            keep_s: how long their callers may take to come again.
        """
        self._landing.resume(pages, keep_s=keep_s)

    def withdraw(self, calls: Sequence[Call]) -> bool:
        """Take calls out whose caller has left: all of them, or none if any has left already."""
        if any(call.left or call.answer.done() for call in calls):
            return False
        for call in calls:
            self.lane.withdraw(call.item.id)
            self._calls.pop(call.item.id, None)
            call.timeline.end(self._tools.clock.now())
            call.answer.cancel()
            if call.admitted is not None:
                call.admitted.cancel()
        self.awaken()
        return True

    def close(self, error: ProxyError) -> None:
        """Fail what has not left, on the lane or still on its way to it."""
        self._pages.close()
        self.lane.close()
        self._wake.set()
        for call in [call for call in self._calls.values() if not call.left]:
            self._fail(call.item, error)

    def set_limits(self, limits: Limits) -> None:
        """Let batches leave by other limits, the open one too."""
        self.lane.set_limits(limits)
        self._wake.set()

    def drain(self) -> None:
        """Let nothing linger any more."""
        self.lane.drain()
        self.awaken()

    def awaken(self) -> None:
        """There may be something to send."""
        if self._runner is None:
            self._runner = self._tools.tasks.spawn(f"lane {self.model_id}", self._run())
        self._wake.set()

    async def _run(self) -> None:
        clock = self._tools.clock
        try:
            while True:
                self._wake.clear()
                now = clock.now()
                ask_at = self.lane.ask_at(now)
                if ask_at is None:
                    return
                if ask_at > now:
                    await self._pause(ask_at - now)
                    continue
                # Leave first: while it is waited for, calls may still join, and be taken back.
                async with self._tools.submitter.leave(("lane", self.model_id)) as leave:
                    if (batch := self.lane.poll(clock.now())) is not None:
                        await self._submit(batch, now, leave)
        finally:
            self._runner = None

    async def _pause(self, seconds: float) -> None:
        clock = self._tools.clock
        if seconds < TIMER_GRAIN_S:
            until = clock.now() + seconds
            while not self._wake.is_set() and clock.now() < until:  # noqa: ASYNC110 - no timer is so short
                await asyncio.sleep(0)
            return
        call_off = clock.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            call_off()

    async def _submit(self, batch: Batch, ready_at: float, leave: Leave) -> None:
        calls = [self._calls[item.id] for item in batch.items]
        sent = self._mark_left(batch, calls, ready_at)
        page: Page | None = None
        try:
            encoding = partial(
                encode,
                self.model_id,
                batch,
                calls,
                repeatable=self._admitter.repeatable(self.flavour),
                identity=secrets.token_hex(16),
                leave=leave,
                behalf=sent.behalf,
            )
            size = sum(item.size_bytes for item in batch.items)
            ask = await self._tools.aside.copy(encoding, large=size >= LARGE_BODY_BYTES)
            accept = accept_of(calls[0])
            self._enter(calls, Part.JOURNAL)
            page = await self._pages.write(batch.seq_id, calls, ask, accept=accept)
            self._enter(calls, Part.UPLOAD)
            verdict = await self._admitter.admit(ask, self.flavour)
            gone = await self._admitter.gone(verdict)
        except JournalUnavailable as error:
            verdict, gone = Refused(error), None
        except Exception as bug:  # noqa: BLE001 - whatever it is, no caller may wait for ever
            said = f"submitting for {self.model_id} failed"
            self._tools.hub.tell(Note("error", said, bug, sent.behalf.calls))
            self._pages.tear(page)
            for item in self.lane.refused(bisect=False):
                self._fail(item, UpstreamFault("The proxy failed to submit this request."))
            self._tell_end(sent, "internal_error")
            return
        admitted = isinstance(verdict, Admitted)
        self._wire_free_at = self._enter(calls, Part.COMPUTE if admitted else Part.QUEUE)
        if isinstance(verdict, Refused):
            self._on_refused(calls, verdict, gone, page)
            self._tell_end(sent, verdict.error.code)
            return
        self._admitter.admitted()
        self._pages.admitted(page, verdict.response, next_seq=self.lane.next_seq)
        for call in calls:
            if call.admitted is not None and not call.admitted.done():
                call.admitted.set_result(verdict.response)
        name = f"result {self.model_id}#{batch.seq_id}"
        self._tools.tasks.spawn(name, self._collect(batch, sent, verdict, page))

    def _mark_left(self, batch: Batch, calls: Sequence[Call], ready_at: float) -> _Sent:
        """Calls leave now; their batch was ready to at `ready_at`, and has waited for leave since.

        That they were lingering is known only now: the calls behind them may have been a barrier.
        """
        self.batches += 1
        for call in calls:
            call.left = True
            if batch.reason in _LINGERING:
                call.timeline.enter(Part.LINGER, self._wire_free_at)
                call.timeline.enter(Part.QUEUE, ready_at)
        now = self._enter(calls, Part.PROXY)
        origins = [call.origin for call in calls]
        whose = tuple(o.whose for o in origins if o is not None and o.whose is not None)
        left = BatchLeft(
            self.model_id,
            batch.seq_id,
            batch.reason.value,
            len(calls),
            batch.datums,
            batch.waited_s,
            sum(item.size_bytes for item in batch.items),
            whose,
        )
        self._tools.hub.tell(left)
        trace = self._tools.tracer.below(leading([one.trace for one in whose]))
        return _Sent(left, calls, Behalf(whose, trace), now)

    def _tell_end(self, sent: _Sent, code: str) -> None:
        """Tell of a batch's end, if somebody follows it."""
        trace = sent.behalf.trace
        if trace is not None and self._tools.tracer.on:
            now = self._tools.clock.now()
            self._tools.hub.tell(BatchEnded(sent.left, code, trace, sent.began, now))

    def _enter(self, calls: Sequence[Call], part: Part) -> float:
        """What calls are in from now on; gives the moment."""
        now = self._tools.clock.now()
        for call in calls:
            call.timeline.enter(part, now)
        return now

    def _on_refused(
        self, calls: Sequence[Call], verdict: Refused, gone: ProxyError | None, page: Page | None
    ) -> None:
        if verdict.doubtful:
            self._pages.doubt(page)
        else:
            self._pages.tear(page)
        refused: Sequence[Item] = ()
        number = self.lane.next_seq
        if not self._admitter.outnumbered(verdict, _path_of(calls[0])):
            if verdict.doubtful:
                self._admitter.doubt(number)
            refused = self.lane.refused(bisect=verdict.bisect)
        for item in refused:
            self._fail(item, gone or verdict.error)
        for call in calls:
            call.left = call.answer.done()
        if gone is not None:
            self.lost(gone)

    async def _collect(
        self, batch: Batch, sent: _Sent, verdict: Admitted, page: Page | None
    ) -> None:
        calls, code = sent.calls, "internal_error"
        batch_id = f"{self.model_id}#{batch.seq_id}"
        # What comes back is of the size of what was sent: a number for each token, or two.
        large = sum(item.size_bytes for item in batch.items) >= LARGE_BYTES
        waiters = Waiters([call.timeline for call in calls], sent.behalf, large)
        try:
            response = await self.result(batch.seq_id, verdict, accept_of(calls[0]), waiters)
            counts = [item.datums for item in batch.items]
            works = [call.work for call in calls]
            answers = await self._tools.aside.do(
                partial(read, response, works, counts, batch_id=batch_id),
                large=len(response.body) >= LARGE_ANSWER_BYTES,
            )
            told = [partial(self.answer, *each) for each in zip(calls, answers, strict=True)]
            at_a_time = max(1, len(told) * TURN_BYTES // max(1, len(response.body)))
            code = "ok"
            await spread(told, at_a_time=at_a_time)
        except ProxyError as error:
            code = error.code
            for call in calls:
                self._fail(call.item, error)
        finally:
            self.settle(batch.seq_id, page)
            self._tell_end(sent, code)
            for call in calls:
                if call.item.id in self._calls:
                    self._fail(call.item, UpstreamFault("The proxy failed to read this answer."))

    async def result(
        self,
        seq_id: int,
        verdict: Admitted,
        accept: str,
        waiters: Waiters,
    ) -> Response:
        """Wait for the result of a request that was admitted; `Ground.result` for an earlier run's.

        Args:
            seq_id: its number.
            verdict: how it was admitted.
            accept: media type wanted.
            waiters: the calls whose parts it holds.
        """
        if verdict.request_id is None:
            return verdict.response
        try:
            return await self._tools.poller.result(
                verdict.request_id,
                accept=accept,
                on_state=partial(self._states.__setitem__, seq_id),
                waiters=waiters,
            )
        except OutcomeUnknown as unknown:
            # A request that had not run is forgotten with its model.
            if unknown.forgotten and not await self._tools.knows(self.model_id):
                gone = gone_for(self.model_id, unknown)
                self.lost(gone)
                raise gone from None
            raise

    def settle(self, seq_id: int, page: Page | None) -> None:
        """Nothing is awaited for a request any more."""
        self._states.pop(seq_id, None)
        self.lane.settled()
        self._pages.end(page)

    def answer(self, call: Call, answer: Answered | None) -> None:
        """Answer a call."""
        self._calls.pop(call.item.id, None)
        call.timeline.end(self._tools.clock.now())
        if answer is not None and not call.answer.done():
            call.answer.set_result(answer)

    def fail(self, call: Call, error: ProxyError) -> None:
        """Fail a call."""
        self._fail(call.item, error)

    def lost(self, error: ProxyError) -> None:
        """The upstream has lost the model."""
        self._on_gone(error.detail)

    def _fail(self, item: Item, error: ProxyError) -> None:
        call = self._calls.pop(item.id, None)
        if call is not None:
            call.timeline.end(self._tools.clock.now())
        for waiting in () if call is None else (call.answer, call.admitted):
            if waiting is not None and not waiting.done():
                waiting.set_exception(copy.copy(error))  # each caller's own, to add to
                waiting.exception()  # seen: a caller that has left retrieves nothing


def _path_of(call: Call) -> str:
    return call.work.path if isinstance(call.work, Order) else "/api/v1/forward_backward"


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

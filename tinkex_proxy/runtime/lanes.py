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
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tinkex_proxy.core.coalesce import FlushReason, Item, Limits
from tinkex_proxy.core.lane import Batch, Lane
from tinkex_proxy.errors import (
    JournalUnavailable,
    ModelGone,
    OutcomeUnknown,
    ProxyError,
    UpstreamFault,
)
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import BatchLeft, Hub, Note
from tinkex_proxy.runtime.flights import Flight, FlightRefused, Flights, ask_of
from tinkex_proxy.runtime.futures import Poller, QueueState
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.lane_pages import LanePages
from tinkex_proxy.runtime.pace import Leave
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.recognition import Recognition
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter, admission
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.runtime.work import (
    Answered,
    Call,
    Order,
    Origin,
    Timeline,
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
# How far a journal may be behind its lane: one that could not be written, or lost its last moments
# with the machine's power. Each number costs a refusal.
MAX_BEHIND: Final = 100
# A 409 to one of these is about its number. To others it may be about a checkpoint's name.
_NUMBERED: Final = frozenset({"/api/v1/forward_backward", "/api/v1/forward", "/api/v1/optim_step"})


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
    """

    submitter: Submitter
    poller: Poller
    knows: Callable[[str], Awaitable[bool]]
    tasks: Tasks
    clock: Clock
    hub: Hub
    book: Book = field(default_factory=Book)
    recognition: Recognition = field(default_factory=Recognition)


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
        self.flights = Flights()
        self._pages = LanePages(tools.book, model_id)
        self._tools = tools
        self._on_gone = on_gone
        self._calls: dict[int, Call] = {}
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._wire_free_at = self.used_at = tools.clock.now()
        self._doubtful: set[int] = set()
        self._may_be_behind = 0

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
        now = self._tools.clock.now()
        call = Call(work, item, now, loop.create_future(), origin, part, admitted)
        self._calls[item.id] = call
        flight = self.flights.board(call)
        if flight is not None:
            call.left = True
            name = f"boarded {self.model_id}#{flight.record.seq_id}"
            self._tools.tasks.spawn(name, self._alight(call, flight))
        return call

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Put calls behind all other work of the lane, in this order and with nothing between.

        Those that have boarded a flight have left.
        """
        now = self.used_at = self._tools.clock.now()
        for call in calls:
            if not call.left:
                self.lane.add(call.item, now)
        self._awaken()

    def resume(self, pages: Sequence[Page], *, keep_s: float) -> None:
        """Go on from an earlier run.

        Args:
            pages: the requests that were under way then, by number.
            keep_s: how long their callers may take to come again.
        """
        flights = [Flight(page) for page in pages]
        owed = sum(1 for flight in flights if flight.admitted.done())
        self.lane.resume(owed=owed, on_wire=owed < len(flights))
        self._may_be_behind = MAX_BEHIND
        self._doubtful.add(self.lane.next_seq)
        for flight in flights:
            self.flights.add(flight)
            self._pages.resume(flight.page)
            name = f"flight {self.model_id}#{flight.record.seq_id}"
            self._tools.tasks.spawn(name, self._land(flight))
        if flights:
            self.later(keep_s, self._forget_flights)

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
        self._pages.close()
        self.lane.close()
        for call in [call for call in self._calls.values() if not call.left]:
            self._fail(call.item, error)

    def set_limits(self, limits: Limits) -> None:
        """Let batches leave by other limits, the open one too."""
        self.lane.set_limits(limits)
        self._wake.set()

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
                ask_at = self.lane.ask_at(now)
                if ask_at is None:
                    return
                if ask_at > now:
                    await self._pause(ask_at - now)
                    continue
                # Leave first: while it is waited for, calls may still join, and be taken back.
                async with self._tools.submitter.leave(("lane", self.model_id)) as leave:
                    now = clock.now()
                    if (batch := self.lane.poll(now)) is not None:
                        await self._submit(batch, now, leave)
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

    async def _submit(self, batch: Batch, now: float, leave: Leave) -> None:
        calls = [self._calls[item.id] for item in batch.items]
        self._mark_left(batch, calls, now)
        page: Page | None = None
        try:
            ask = encode(
                self.model_id,
                batch,
                calls,
                repeatable=self._tools.recognition.known(self.flavour) is True,
                identity=uuid.uuid4().hex,
                leave=leave,
            )
            accept = accept_of(calls[0])
            page = await self._pages.write(batch.seq_id, calls, ask, accept=accept)
            verdict = await self._admit(ask)
            gone = isinstance(verdict, Refused) and await self._is_gone(verdict)
        except JournalUnavailable as error:
            verdict, gone = Refused(error), False
        except Exception as bug:  # noqa: BLE001 - whatever it is, no caller may wait for ever
            self._tools.hub.tell(Note("error", f"submitting for {self.model_id} failed", bug))
            self._pages.tear(page)
            for item in self.lane.refused(bisect=False):
                self._fail(item, UpstreamFault("The proxy failed to submit this request."))
            return
        self._wire_free_at = self._tools.clock.now()
        for call in calls:
            call.timeline.upload_s = self._wire_free_at - now
        if isinstance(verdict, Refused):
            self._pages.tear(page)
            self._on_refused(batch, calls, verdict, gone=gone)
            return
        self._on_admitted(page, verdict)
        for call in calls:
            if call.admitted is not None and not call.admitted.done():
                call.admitted.set_result(verdict.response)
        name = f"result {self.model_id}#{batch.seq_id}"
        self._tools.tasks.spawn(name, self._collect(batch, calls, verdict, page))

    async def _admit(self, ask: Ask) -> Admitted | Refused:
        """Get a request admitted; one that may have run goes again only where that is safe."""
        verdict = await self._tools.submitter.submit(ask)
        if isinstance(verdict, Admitted) or not verdict.doubtful or ask.repeatable:
            return verdict
        if not await self._is_recognised(ask):
            return verdict
        return await self._tools.submitter.resubmit(ask, verdict)

    async def _is_recognised(self, ask: Ask) -> bool:
        """Whether the upstream would know a repetition of this request again."""
        recognition, number = self._tools.recognition, self.lane.ahead
        known = recognition.known(self.flavour)
        if known is None:
            submitter = self._tools.submitter
            known, used = await recognition.ask(
                submitter, self.model_id, number, persistent=ask.persistent
            )
            if used:
                self.lane.use(number)
            elif used is None:
                self._doubtful.add(number)
        return known is True

    def _on_admitted(self, page: Page | None, verdict: Admitted) -> None:
        self._doubtful.discard(self.lane.next_seq)
        self.lane.admitted()
        self._may_be_behind = 0
        self._pages.admitted(page, verdict.response, next_seq=self.lane.next_seq)

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
        if verdict.status == 409 and batch.seq_id in self._doubtful:
            self._doubtful.discard(batch.seq_id)
            self.lane.outnumbered()
            self._catch_up(calls)
            refused: Sequence[Item] = ()
        else:
            if verdict.doubtful:
                self._doubtful.add(batch.seq_id)
            refused = self.lane.refused(bisect=verdict.bisect)
        error = _gone(self.model_id, verdict.error) if gone else verdict.error
        for item in refused:
            self._fail(item, error)
        for call in calls:
            call.left = call.answer.done()
        if gone:
            self._on_gone(error.detail)

    def _catch_up(self, calls: Sequence[Call]) -> None:
        """After a restart the next number may be used too, if the journal was behind."""
        work = calls[0].work
        if self._may_be_behind and (not isinstance(work, Order) or work.path in _NUMBERED):
            self._may_be_behind -= 1
            self._doubtful.add(self.lane.next_seq)

    async def _collect(
        self, batch: Batch, calls: Sequence[Call], verdict: Admitted, page: Page | None
    ) -> None:
        batch_id = f"{self.model_id}#{batch.seq_id}"
        timelines = [call.timeline for call in calls]
        try:
            response = await self._result(batch.seq_id, verdict, accept_of(calls[0]), timelines)
            counts = [item.datums for item in batch.items]
            answers = read(response, [call.work for call in calls], counts, batch_id=batch_id)
            for call, answer in zip(calls, answers, strict=True):
                self._answer(call, answer)
        except ProxyError as error:
            for call in calls:
                self._fail(call.item, error)
        finally:
            self._settle(batch.seq_id, page)
            for call in calls:
                self._fail(call.item, UpstreamFault("The proxy failed to read this answer."))

    async def _result(
        self, seq_id: int, verdict: Admitted, accept: str, timelines: Sequence[Timeline]
    ) -> Response:
        if verdict.request_id is None:
            return verdict.response
        clock = self._tools.clock
        began = queued_until = clock.now()

        def on_state(state: QueueState) -> None:
            nonlocal queued_until
            self._states[seq_id] = state
            if state.state != "active":
                queued_until = clock.now()

        try:
            response = await self._tools.poller.result(
                verdict.request_id, accept=accept, on_state=on_state
            )
        except OutcomeUnknown as unknown:
            # A request that had not run is forgotten with its model.
            if unknown.forgotten and not await self._tools.knows(self.model_id):
                gone = _gone(self.model_id, unknown)
                self._on_gone(gone.detail)
                raise gone from None
            raise
        for timeline in timelines:
            timeline.upstream_queue_s = queued_until - began
            timeline.compute_s = clock.now() - queued_until
        return response

    def _settle(self, seq_id: int, page: Page | None) -> None:
        """Nothing is awaited for a request any more."""
        self._states.pop(seq_id, None)
        self.lane.settled()
        self._pages.end(page)

    async def _land(self, flight: Flight) -> None:
        """Find out what a request of an earlier run has come to."""
        record = flight.record
        try:
            if flight.admitted.done() or await self._resend(flight):
                verdict = admission(flight.admitted.result())
                response = await self._result(record.seq_id, verdict, record.accept, ())
                flight.landed.set_result(response)
        except ProxyError as error:
            flight.fail(error)
        finally:
            flight.fail(UpstreamFault("The proxy failed to take up this request again."))
            if flight.admitted.exception() is None:
                self._settle(record.seq_id, flight.page)

    def _forget_flights(self) -> None:
        """Nobody will come any more for what has not been boarded."""
        for call_id, page in self.flights.forget():
            self._tools.book.journal.note(*page.release(call_id))

    async def _resend(self, flight: Flight) -> bool:
        """Send a request of an earlier run again; whether the upstream has it."""
        verdict = await self._admit(ask_of(flight.record))
        gone = isinstance(verdict, Refused) and await self._is_gone(verdict)
        if isinstance(verdict, Admitted):
            flight.admitted.set_result(verdict.response)
            self._on_admitted(flight.page, verdict)
            self._awaken()
            return True
        self.lane.refused(bisect=False)
        self._doubtful.add(flight.record.seq_id)
        self._pages.tear(flight.page)
        if gone or verdict.doubtful:
            flight.fail(_gone(self.model_id, verdict.error) if gone else verdict.error)
        else:
            self.flights.drop(flight)  # else it stays: who comes later must not run it again
            boarded = [call for _, call in sorted(flight.boarded.items())]
            flight.fail(FlightRefused())
            for call in boarded:
                call.left = False
            self.lane.put_first([call.item for call in boarded], self._tools.clock.now())
        if gone:
            self._on_gone(_gone(self.model_id, verdict.error).detail)
        self._awaken()
        return False

    async def _alight(self, call: Call, flight: Flight) -> None:
        """Answer a call from the flight that carried it."""
        record = flight.record
        place = next(place for place, boarded in flight.boarded.items() if boarded is call)
        works = [call.work if at == place else None for at in range(len(record.members))]
        try:
            response = await asyncio.shield(flight.admitted)
            if call.admitted is not None and not call.admitted.done():
                call.admitted.set_result(response)
            response = await asyncio.shield(flight.landed)
            batch_id = f"{self.model_id}#{record.seq_id}"
            self._answer(call, read(response, works, flight.counts, batch_id=batch_id)[place])
        except FlightRefused:
            return  # it is on the lane now
        except ProxyError as error:
            self._fail(call.item, error)

    def _answer(self, call: Call, answer: Answered | None) -> None:
        self._calls.pop(call.item.id, None)
        if answer is not None and not call.answer.done():
            call.answer.set_result(answer)

    def _fail(self, item: Item, error: ProxyError) -> None:
        call = self._calls.pop(item.id, None)
        for waiting in () if call is None else (call.answer, call.admitted):
            if waiting is not None and not waiting.done():
                waiting.set_exception(copy.copy(error))  # each caller's own, to add to
                waiting.exception()  # seen: a caller that has left retrieves nothing


def _gone(model_id: str, said: ProxyError) -> ProxyError:
    error = ModelGone(f"The upstream no longer knows the model {model_id} ({said}).")
    error.upstream_said = said.upstream_said
    return error


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

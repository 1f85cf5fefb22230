"""Bringing an earlier run's requests to their end: flights land, and who has boarded gets out.

What a flight is, and what becomes of its passengers, is told in `flights.py`; the lane it belongs
to is `Ground`.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from tinkex_proxy.core.lane import Lane
from tinkex_proxy.core.timeline import Part
from tinkex_proxy.errors import OutcomeUnknown, ProxyError, UpstreamFault
from tinkex_proxy.runtime.admit import Admitter
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.flights import Flight, FlightRefused, Flights, ask_of
from tinkex_proxy.runtime.futures import Waiters
from tinkex_proxy.runtime.lane_pages import LanePages
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.submit import Admitted, admission
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.work import Answered, Call, read
from tinkex_proxy.wire.datum import Flavour

__all__ = ["Ground", "Landing"]


class Ground(Protocol):
    """The lane, as its flights need it."""

    model_id: str
    flavour: Flavour

    async def result(
        self,
        seq_id: int,
        verdict: Admitted,
        accept: str,
        waiters: Waiters,
    ) -> Response:
        """Wait for the result of a request that was admitted."""
        ...

    def settle(self, seq_id: int, page: Page | None) -> None:
        """Nothing is awaited for a request any more."""
        ...

    def answer(self, call: Call, answer: Answered | None) -> None:
        """Answer a call."""
        ...

    def fail(self, call: Call, error: ProxyError) -> None:
        """Fail a call."""
        ...

    def lost(self, error: ProxyError) -> None:
        """The upstream has lost the model."""
        ...

    def awaken(self) -> None:
        """There may be something to send."""
        ...


class Landing:
    """All flights of one lane, on their way.

    Args:
        ground: the lane at work.
        lane: its order and numbers.
        pages: its part of the journal.
        admitter: gets requests admitted.
        tasks: runs what waits.
        clock: ends the waiting for who does not come.

    Attributes:
        flights: by the parts that they carried.
    """

    def __init__(
        self,
        ground: Ground,
        lane: Lane,
        pages: LanePages,
        admitter: Admitter,
        tasks: Tasks,
        clock: Clock,
    ) -> None:
        self.flights = Flights()
        self._ground = ground
        self._lane = lane
        self._pages = pages
        self._admitter = admitter
        self._tasks = tasks
        self._clock = clock

    def resume(self, pages: Sequence[Page], *, keep_s: float) -> None:
        """Take up an earlier run's requests, by number; their callers may take `keep_s` to come."""
        flights = [Flight(page) for page in pages]
        doubted = [flight for flight in flights if flight.record.doubted]
        under_way = [flight for flight in flights if not flight.record.doubted]
        owed = sum(1 for flight in under_way if flight.admitted.done())
        self._lane.resume(owed=owed, on_wire=owed < len(under_way))
        self._admitter.resume()
        for flight in flights:
            self.flights.add(flight)
            self._pages.resume(flight.page)
        for flight in doubted:
            error = f"An earlier run sent {flight.record.path} and had no answer; it may have run."
            flight.fail(OutcomeUnknown(error))
            self._admitter.doubt(flight.record.seq_id)
            self._pages.end(flight.page)
        for flight in under_way:
            name = f"flight {self._ground.model_id}#{flight.record.seq_id}"
            self._tasks.spawn(name, self._land(flight))
        if flights:
            self._clock.call_later(keep_s, self._forget)

    def board(self, call: Call) -> bool:
        """Let a call board the flight that carries it; whether there is one."""
        flight = self.flights.board(call)
        if flight is None:
            return False
        call.left = True
        name = f"boarded {self._ground.model_id}#{flight.record.seq_id}"
        self._tasks.spawn(name, self._alight(call, flight))
        return True

    async def _land(self, flight: Flight) -> None:
        """Find out what a request has come to."""
        record = flight.record
        try:
            if flight.admitted.done() or await self._resend(flight):
                verdict = admission(flight.admitted.result())
                accept, nobody = record.accept, Waiters()  # who boards counts for itself
                response = await self._ground.result(record.seq_id, verdict, accept, nobody)
                flight.landed.set_result(response)
        except ProxyError as error:
            flight.fail(error)
        finally:
            flight.fail(UpstreamFault("The proxy failed to take up this request again."))
            if flight.admitted.exception() is None:
                self._ground.settle(record.seq_id, flight.page)

    async def _resend(self, flight: Flight) -> bool:
        """Send a request again; whether the upstream has it."""
        verdict = await self._admitter.admit(ask_of(flight.record), self._ground.flavour)
        gone = await self._admitter.gone(verdict)
        if isinstance(verdict, Admitted):
            flight.admitted.set_result(verdict.response)
            self._admitter.admitted()
            next_seq = self._lane.next_seq
            self._pages.admitted(flight.page, verdict.response, next_seq=next_seq)
            self._ground.awaken()
            return True
        self._lane.refused(bisect=False)
        self._admitter.doubt(flight.record.seq_id)
        if gone is not None:
            self._pages.tear(flight.page)
            flight.fail(gone)
            self._ground.lost(gone)
        elif verdict.doubtful:
            self._pages.doubt(flight.page)
            flight.fail(verdict.error)  # who comes later must not run it again
        else:
            self._pages.tear(flight.page)
            self._turn_back(flight)
        self._ground.awaken()
        return False

    def _turn_back(self, flight: Flight) -> None:
        """The upstream would not have it: who has boarded goes by the lane, before all others."""
        self.flights.drop(flight)
        boarded = [call for _, call in sorted(flight.boarded.items())]
        flight.fail(FlightRefused())
        for call in boarded:
            call.left = False
        self._lane.put_first([call.item for call in boarded], self._clock.now())

    def _forget(self) -> None:
        """Nobody will come any more for what has not been boarded."""
        for call_id, page in self.flights.forget():
            self._pages.release(page, call_id)

    async def _alight(self, call: Call, flight: Flight) -> None:
        """Answer a call from the flight that carried it."""
        record, ground = flight.record, self._ground
        place = next(place for place, boarded in flight.boarded.items() if boarded is call)
        works = [call.work if at == place else None for at in range(len(record.members))]
        timeline, now = call.timeline, self._clock.now
        try:
            timeline.enter(Part.UPLOAD, now())
            response = await asyncio.shield(flight.admitted)
            timeline.enter(Part.COMPUTE, now())
            if call.admitted is not None and not call.admitted.done():
                call.admitted.set_result(response)
            response = await asyncio.shield(flight.landed)
            timeline.enter(Part.PROXY, now())
            batch_id = f"{ground.model_id}#{record.seq_id}"
            answers = read(response, works, flight.counts, batch_id=batch_id)
            ground.answer(call, answers[place])
        except FlightRefused:
            timeline.enter(Part.QUEUE, now())  # it is on the lane now
        except ProxyError as error:
            ground.fail(call, error)

"""Requests of an earlier run of the proxy whose end it did not see.

A **flight** was in the journal when the earlier run ended. If it had been admitted, its result is
polled for. If not, nobody knows whether the upstream has it, so the same bytes go again under the
same number, which the upstream recognises; where it does not, the outcome is unknown, and said so.

The calls whose parts it carried come back by themselves (they were promised) or with their callers,
under the same `Idempotency-Key`. Each is done again from the start; where it comes to a part that
is in a flight, it **boards** it: nothing is put on the lane, and the flight's result is its answer.
A flight that the upstream refused has carried nothing: those who have boarded it go on the lane, in
front of all others, and whoever comes later goes on the lane like any call.
"""

import asyncio
from collections.abc import Mapping

from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import ProxyError
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import BatchRecord
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.runtime.work import Call

__all__ = ["Flight", "FlightRefused", "Flights", "ask_of", "response_of"]


class FlightRefused(Exception):  # noqa: N818 - an event, not an error
    """The upstream would not have a flight; who has boarded it goes by the lane."""


class Flight:
    """One request of an earlier run.

    Args:
        page: its page in the journal.

    Attributes:
        boarded: the calls that have come for their parts, by their place in it.
        admitted: the upstream's answer to its submit.
        landed: its result, or the error that it came to.
    """

    def __init__(self, page: Page) -> None:
        loop = asyncio.get_running_loop()
        self.page = page
        self.boarded: dict[int, Call] = {}
        self.admitted: asyncio.Future[Response] = loop.create_future()
        self.landed: asyncio.Future[Response] = loop.create_future()
        promise = page.record.promise
        if promise is not None:
            self.admitted.set_result(response_of(promise.content_type, promise.body))

    @property
    def record(self) -> BatchRecord:
        """What it carried, and how it was sent."""
        return self.page.record

    @property
    def counts(self) -> list[int]:
        """Datums of each part."""
        return [member.datums for member in self.record.members]

    def fail(self, error: ProxyError | FlightRefused) -> None:
        """It came to an error, for all who have boarded and will."""
        for future in (self.admitted, self.landed):
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: perhaps nobody comes


class Flights:
    """All flights of one lane, by the parts that they carried."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], tuple[Flight, int]] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, flight: Flight) -> None:
        """Expect those whose parts it carried."""
        for place, member in enumerate(flight.record.members):
            if member.call_id is not None:
                self._parts[member.call_id, member.part] = (flight, place)

    def drop(self, flight: Flight) -> None:
        """Expect nobody for it any more."""
        self._parts = {at: (f, n) for at, (f, n) in self._parts.items() if f is not flight}

    def forget(self) -> list[tuple[str, Page]]:
        """Expect nobody any more; gives whom it expected, and the pages kept for them."""
        forgotten = [(call_id, flight.page) for (call_id, _), (flight, _) in self._parts.items()]
        self._parts.clear()
        return forgotten

    def carries(self, call_id: str) -> bool:
        """Whether a part of a call is in any."""
        return bool(self._parts) and any(owner == call_id for owner, _ in self._parts)

    def sizes(self, call_id: str, prefix: str) -> list[int]:
        """Datums of the parts `prefix.0`, `prefix.1` … of a call, as far as they are in flights."""
        sizes: list[int] = []
        if not self._parts:  # as always but after a restart
            return sizes
        while (found := self._parts.get((call_id, f"{prefix}.{len(sizes)}"))) is not None:
            flight, place = found
            sizes.append(flight.record.members[place].datums)
        return sizes

    def board(self, call: Call) -> Flight | None:
        """Let a call board the flight that carries it, if there is one."""
        if call.origin is None:
            return None
        flight, place = self._parts.pop((call.origin.id, call.part), (None, 0))
        if flight is not None:
            flight.boarded[place] = call
            call.origin.pages.append(flight.page)
        return flight


def ask_of(record: BatchRecord) -> Ask:
    """The request that goes again, byte for byte."""
    return Ask(
        operation=Operation.SUBMIT,
        path=record.path,
        body=record.body,
        content_type=record.content_type,
        identity=record.identity,
        repeatable=record.repeatable,
        persistent=True,
        doubtful=True,
    )


def response_of(content_type: str, body: bytes) -> Response:
    """An answer as it was, as far as it was kept."""
    headers: Mapping[str, str] = {"content-type": content_type}
    return Response(200, headers, body)

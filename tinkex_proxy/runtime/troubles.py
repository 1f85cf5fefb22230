"""What went wrong lately, for people: like things in one row, with how often and since when."""

import itertools
from collections import deque
from dataclasses import dataclass
from typing import Final

from tinkex_proxy.core.outcome import Operation, Outcome
from tinkex_proxy.runtime.events import (
    FINE,
    CallEnded,
    CallTimed,
    Event,
    Exchange,
    JournalFailed,
    JournalMended,
    ModelsLost,
    Note,
    Shed,
)

__all__ = ["Trouble", "Troubles", "failed_unseen", "of_lane"]

KEPT: Final = 60
# The same thing after so much quiet is another occasion.
QUIET_S: Final = 60.0
_LOUD: Final = frozenset({"warning", "error"})
_LONGEST: Final = 300
# An SDK's requests by kind. Its calls on lanes have names of their own, and end without a request.
_REQUESTS: Final = frozenset(f"sdk_{operation.value}" for operation in Operation)


@dataclass(slots=True)
class Trouble:
    """One kind of thing that went wrong, on one occasion.

    Attributes:
        id: names the row, so that a reader can replace it.
        kind: `call`, `upstream` or `proxy`.
        what: the operation, or whatever it was about.
        said: the code of a problem, a status, a reason.
        first_at: when it began, by the time of day.
        last_at: when it happened last.
        slot: the slot of that.
        count: how often.
    """

    id: int
    kind: str
    what: str
    said: str
    first_at: float
    last_at: float
    slot: int
    count: int = 1


class Troubles:
    """The last things that went wrong.

    Attributes:
        journal_failing: whether the journal cannot be written now.
    """

    def __init__(self) -> None:
        self._rows: deque[Trouble] = deque(maxlen=KEPT)
        self._ids = itertools.count(1)
        self.journal_failing = False

    def take(self, event: Event, slot: int, at: float) -> None:
        """Take one record."""
        row = _row_of(event)
        if isinstance(event, JournalFailed | JournalMended):
            self.journal_failing = isinstance(event, JournalFailed)
        if row is None:
            return
        for known in self._rows:
            same = (known.kind, known.what, known.said) == row
            if same and at - known.last_at < QUIET_S:
                known.count, known.last_at, known.slot = known.count + 1, at, slot
                return
        self._rows.append(Trouble(next(self._ids), *row, at, at, slot))

    def rows(self, after: int = 0) -> list[Trouble]:
        """What has happened (again) from a slot on, the latest first."""
        found = [row for row in self._rows if row.slot >= after]
        return sorted(found, key=lambda row: -row.last_at)


def failed_unseen(timed: CallTimed) -> bool:
    """Whether this is all that is told of a failure.

    A request that fails is told of as such too; an SDK's call on a lane fails when its request has
    long been answered.
    """
    return of_lane(timed) and timed.code not in FINE


def of_lane(timed: CallTimed) -> bool:
    """Whether it is what an SDK's call on a lane came to, which no request says."""
    return timed.operation.startswith("sdk_") and timed.operation not in _REQUESTS


_Row = tuple[str, str, str]


def _row_of(event: Event) -> _Row | None:
    """Kind, what and said of what went wrong; None where nothing did."""
    match event:
        case CallEnded() if event.code not in FINE:
            return "call", event.operation, event.code
        case CallTimed() if failed_unseen(event):
            return "call", event.operation, event.code
        case Exchange() if event.outcome in {Outcome.FAILURE, Outcome.THROTTLED}:
            said = "no answer" if event.status is None else str(event.status)
            return "upstream", event.operation, said
        case ModelsLost() if event.models:
            return "upstream", f"session of {event.models} models", event.reason[:_LONGEST]
        case _:
            return _of_proxy(event)


def _of_proxy(event: Event) -> _Row | None:
    match event:
        case Shed():
            return "proxy", "admission", f"no room for more ({event.reason})"
        case JournalFailed():
            return "proxy", "journal", f"the journal cannot be written: {event.reason[:_LONGEST]}"
        case Note() if event.level in _LOUD:
            return "proxy", event.level, event.message[:_LONGEST]
        case _:
            return None

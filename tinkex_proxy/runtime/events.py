"""What happened, as frozen records, and who listens.

Metrics and logs hang on this one seam: the code that acts says what it did and knows neither. A
listener that raises is reported once by the hub and can break nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome

__all__ = [
    "BatchLeft",
    "BreakerDropped",
    "CallEnded",
    "Event",
    "Exchange",
    "Hub",
    "JournalFailed",
    "JournalMended",
    "JournalWritten",
    "Listener",
    "ModelsLost",
    "Note",
    "Repeated",
    "Shed",
    "Transition",
]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to the upstream ended. `status` is None when no answer came."""

    operation: str
    status: int | None
    outcome: Outcome
    duration_s: float


@dataclass(frozen=True, slots=True)
class BatchLeft:
    """A batch went onto the wire."""

    model_id: str
    seq_id: int
    reason: str
    requests: int
    datums: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class Transition:
    """A circuit breaker moved."""

    breaker: str
    before: State
    after: State
    cause: str


@dataclass(frozen=True, slots=True)
class BreakerDropped:
    """A circuit breaker is no more: its key gave way to another."""

    breaker: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A caller's call ended; `code` is `ok` or the code of its problem."""

    operation: str
    code: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class ModelsLost:
    """An upstream session ended, and its models with it."""

    session_id: str
    models: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shed:
    """A call was turned away before anything was done about it; `reason` is the bound."""

    reason: str


@dataclass(frozen=True, slots=True)
class JournalWritten:
    """A group of records was written."""

    records: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """The journal cannot be written; what happens from here on may not be known after a crash."""

    reason: str


@dataclass(frozen=True, slots=True)
class JournalMended:
    """The journal has been written again, with all that was missing."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """A request goes again, or (`sent` False) would have if there were budget for it."""

    operation: str
    reason: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth one log line that no metric counts; `error` adds its stack trace."""

    level: str
    message: str
    error: BaseException | None = None


Event = (
    Exchange
    | BatchLeft
    | Transition
    | BreakerDropped
    | CallEnded
    | ModelsLost
    | Repeated
    | Shed
    | JournalWritten
    | JournalFailed
    | JournalMended
    | Note
)


class Listener(Protocol):
    """Who wants to know."""

    def on_event(self, event: Event) -> None:
        """Take one record; must be quick."""
        ...


class Hub:
    """Tells every listener.

    Args:
        listeners: who is told, in this order.
        on_broken: told the exception of a listener that raised.
    """

    def __init__(
        self, listeners: Iterable[Listener], on_broken: Callable[[Exception], None]
    ) -> None:
        self._listeners = tuple(listeners)
        self._on_broken = on_broken

    def tell(self, event: Event) -> None:
        """Tell every listener, whatever the others do."""
        for listener in self._listeners:
            try:
                listener.on_event(event)
            except Exception as error:  # noqa: BLE001 - whatever a listener does must not reach a call
                self._on_broken(error)

"""The law of a circuit breaker: its states, what may follow what, and what keeps them.

Law (closed means that traffic flows)::

    CLOSED --tripped--> OPEN --cooled--> HALF_OPEN --probes passed--> CLOSED
                          ^------------a probe failed---'
    any --forced--> FORCED_OPEN --its time is over--> HALF_OPEN
    any --forced--> DISABLED ----its time is over--> CLOSED
    any --reset, held closed--> CLOSED (to DISABLED, where the settings switch the breaker off)
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["TRANSITIONS", "Circuit", "Force", "Move", "State", "Verdict"]


class State(enum.Enum):
    """Named after the electrical circuit: CLOSED lets traffic through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.CLOSED: frozenset({State.OPEN, State.FORCED_OPEN, State.DISABLED}),
    State.OPEN: frozenset({State.HALF_OPEN, State.CLOSED, State.FORCED_OPEN, State.DISABLED}),
    State.HALF_OPEN: frozenset({State.CLOSED, State.OPEN, State.FORCED_OPEN, State.DISABLED}),
    State.FORCED_OPEN: frozenset({State.HALF_OPEN, State.CLOSED, State.DISABLED}),
    State.DISABLED: frozenset({State.CLOSED, State.FORCED_OPEN}),
}


class Force(enum.Enum):
    """What an operator may make of a breaker, whatever its upstream does."""

    OPEN = "open"
    CLOSE = "close"
    DISABLE = "disable"


class Circuit(Protocol):
    """What keeps the state and the counter of consecutive failures (aiobreaker, in production)."""

    @property
    def state(self) -> State:
        """The state as stored; it does not know of time."""
        ...

    @property
    def failures(self) -> int:
        """Consecutive failures counted so far."""
        ...

    def record(self, *, ok: bool, threshold: int) -> None:
        """Count one outcome; may move the state: `threshold` failures in a row open it."""
        ...

    def open(self) -> None:
        """Move to OPEN."""
        ...

    def half_open(self) -> None:
        """Move from OPEN to HALF_OPEN."""
        ...

    def close(self) -> None:
        """Move to CLOSED and forget the failures."""
        ...


@dataclass(frozen=True, slots=True)
class Move:
    """The circuit moved, and why."""

    before: State
    after: State
    cause: str


class Verdict(enum.Enum):
    """What became of an outcome."""

    COUNTED = "counted"
    NEUTRAL = "says nothing about the upstream"
    DISABLED = "the breaker is disabled"
    LATE = "its call began before the breaker last moved"
    LOST = "its probe had lost its place: it was silent for too long"

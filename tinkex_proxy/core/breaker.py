"""The gate in front of a circuit: who may send, and which outcomes count.

`aiobreaker` keeps the circuit's state and its failure counter, but it admits every caller while
half-open, measures time on the wall clock, counts results that began before the last trip, and
learns nothing from a cancelled call. So the guarded call runs outside it and only its outcome is
replayed into it. This gate decides what is replayed:

* a **permit** is taken before sending and carries the **generation** of the circuit; an outcome
  whose generation has passed changes nothing (a late failure does not extend the window, a late
  success does not close it);
* while half-open at most `max_probes` permits are out, each for a **lease**: a probe that never
  reports gives its place up when its lease ends;
* a neutral outcome gives the permit back and says nothing.

The gate reads no clock: `now` is passed in, in seconds of a monotonic clock. The state is right
without traffic: `state(now)` says half-open once the window has passed.

Law (closed means that traffic flows)::

    CLOSED --tripped--> OPEN --cooled--> HALF_OPEN --probe passed--> CLOSED
                          ^------------probe failed----'
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["TRANSITIONS", "Circuit", "Gate", "GateSettings", "Permit", "Refusal", "State"]


# While probes are out, who is refused comes again soon: probes are short, and a lease is only the
# bound for one that is lost.
PROBE_ANSWERS_IN_S: Final = 1.0


class State(enum.Enum):
    """Named after the electrical circuit: CLOSED lets traffic through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.CLOSED: frozenset({State.OPEN}),
    State.OPEN: frozenset({State.HALF_OPEN}),
    State.HALF_OPEN: frozenset({State.CLOSED, State.OPEN}),
}


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

    def record(self, *, ok: bool) -> None:
        """Count one outcome; may move the state."""
        ...

    def half_open(self) -> None:
        """Move from OPEN to HALF_OPEN."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """How long to stay open and how to probe.

    Attributes:
        open_for_s: time from a trip to the first probe.
        max_probes: probes that may be out at once while half-open.
        probe_lease_s: time after which a silent probe loses its place. Longer than any timeout of
            the guarded calls, so that only a lost probe ever loses it.
    """

    open_for_s: float = 30.0
    max_probes: int = 1
    probe_lease_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one request, good for one generation."""

    number: int
    generation: int
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """No leave to send.

    Attributes:
        retry_after_s: seconds until asking again makes sense.
    """

    retry_after_s: float


class Gate:
    """One circuit's gate."""

    def __init__(self, circuit: Circuit, settings: GateSettings) -> None:
        self._circuit = circuit
        self._settings = settings
        self._generation = 0
        self._opened_at: float | None = None
        self._permits = 0
        self._leases: dict[int, float] = {}
        self.stale = 0
        self.transitions = 0

    @property
    def generation(self) -> int:
        """Grows with every change of state."""
        return self._generation

    @property
    def opened_at(self) -> float | None:
        """Moment of the last trip while not closed, else None."""
        return self._opened_at

    def probes(self, now: float) -> int:
        """Probes that are out and whose lease has not ended."""
        return sum(1 for ends in self._leases.values() if ends > now)

    def state(self, now: float) -> State:
        """The state as of `now`: an elapsed window reads HALF_OPEN, traffic or not."""
        if self._circuit.state is State.OPEN and self.retry_after_s(now) <= 0:
            return State.HALF_OPEN
        return self._circuit.state

    def retry_after_s(self, now: float) -> float:
        """Seconds until a probe may go; 0 when one may go now or the circuit is closed."""
        if self._circuit.state is not State.OPEN or self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._settings.open_for_s - now)

    def acquire(self, now: float) -> Permit | Refusal:
        """Ask to send one request."""
        if self.state(now) is State.OPEN:
            return Refusal(self.retry_after_s(now))
        if self._circuit.state is State.OPEN:
            self._circuit.half_open()
            self._moved()
        is_probe = self._circuit.state is State.HALF_OPEN
        if is_probe:
            self._leases = {n: ends for n, ends in self._leases.items() if ends > now}
            if len(self._leases) >= self._settings.max_probes:
                lease_left = max(0.0, min(self._leases.values()) - now)
                return Refusal(min(PROBE_ANSWERS_IN_S, lease_left))
        self._permits += 1
        if is_probe:
            self._leases[self._permits] = now + self._settings.probe_lease_s
        return Permit(self._permits, self._generation, is_probe)

    def settle(self, permit: Permit, *, ok: bool | None, now: float) -> State | None:
        """Report how a permitted request ended.

        Args:
            permit: what `acquire` gave.
            ok: whether it counts for or against the upstream; None says nothing about it.
            now: the moment of the report.

        Returns:
            The new state if the circuit moved, else None.
        """
        if permit.generation != self._generation or (
            permit.is_probe and permit.number not in self._leases
        ):
            self.stale += 1
            return None
        self._leases.pop(permit.number, None)
        if ok is None:
            return None
        before = self._circuit.state
        self._circuit.record(ok=ok)
        after = self._circuit.state
        if after is before:
            return None
        self._moved()
        self._opened_at = now if after is State.OPEN else None
        return after

    def _moved(self) -> None:
        self._generation += 1
        self.transitions += 1
        self._leases.clear()

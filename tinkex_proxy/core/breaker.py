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

The circuit trips by itself on failures in a row; the gate trips it on the rates of `core.trip`.
It stays open for a time that doubles with every trip until it has been closed again, up to a
longest. The first is exact, as configured; those after it have jitter above them, so that proxies
that tripped together do not go on probing together, and none probes sooner than it was asked to.

The gate reads no clock and rolls no dice: `now` is passed in, in seconds of a monotonic clock, and
so is the draw. The state is right without traffic: whatever is asked of it, what is due by time
alone happens first. What moved is left in `moves` for whoever drives it to take and tell.

Law (closed means that traffic flows)::

    CLOSED --tripped--> OPEN --cooled--> HALF_OPEN --probes passed--> CLOSED
                          ^------------a probe failed---'
"""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from tinkex_proxy.core.trip import Trip, TripSettings

__all__ = [
    "TRANSITIONS",
    "Circuit",
    "Gate",
    "GateSettings",
    "Move",
    "Permit",
    "Refusal",
    "State",
    "Verdict",
]


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

    def record(self, *, ok: bool, threshold: int) -> None:
        """Count one outcome; may move the state: `threshold` failures in a row open it."""
        ...

    def open(self) -> None:
        """Move to OPEN."""
        ...

    def half_open(self) -> None:
        """Move from OPEN to HALF_OPEN."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When to trip, how long to stay open and how to probe.

    Attributes:
        trip: when to trip.
        open_for_s: time from a first trip to the first probe.
        longest_open_s: what that time grows to, doubling with every trip before it is closed.
        jitter: how much of that time is added at most, at random, from the second trip on.
        max_probes: probes that may be out at once while half-open.
        successes_to_close: probes that must succeed before it closes.
        probe_lease_s: time after which a silent probe loses its place. Longer than any timeout of
            the guarded calls, so that only a lost probe ever loses it.
    """

    trip: TripSettings = field(default_factory=TripSettings)
    open_for_s: float = 30.0
    longest_open_s: float = 300.0
    jitter: float = 0.1
    max_probes: int = 1
    successes_to_close: int = 1
    probe_lease_s: float = 120.0


class Permit(NamedTuple):
    """Leave to send one request, good for one generation.

    Attributes:
        at: the moment it was given.
    """

    number: int
    generation: int
    is_probe: bool
    at: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """No leave to send.

    Attributes:
        retry_after_s: seconds until asking again makes sense.
    """

    retry_after_s: float


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
    LATE = "its call began before the breaker last moved"
    LOST = "its probe had lost its place: it was silent for too long"


class Gate:
    """One circuit's gate.

    Attributes:
        stale: outcomes that came too late to count.
        transitions: changes of state.
        moves: changes of state that nobody has been told of yet, oldest first.
    """

    def __init__(self, circuit: Circuit, settings: GateSettings) -> None:
        self._circuit = circuit
        self._settings = settings
        self._trip = Trip(settings.trip)
        self._state = circuit.state
        self._generation = 0
        self._opened_at: float | None = None
        self._due = math.inf  # when time alone moves it
        self._trips = 0  # since it was last closed
        self._permits = 0
        self._passed = 0  # probes that succeeded since it is half-open
        self._leases: dict[int, float] = {}
        self.stale = 0
        self.transitions = 0
        self.moves: list[Move] = []

    @property
    def generation(self) -> int:
        """Grows with every change of state."""
        return self._generation

    @property
    def opened_at(self) -> float | None:
        """Moment of the last trip while not closed, else None."""
        return self._opened_at

    @property
    def threshold(self) -> int:
        """Failures in a row that trip it."""
        return self._trip.threshold

    def due(self) -> float:
        """The moment at which time alone moves it next; infinity where none does."""
        return self._due

    def tick(self, now: float) -> None:
        """Do what is due by time alone."""
        if now >= self._due:
            self._circuit.half_open()
            self._enter(State.HALF_OPEN, "it has been open for its time")

    def probes(self, now: float) -> int:
        """Probes that are out and whose lease has not ended."""
        return sum(1 for ends in self._leases.values() if ends > now)

    def state(self, now: float) -> State:
        """The state as of `now`: an elapsed window reads HALF_OPEN, traffic or not."""
        self.tick(now)
        return self._state

    def retry_after_s(self, now: float) -> float:
        """Seconds until a probe may go; 0 when one may go now or the circuit is closed."""
        self.tick(now)
        return 0.0 if self._state is not State.OPEN else self._due - now

    def acquire(self, now: float) -> Permit | Refusal:
        """Ask to send one request."""
        if now >= self._due:
            self.tick(now)
        if self._state is State.OPEN:
            return Refusal(self._due - now)
        self._permits += 1
        if self._state is State.CLOSED:
            return Permit(self._permits, self._generation, False, now)  # noqa: FBT003 - hot path
        self._leases = {n: ends for n, ends in self._leases.items() if ends > now}
        if len(self._leases) >= self._settings.max_probes:
            lease_left = min(self._leases.values()) - now
            return Refusal(min(PROBE_ANSWERS_IN_S, lease_left))
        self._leases[self._permits] = now + self._settings.probe_lease_s
        return Permit(self._permits, self._generation, True, now)  # noqa: FBT003

    def settle(
        self, permit: Permit, *, ok: bool | None, now: float, draw: float = 0.0, timed: bool = True
    ) -> Verdict:
        """Report how a permitted request ended.

        Args:
            permit: what `acquire` gave.
            ok: whether it counts for or against the upstream; None says nothing about it.
            now: the moment of the report.
            draw: a number from [0, 1): the jitter, should this open the circuit.
            timed: whether the time it took says anything about the upstream.
        """
        if permit.generation != self._generation:
            self.stale += 1
            return Verdict.LATE
        if permit.is_probe and self._leases.pop(permit.number, None) is None:
            self.stale += 1
            return Verdict.LOST
        if ok is None:
            return Verdict.NEUTRAL
        if permit.is_probe:
            self._probed(ok=ok, now=now, draw=draw)
        else:
            slow = timed and self._trip.is_slow(now - permit.at)
            self._called(ok=ok, slow=slow, now=now, draw=draw)
        return Verdict.COUNTED

    def _called(self, *, ok: bool, slow: bool, now: float, draw: float) -> None:
        """An ordinary call has ended."""
        self._trip.count(now, failed=not ok, slow=slow)
        if not ok or self._circuit.failures:
            self._circuit.record(ok=ok, threshold=self._trip.threshold)
        if ok and not slow:
            return
        cause = self._trip.reason(now)
        if self._circuit.state is State.OPEN:
            cause = f"{self._circuit.failures} failures in a row"
        elif cause is not None:
            self._circuit.open()
        if cause is not None:
            self._opened(cause, now, draw)

    def _probed(self, *, ok: bool, now: float, draw: float) -> None:
        """A probe has ended."""
        if not ok:
            self._circuit.record(ok=False, threshold=self._trip.threshold)
            self._opened("a probe failed", now, draw)
            return
        self._passed += 1
        if self._passed < self._settings.successes_to_close:
            return
        self._circuit.record(ok=True, threshold=self._trip.threshold)
        self._trip.clear()
        self._trips = 0
        self._opened_at = None
        self._enter(State.CLOSED, f"probes that succeeded: {self._passed}")

    def _opened(self, cause: str, now: float, draw: float) -> None:
        self._enter(State.OPEN, cause)
        self._opened_at = now
        chosen = self._settings
        longest = max(chosen.open_for_s, chosen.longest_open_s)
        grown = chosen.open_for_s * 2.0 ** min(self._trips, 32)
        spread = 1 + chosen.jitter * draw if self._trips else 1.0
        self._due = now + min(longest, grown * spread)
        self._trips += 1

    def _enter(self, after: State, cause: str) -> None:
        self.moves.append(Move(self._state, after, cause))
        self._state = after
        self._generation += 1
        self.transitions += 1
        self._due = math.inf
        self._passed = 0
        self._leases.clear()

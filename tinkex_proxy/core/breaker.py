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

An operator may **force** it: open (nothing goes), closed (outcomes count, and none trips it) or
disabled (all goes, nothing counts), for a time or until it is reset. After a time of being forced
open a probe goes first; a reset forgets everything, and what was under way then counts no more.

The gate reads no clock and rolls no dice: `now` is passed in, in seconds of a monotonic clock, and
so is the draw. The state is right without traffic: whatever is asked of it, what is due by time
alone happens first. What moved is left in `moves` for whoever drives it to take and tell.
"""

import math
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec

from tinkex_proxy.core.circuit import TRANSITIONS, Circuit, Force, Move, State, Verdict
from tinkex_proxy.core.trip import Trip, TripSettings
from tinkex_proxy.core.window import Counts

__all__ = [
    "REFUSING",
    "TRANSITIONS",
    "Circuit",
    "Force",
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
# More failures in a row than there will ever be: held closed, a circuit counts and does not trip.
NEVER: Final = 2**62


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


class Permit(msgspec.Struct, frozen=True, gc=False):
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


# No set: an enumeration's hash is worked out in Python.
REFUSING: Final = (State.OPEN, State.FORCED_OPEN)


class Gate:
    """One circuit's gate.

    Args:
        circuit: what keeps state and counter.
        settings: when to trip, how long to stay open and how to probe.
        enabled: whether it does anything unless it is forced to.

    Attributes:
        settings: as given last.
        enabled: as given last.
        stale: outcomes that came too late to count.
        transitions: changes of state.
        moves: changes of state that nobody has been told of yet, oldest first.
        forced: what an operator has made of it, or None.
        passed: probes that have succeeded since it is half-open.
        opened_at: moment of the last trip while not closed, else None.
        generation: grows whenever what is under way ceases to count.
    """

    def __init__(self, circuit: Circuit, settings: GateSettings, *, enabled: bool = True) -> None:
        self.settings = settings
        self.enabled = enabled
        self.stale = 0
        self.transitions = 0
        self.moves: list[Move] = []
        self.forced: Force | None = None
        self.passed = 0
        self.opened_at: float | None = None
        self.generation = 0
        self._circuit = circuit
        self._trip = Trip(settings.trip)
        self._state = State.CLOSED if enabled else State.DISABLED
        self._due = math.inf
        self._trips = 0  # since it was last closed
        self._permits = 0
        self._leases: dict[int, float] = {}

    @property
    def threshold(self) -> int:
        """Failures in a row that trip it."""
        return self._trip.threshold

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._circuit.failures

    @property
    def due(self) -> float:
        """The moment at which time alone changes it next; infinity where it never does."""
        return self._due

    def counts(self, now: float) -> Counts:
        """What the window of its rates holds."""
        return self._trip.counts(now)

    def probes(self, now: float) -> int:
        """Probes that are out and whose lease has not ended."""
        return sum(1 for ends in self._leases.values() if ends > now)

    def tick(self, now: float) -> None:
        """Do what is due by time alone."""
        if now < self._due:
            return
        over = "the time for which it was forced is over"
        match self.forced:
            case None:
                self._half_open("it has been open for its time")
            case Force.OPEN if self.enabled:
                self._half_open(over)
            case Force.CLOSE if self.enabled:
                self.forced = None
                self._due = math.inf
            case _:
                self._rest(over)

    def state(self, now: float) -> State:
        """The state as of `now`: HALF_OPEN once it has been open for its time, traffic or not."""
        self.tick(now)
        return self._state

    def retry_after_s(self, now: float) -> float:
        """Seconds until a probe may go; 0 when one may go now or traffic flows.

        Forced open until somebody resets it, it is the first time open: nobody knows better.
        """
        self.tick(now)
        if self._state not in REFUSING:
            return 0.0
        return self.settings.open_for_s if self._due == math.inf else self._due - now

    def acquire(self, now: float) -> Permit | Refusal:
        """Ask to send one request."""
        if now >= self._due:
            self.tick(now)
        if self._state in REFUSING:
            return Refusal(self.retry_after_s(now))
        self._permits += 1
        if self._state is not State.HALF_OPEN:
            return Permit(self._permits, self.generation, False, now)  # noqa: FBT003 - hot path
        self._leases = {n: ends for n, ends in self._leases.items() if ends > now}
        if len(self._leases) >= self.settings.max_probes:
            lease_left = min(self._leases.values()) - now
            return Refusal(min(PROBE_ANSWERS_IN_S, lease_left))
        self._leases[self._permits] = now + self.settings.probe_lease_s
        return Permit(self._permits, self.generation, True, now)  # noqa: FBT003

    def settle(
        self, permit: Permit, *, ok: bool | None, now: float, draw: float = 0.0, timed: bool = True
    ) -> Verdict:
        """Report how a permitted request ended.

        Args:
            permit: what `acquire` gave.
            ok: whether it counts for or against the upstream; None says nothing about it.
            now: the moment of the report.
            draw: a number from [0, 1): the jitter, should this open the circuit anew.
            timed: whether the time it took says anything about the upstream.
        """
        if now >= self._due:
            self.tick(now)
        if permit.generation != self.generation:
            self.stale += 1
            return Verdict.LATE
        if permit.is_probe and self._leases.pop(permit.number, None) is None:
            self.stale += 1
            return Verdict.LOST
        if ok is None:
            return Verdict.NEUTRAL
        if self._state is State.DISABLED:
            return Verdict.DISABLED
        if permit.is_probe:
            self._probed(ok=ok, now=now, draw=draw)
        else:
            slow = timed and self._trip.minds_slow and self._trip.is_slow(now - permit.at)
            self._called(ok=ok, slow=slow, now=now)
        return Verdict.COUNTED

    def force(self, what: Force, now: float, ttl_s: float | None = None) -> None:
        """Make it what an operator wants, for `ttl_s` seconds or until `reset`."""
        match what:
            case Force.OPEN:
                self._circuit.open()
                self._enter(State.FORCED_OPEN, "an operator forced it open")
                self.opened_at = now
            case Force.CLOSE:
                self._forget()
                self._enter(State.CLOSED, "an operator holds it closed")
            case Force.DISABLE:
                self._forget()
                self._enter(State.DISABLED, "an operator disabled it")
            case _:  # pragma: no cover
                assert_never(what)
        self.forced = what
        self._due = math.inf if ttl_s is None else now + ttl_s

    def reconfigure(self, settings: GateSettings, *, enabled: bool) -> None:
        """Take other settings from the next decision on.

        A time open that has begun ends when it was to end, and what an operator has forced stays.
        """
        self.settings = settings
        self._trip.reconfigure(settings.trip)
        if enabled is not self.enabled:
            self.enabled = enabled
            if self.forced is None:
                self._rest(
                    "the configuration enabled it" if enabled else "the configuration disabled it"
                )

    def reset(self) -> None:
        """Forget everything and let it follow its upstream again."""
        self._trip.forget()
        self._rest("an operator reset it")

    def _called(self, *, ok: bool, slow: bool, now: float) -> None:
        """An ordinary call has ended."""
        self._trip.count(now, failed=not ok, slow=slow)
        held = self.forced is not None
        if not ok or self._circuit.failures:
            self._circuit.record(ok=ok, threshold=NEVER if held else self._trip.threshold)
        if held or (ok and not slow):
            return
        cause = self._trip.reason(now)
        if self._circuit.state is State.OPEN:
            cause = f"{self._circuit.failures} failures in a row"
        elif cause is not None:
            self._circuit.open()
        if cause is not None:
            self._opened(cause, now)

    def _probed(self, *, ok: bool, now: float, draw: float) -> None:
        """A probe has ended."""
        if not ok:
            self._circuit.record(ok=False, threshold=self._trip.threshold)
            self._opened("a probe failed", now, draw)
            return
        self.passed += 1
        if self.passed >= self.settings.successes_to_close:
            self._circuit.record(ok=True, threshold=self._trip.threshold)
            self._trip.closed(at_once=self._trips == 1)
            self._forget()
            self._enter(State.CLOSED, f"probes that succeeded: {self.passed}")

    def _opened(self, cause: str, now: float, draw: float = 0.0) -> None:
        self._enter(State.OPEN, cause)
        self.opened_at = now
        chosen = self.settings
        longest = max(chosen.open_for_s, chosen.longest_open_s)
        grown = chosen.open_for_s * 2.0 ** min(self._trips, 32)
        spread = 1 + chosen.jitter * draw if self._trips else 1.0
        self._due = now + min(longest, grown * spread)
        self._trips += 1

    def _half_open(self, cause: str) -> None:
        self._circuit.half_open()
        self._enter(State.HALF_OPEN, cause)

    def _rest(self, cause: str) -> None:
        """As it is when it begins."""
        self._forget()
        self._enter(State.CLOSED if self.enabled else State.DISABLED, cause)

    def _forget(self) -> None:
        self._circuit.close()
        self._trip.clear()
        self._trips = 0
        self.opened_at = None

    def _enter(self, after: State, cause: str) -> None:
        if after is not self._state:
            self.moves.append(Move(self._state, after, cause))
            self._state = after
            self.transitions += 1
        self.generation += 1
        self.forced = None
        self._due = math.inf
        self.passed = 0
        self._leases.clear()

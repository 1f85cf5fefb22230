"""What would change a breaker's state next, in words, from the rules that are in force."""

import math
from typing import NamedTuple

from tinkex_proxy.core.breaker import Gate
from tinkex_proxy.core.circuit import Force, State

__all__ = ["Prospect", "prospects"]


class Prospect(NamedTuple):
    """What would have to happen, and the state that it would lead to."""

    when: str
    then: State


def prospects(gate: Gate, now: float) -> list[Prospect]:
    """All that would change the state of `gate` as it is at `now`, an operator's reset aside."""
    state = gate.state(now)
    if gate.forced is not None:
        return _forced(gate, now)
    match state:
        case State.CLOSED:
            return _closed(gate, now)
        case State.OPEN:
            return [Prospect(f"{gate.due - now:.1f} s from now, traffic or not", State.HALF_OPEN)]
        case State.HALF_OPEN:
            left = gate.settings.successes_to_close - gate.passed
            return [
                Prospect(f"{left} more probes that succeed", State.CLOSED),
                Prospect("a probe that fails", State.OPEN),
            ]
        case _:
            return []


def _closed(gate: Gate, now: float) -> list[Prospect]:
    trip, counts = gate.settings.trip, gate.counts(now)
    left = max(1, gate.threshold - gate.failures)
    found = [f"{left} more failures in a row ({gate.failures} of {gate.threshold} so far)"]
    enough = f"of at least {trip.minimum_calls} calls within {trip.window_s:g} s"
    if trip.failure_rate is not None:
        so_far = f"{counts.failures} of {counts.calls} so far"
        found.append(f"a failure, where {trip.failure_rate:.0%} {enough} failed ({so_far})")
    if trip.slow_s is not None:
        so_far = f"{counts.slow} of {counts.calls} so far"
        slow = f"took {trip.slow_s:g} s or longer ({so_far})"
        found.append(f"a failure or slow call, where {trip.slow_rate:.0%} {enough} {slow}")
    return [Prospect(when, State.OPEN) for when in found]


def _forced(gate: Gate, now: float) -> list[Prospect]:
    if gate.due == math.inf:
        return []
    when = f"{gate.due - now:.1f} s from now, when the time for which it was forced is over"
    if not gate.enabled:
        return [Prospect(when, State.DISABLED)]
    return [Prospect(when, State.HALF_OPEN if gate.forced is Force.OPEN else State.CLOSED)]

"""Circuit breakers, one per {base URL, API key}: `core.breaker.Gate` over `aiobreaker`.

aiobreaker holds the state and the counter of consecutive failures and can be looked at with its own
tools; it never runs the guarded call. Each judged outcome is replayed into it in one synchronous
step, so that none of its timing (wall clock, time zones, masking of the tripping error) is in play.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn

import aiobreaker
from aiobreaker.state import CircuitBreakerState

from tinkex_proxy.core.breaker import Gate, GateSettings, Permit, Refusal, State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.errors import CircuitOpen
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Hub, Transition

__all__ = ["Breaker", "BreakerSettings"]

_STATES = {
    CircuitBreakerState.CLOSED: State.CLOSED,
    CircuitBreakerState.OPEN: State.OPEN,
    CircuitBreakerState.HALF_OPEN: State.HALF_OPEN,
}
_OK = {Outcome.SUCCESS: True, Outcome.FAILURE: False}


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When to trip, and the gate's own settings."""

    enabled: bool = True
    gate: GateSettings = field(default_factory=GateSettings)


class _ReplayedFailure(Exception):  # noqa: N818 - never seen outside
    """Stands for the outcome that is being replayed."""


def _fail() -> None:
    raise _ReplayedFailure


class _Circuit:
    """aiobreaker, seen as what the gate needs."""

    def __init__(self, name: str) -> None:
        # The time open is the gate's; an hour keeps aiobreaker from half-opening by itself.
        self._inner = aiobreaker.CircuitBreaker(timeout_duration=timedelta(hours=1), name=name)

    @property
    def state(self) -> State:
        return _STATES[self._inner.current_state]

    @property
    def failures(self) -> int:
        return int(self._inner.fail_counter)

    def record(self, *, ok: bool, threshold: int) -> None:
        self._inner.fail_max = threshold
        with contextlib.suppress(_ReplayedFailure, aiobreaker.CircuitBreakerError):
            self._inner.call((lambda: None) if ok else _fail)

    def open(self) -> None:
        self._inner.open()

    def half_open(self) -> None:
        self._inner.half_open()


class Breaker:
    """The breaker of one upstream and one key.

    Args:
        breaker_id: its public name; holds no secret.
        settings: when to trip and when to probe.
        clock: monotonic seconds.
        hub: told of every transition.
        wall_clock: gives the time of day in seconds, for people only.
        draw: gives numbers from [0, 1), for jitter.
    """

    def __init__(
        self,
        breaker_id: str,
        settings: BreakerSettings,
        *,
        clock: Clock,
        hub: Hub,
        wall_clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self.id = breaker_id
        self._settings = settings
        self._clock = clock
        self._hub = hub
        self._wall_clock = wall_clock
        self._draw = draw
        self._circuit = _Circuit(breaker_id)
        self._gate = Gate(self._circuit, settings.gate)
        self._opened_at: float | None = None
        self._counts: Counter[str] = Counter()
        self._last_error: str | None = None

    def check(self) -> None:
        """Refuse new work while the circuit is open, without taking a permit.

        Raises:
            CircuitOpen: it is not time for a probe yet.
        """
        now = self._clock.now()
        if self._settings.enabled and self._gate.state(now) is State.OPEN:
            self._refuse(self._gate.retry_after_s(now))

    def acquire(self) -> Permit | None:
        """Take leave to send one request (None when the breaker is switched off).

        Raises:
            CircuitOpen: the circuit is open, or half-open with all its probes out.
        """
        if not self._settings.enabled:
            return None
        leave = self._gate.acquire(self._clock.now())
        if self._gate.moves:
            self._tell_moves()
        if isinstance(leave, Refusal):
            self._refuse(leave.retry_after_s)
        return leave

    def settle(
        self, permit: Permit | None, outcome: Outcome, detail: str, *, timed: bool = True
    ) -> None:
        """Report how a permitted request ended.

        Args:
            permit: what `acquire` gave.
            outcome: how it is judged.
            detail: one line for a person; names a failure.
            timed: whether the time it took says anything: a long poll is slow by design.
        """
        self._counts[outcome.value] += 1
        draw = 0.0
        if outcome is Outcome.FAILURE:
            self._last_error = detail
            draw = self._draw()
        if permit is None:
            return
        now = self._clock.now()
        self._gate.settle(permit, ok=_OK.get(outcome), now=now, draw=draw, timed=timed)
        if self._gate.moves:
            self._tell_moves()

    def snapshot(self, upstream: str, key_id: str) -> dict[str, object]:
        """What `GET /breakers` shows; right without traffic."""
        now = self._clock.now()
        state = self._gate.state(now).value if self._settings.enabled else "disabled"
        self._tell_moves()
        return {
            "id": self.id,
            "upstream": upstream,
            "key_id": key_id,
            "state": state,
            "consecutive_failures": self._circuit.failures,
            "failure_threshold": self._gate.threshold,
            "opened_at": self._opened_at,
            "retry_after_s": round(self._gate.retry_after_s(now), 3),
            "probes_in_flight": self._gate.probes(now),
            "generation": self._gate.generation,
            "transitions": self._gate.transitions,
            "last_error": self._last_error,
            "counts": {
                "success": self._counts["success"],
                "failure": self._counts["failure"],
                "throttled": self._counts["throttled"],
                "neutral": self._counts["neutral"],
                "rejected": self._counts["rejected"],
                "stale": self._gate.stale,
            },
        }

    def _refuse(self, retry_after_s: float) -> NoReturn:
        self._counts["rejected"] += 1
        raise CircuitOpen(
            f"The circuit breaker {self.id} is open after repeated upstream failures "
            f"(last: {self._last_error}). Nothing was sent. GET /breakers/{self.id} tells more.",
            retry_after_s=retry_after_s,
        )

    def _tell_moves(self) -> None:
        moves, self._gate.moves = self._gate.moves, []
        for move in moves:
            cause = move.cause
            if move.after is State.OPEN:
                cause = f"{cause} (last: {self._last_error})"
                self._opened_at = self._wall_clock()
            elif move.after is State.CLOSED:
                self._opened_at = None
            self._hub.tell(Transition(self.id, move.before, move.after, cause))

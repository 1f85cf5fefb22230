"""Circuit breakers, one per {base URL, API key}: `core.breaker.Gate` over `aiobreaker`.

aiobreaker holds the state and the counter of consecutive failures and can be looked at with its own
tools; it never runs the guarded call. Each judged outcome is replayed into it in one synchronous
step, so that none of its timing (wall clock, time zones, masking of the tripping error) is in play.
A success that could change nothing is not replayed.

What a breaker remembers for `explain` is bounded: its last moves, and its last outcomes but for the
plain successes that counted, which are most of them and tell nothing.
"""

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple, NoReturn

import aiobreaker
from aiobreaker.state import CircuitBreakerState

from tinkex_proxy.core.breaker import REFUSING, Gate, GateSettings, Permit, Refusal
from tinkex_proxy.core.circuit import Force, State, Verdict
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.prospects import prospects
from tinkex_proxy.errors import CircuitOpen
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import BreakerDropped, Transition
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.whose import Whose

__all__ = ["Breaker", "BreakerSettings"]

# Enough to see an outage begin and end.
KEPT_OUTCOMES: Final = 50
KEPT_MOVES: Final = 20

_STATES = {
    CircuitBreakerState.CLOSED: State.CLOSED,
    CircuitBreakerState.OPEN: State.OPEN,
    CircuitBreakerState.HALF_OPEN: State.HALF_OPEN,
}
_THROTTLED: Final = "the upstream asked to slow down: it is there"


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
        self.failures = 0  # its counter, which every call looks at, and three calls away

    @property
    def state(self) -> State:
        return _STATES[self._inner.current_state]

    def record(self, *, ok: bool, threshold: int) -> None:
        self._inner.fail_max = threshold
        with contextlib.suppress(_ReplayedFailure, aiobreaker.CircuitBreakerError):
            self._inner.call((lambda: None) if ok else _fail)
        self._moved()

    def open(self) -> None:
        self._inner.open()
        self._moved()

    def half_open(self) -> None:
        self._inner.half_open()
        self._moved()

    def close(self) -> None:
        if self.failures or self.state is not State.CLOSED:
            self._inner.close()
            self._moved()

    def _moved(self) -> None:
        self.failures = int(self._inner.fail_counter)


class _Seen(NamedTuple):
    """An outcome worth remembering."""

    at: float
    outcome: Outcome
    detail: str
    verdict: Verdict


class Breaker:
    """The breaker of one upstream and one key.

    Args:
        breaker_id: its public name; holds no secret.
        settings: when to trip and when to probe.
        clock: monotonic seconds, and what wakes it when time alone moves it.
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
        self._clock = clock
        self._hub = hub
        self._wall_clock = wall_clock
        self._draw = draw
        self._circuit = _Circuit(breaker_id)
        self._gate = Gate(self._circuit, settings.gate, enabled=settings.enabled)
        self._opened_at: float | None = None
        self._successes = 0
        self._counts: Counter[Outcome] = Counter()
        self._rejected = 0
        self._uncounted: Counter[Verdict] = Counter()
        self._last_error: str | None = None
        self._seen: deque[_Seen] = deque(maxlen=KEPT_OUTCOMES)
        self._moves: deque[dict[str, object]] = deque(maxlen=KEPT_MOVES)
        self._armed = math.inf
        self._call_off: Callable[[], None] = _nothing
        self._held: set[asyncio.Timeout] = set()

    def reconfigure(self, settings: BreakerSettings) -> None:
        """Take other settings; an outage that is under way runs by those it began with."""
        self._gate.reconfigure(settings.gate, enabled=settings.enabled)
        self._moved()

    def check(self) -> None:
        """Refuse new work while the circuit is open, without taking a permit.

        Raises:
            CircuitOpen: it is not time for a probe yet.
        """
        now = self._clock.now()
        if self._gate.state(now) in REFUSING:
            self._refuse(self._gate.retry_after_s(now))

    def acquire(self) -> Permit:
        """Take leave to send one request.

        Raises:
            CircuitOpen: the circuit is open, or half-open with all its probes out.
        """
        leave = self._gate.acquire(self._clock.now())
        if self._gate.moves:
            self._moved()
        if isinstance(leave, Refusal):
            self._refuse(leave.retry_after_s)
        return leave

    def settle(
        self,
        permit: Permit | None,
        outcome: Outcome,
        detail: str,
        *,
        timed: bool = True,
        calls: Sequence[Whose] = (),
    ) -> None:
        """Report how a permitted request ended.

        Args:
            permit: what `acquire` gave.
            outcome: how it is judged.
            detail: one line for a person; names a failure.
            timed: whether the time it took says anything: a long poll is slow by design.
            calls: on whose behalf it went; told with what it moves.
        """
        if permit is None:
            return
        now = self._clock.now()
        if outcome is Outcome.SUCCESS:
            self._successes += 1
            verdict = self._gate.settle(permit, ok=True, now=now, timed=timed)
            plain = verdict is Verdict.COUNTED and not permit.is_probe
        else:
            plain = False
            self._counts[outcome] += 1
            ok = None if outcome is not Outcome.FAILURE else False
            self._last_error = self._last_error if ok is None else detail
            verdict = self._gate.settle(permit, ok=ok, now=now, draw=self._draw(), timed=timed)
        if not plain:
            self._seen.append(_Seen(now, outcome, detail, verdict))
            self._uncounted[verdict] += verdict is not Verdict.COUNTED
        if self._gate.moves:
            self._moved(calls)

    def force(self, what: Force, ttl_s: float | None = None) -> None:
        """Hold it open or closed, or disable it, for `ttl_s` seconds or until it is reset."""
        self._gate.force(what, self._clock.now(), ttl_s)
        self._moved()
        if what is not Force.OPEN:
            self._wake()

    def reset(self) -> None:
        """Forget everything, and follow the upstream again."""
        self._gate.reset()
        self._moved()
        self._wake()

    async def held(self, wait_s: float) -> None:
        """Come back after so many seconds, or at once when an operator lets requests through.

        For requests that it refused and that will ask again: their time was that of the window,
        which an operator has cut short.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as held:
                self._held.add(held)
                try:
                    await self._clock.sleep(wait_s)
                finally:
                    self._held.discard(held)

    def _wake(self) -> None:
        for held in self._held:
            held.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """End; nothing is told of it afterwards."""
        self._call_off()
        self._hub.tell(BreakerDropped(self.id))
        self._hub = Hub([], on_broken=_nothing)

    @property
    def state(self) -> State:
        """As it is now; right without traffic."""
        state = self._gate.state(self._clock.now())
        self._moved()
        return state

    def snapshot(self, upstream: str, key_id: str) -> dict[str, object]:
        """What `GET /breakers` shows; right without traffic. `forced` is there only where it is."""
        now = self._clock.now()
        state = self._gate.state(now)
        self._moved()
        forced = self._forced(now)
        return {
            "id": self.id,
            "upstream": upstream,
            "key_id": key_id,
            "state": state.value,
            "consecutive_failures": self._circuit.failures,
            "failure_threshold": self._gate.threshold,
            "opened_at": self._opened_at,
            "retry_after_s": round(self._gate.retry_after_s(now), 3),
            "probes_in_flight": self._gate.probes(now),
            "generation": self._gate.generation,
            "transitions": self._gate.transitions,
            "last_error": self._last_error,
            "counts": {
                "success": self._successes,
                "failure": self._counts[Outcome.FAILURE],
                "throttled": self._counts[Outcome.THROTTLED],
                "neutral": self._counts[Outcome.NEUTRAL],
                "rejected": self._rejected,
                "stale": self._gate.stale,
            },
            **({} if forced is None else {"forced": forced}),
        }

    def explain(self) -> dict[str, object]:
        """Why it is as it is: what counted, what did not, what came late, what would change it."""
        now = self._clock.now()
        state = self._gate.state(now)
        self._moved()
        calls, failures, slow = self._gate.counts(now)
        ended = self._successes + self._counts.total()
        late = self._uncounted[Verdict.LATE] + self._uncounted[Verdict.LOST]
        return {
            "id": self.id,
            "state": state.value,
            "because": self._moves[-1]["cause"] if self._moves else "it has never moved",
            "forced": self._forced(now),
            "failures_in_a_row": self._circuit.failures,
            "window": {"calls": calls, "failures": failures, "slow": slow},
            "would_change_it": [
                {"when": when, "then": then.value} for when, then in prospects(self._gate, now)
            ],
            "outcomes": {
                "counted": ended - self._uncounted.total(),
                "not_counted": self._uncounted.total() - late,
                "late": late,
                "rejected": self._rejected,
            },
            "recent": [self._told(seen, now) for seen in reversed(self._seen)],
            "moves": list(reversed(self._moves)),
        }

    def _told(self, seen: _Seen, now: float) -> dict[str, object]:
        counted = seen.verdict is Verdict.COUNTED
        throttled = seen.outcome is Outcome.THROTTLED and seen.verdict is Verdict.NEUTRAL
        return {
            "ago_s": round(now - seen.at, 3),
            "outcome": seen.outcome.value,
            "detail": seen.detail,
            "counted": counted,
            "why_not": None if counted else _THROTTLED if throttled else seen.verdict.value,
        }

    def _forced(self, now: float) -> dict[str, object] | None:
        if self._gate.forced is None:
            return None
        left = None if self._gate.due == math.inf else round(self._gate.due - now, 3)
        return {"to": self._gate.forced.value, "for_s": left}

    def _refuse(self, retry_after_s: float) -> NoReturn:
        self._rejected += 1
        why = f"after repeated upstream failures (last: {self._last_error})"
        if self._gate.forced is not None:
            why = "because an operator forced it open"
        raise CircuitOpen(
            f"The circuit breaker {self.id} is open {why}. Nothing was sent. "
            f"GET /breakers/{self.id}/explain tells more.",
            retry_after_s=retry_after_s,
        )

    def _moved(self, calls: Sequence[Whose] = ()) -> None:
        """Tell what has moved, and be there when time alone moves it next."""
        moves, self._gate.moves = self._gate.moves, []
        for move in moves:
            at, cause = self._wall_clock(), move.cause
            if move.after is State.OPEN:
                cause = f"{cause} (last: {self._last_error})"
            if move.after is not State.HALF_OPEN:
                self._opened_at = None if self._gate.opened_at is None else at
            told = {"at": at, "before": move.before.value, "after": move.after.value}
            self._moves.append({**told, "cause": cause})
            self._hub.tell(Transition(self.id, move.before, move.after, cause, calls))
        if self._gate.due != self._armed:
            self._call_off()
            self._call_off, self._armed = _nothing, self._gate.due
            if self._armed < math.inf:
                due_in_s = self._armed - self._clock.now()
                self._call_off = self._clock.call_later(due_in_s, self._on_due)

    def _on_due(self) -> None:
        # A timer may come a little early; its moment has come all the same.
        self._gate.tick(max(self._armed, self._clock.now()))
        self._moved()


def _nothing(*_: object) -> None:
    """What is done where there is nothing to do."""

"""`GET /dashboard`: all that the page and `top` show, in one small answer.

Whoever asks again says what it has (`after`, as the answer before called it): then only what is new
since is told of what grows (slots, curves, moves, errors), and all of what is (breakers, lanes). An
`after` of another run of the proxy, or none, gets everything.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import msgspec
from fastapi import APIRouter, Response

from tinkex_proxy.api.breakers import Breakers
from tinkex_proxy.api.problems import STATUS
from tinkex_proxy.core.quantiles import Quantiles
from tinkex_proxy.core.verdict import Evidence, Verdict, judge
from tinkex_proxy.runtime.accounts import Accounts
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.history import KEPT_S, STEP_S, History, Moved, Slot, sizes_of
from tinkex_proxy.runtime.intake import Intake
from tinkex_proxy.runtime.troubles import Trouble

__all__ = ["Dashboard", "dashboard_router"]

# What is judged as now, and what as lately.
NOW_S: Final = 60.0
# More lanes than these nobody reads; `GET /lanes` has them all.
MAX_LANES: Final = 100
# Less time than this, of all calls of a slot, no chart shows.
_TELLABLE_S: Final = 0.0001
_QUIET_STATES: Final = frozenset({"active"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """What the page reads.

    Args:
        run: names this run of the proxy.
        history: the last quarter of an hour.
        accounts: every key's.
        breakers: all of them.
        intake: what is held and shed.
        clock: measures.
        wall_clock: gives the time of day in seconds.
        obstacle: what keeps us from being ready, or None.
        version: facts of what is running.
    """

    run: str
    history: History
    accounts: Accounts
    breakers: Breakers
    intake: Intake
    clock: Clock
    wall_clock: Callable[[], float]
    obstacle: Callable[[], str | None]
    version: Mapping[str, object]

    def told(self, after: str | None) -> dict[str, object]:
        """The answer to whoever has all up to `after`."""
        history, now = self.history, self.clock.now()
        since = self._since(after)
        breakers = self.breakers.snapshots()
        recent = history.summed(NOW_S)
        lanes = self._lanes(now)
        obstacle = self.obstacle()
        return {
            "run": self.run,
            "next": f"{self.run}-{history.number}",
            "since": since,
            "now": round(self.wall_clock(), 3),
            "began_at": round(history.began_at, 3),
            "step_s": STEP_S,
            "into_s": round(history.into_s, 3),
            "kept_s": KEPT_S,
            "version": dict(self.version),
            "ready": obstacle is None,
            "obstacle": obstacle,
            "verdict": {
                "now": _judged(self._evidence(recent, NOW_S, breakers)),
                "lately": _judged(self._evidence(history.summed(KEPT_S), KEPT_S, ())),
            },
            "recent": _totals(recent, history.took_ms(NOW_S), NOW_S),
            "breakers": breakers,
            "moves": [_move(moved) for moved in history.moves(since)],
            "lanes": lanes[:MAX_LANES],
            "lanes_left_out": max(0, len(lanes) - MAX_LANES),
            "keys": [account.snapshot() for account in self.accounts],
            "admission": self.intake.snapshot(),
            "slots": [_slot(slot) for slot in history.slots(since)],
            "losses": history.curves.told(since),
            "troubles": [_trouble(row) for row in history.troubles.rows(since)],
        }

    def _since(self, after: str | None) -> int:
        run, _, number = (after or "").rpartition("-")
        ours = run == self.run and number.isascii() and number.isdigit()
        return min(int(number[:12]), self.history.number) if ours else 0

    def _lanes(self, now: float) -> list[dict[str, object]]:
        """Lanes of live models, by name."""
        shown = [
            {
                "key_id": account.key_id,
                "base_model": model.facts.get("base_model"),
                "linger_ms": account.limits.linger_s * 1000,
                **model.snapshot(now),
            }
            for account in self.accounts
            for model in account.models.values()
            if model.gone is None
        ]
        return sorted(shown, key=lambda lane: str(lane["model_id"]))

    def _evidence(
        self, slot: Slot, window_s: float, breakers: Iterable[Mapping[str, object]]
    ) -> Evidence:
        """What happened in a window; what is so at this moment only with the breakers given."""
        trips, open_s = self.history.outage(window_s)
        states: dict[str, int] = {}
        waits: list[float] = []
        for breaker in breakers:
            states[str(breaker["state"])] = states.get(str(breaker["state"]), 0) + 1
            if breaker["state"] == "open" and isinstance(wait := breaker["retry_after_s"], float):
                waits.append(wait)
        present = bool(states)
        return Evidence(
            window_s=window_s,
            calls=slot.calls,
            answered=slot.answered,
            faults=slot.faults,
            silences=slot.silences,
            throttled=slot.throttled,
            breakers=states,
            reopens_in_s=min(waits, default=0.0),
            trips=trips,
            open_s=open_s,
            held_back_s=self._held_back_s() if present else 0.0,
            paused=self._paused() if present else 0,
            own_s=slot.own_s,
            waiting_s=slot.waiting_s,
            upstream_s=slot.upstream_s,
            journal_failing=present and self.history.troubles.journal_failing,
        )

    def _held_back_s(self) -> float:
        held = (account.upstream.pace.held_back() for account in self.accounts)
        return max((one[0] for one in held if one is not None), default=0.0)

    def _paused(self) -> int:
        states = (account.tools.poller.states() for account in self.accounts)
        return sum(n for one in states for state, n in one.items() if state not in _QUIET_STATES)


def dashboard_router(dashboard: Dashboard) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["operations"])

    @router.get("/dashboard", summary="All that the page shows")
    async def everything(after: str | None = None) -> Response:
        """The last quarter of an hour; `after` (an earlier answer's `next`) asks for the news."""
        body = msgspec.json.encode(dashboard.told(after))
        headers = {"cache-control": "no-store"}
        return Response(body, media_type="application/json", headers=headers)

    return router


def _judged(evidence: Evidence) -> dict[str, object]:
    verdict: Verdict = judge(evidence)
    return {
        "window_s": evidence.window_s,
        "side": verdict.side.value,
        "grade": verdict.grade.name.lower(),
        "headline": verdict.headline,
        "findings": [
            {"side": f.side.value, "grade": f.grade.name.lower(), "says": f.says}
            for f in verdict.findings
        ],
    }


def _totals(slot: Slot, took: Quantiles, window_s: float) -> dict[str, object]:
    """The figures of the last minute."""
    return {
        "window_s": window_s,
        "ok": slot.calls["ok"],
        "failed": slot.failed,
        "datums": slot.datums,
        "p50_ms": took.p50,
        "p95_ms": took.p95,
        "p99_ms": took.p99,
        "batches": slot.batches.total(),
        "batched_calls": slot.batched_calls,
        "sizes": sizes_of(slot.batches),
        "reasons": dict(slot.reasons.most_common()),
        "repeated": slot.repeated,
        "timed": slot.timed,
        "spent": _spent(slot),
    }


def _slot(slot: Slot) -> dict[str, object]:
    """One slot, in as few bytes as it can be said: what is nothing is not told."""
    took = slot.took_ms.quantiles()
    told: dict[str, object] = {
        "ok": slot.calls["ok"],
        "failed": slot.failed,
        "answered": slot.answered,
        "unanswered": slot.faults + slot.silences,
        "throttled": slot.throttled,
        "repeated": slot.repeated,
        "batches": slot.batches.total(),
        "batched": slot.batched_calls,
        "datums": slot.datums,
        "p50": None if took.p50 is None else float(f"{took.p50:.4g}"),
        "p95": None if took.p95 is None else float(f"{took.p95:.4g}"),
        "p99": None if took.p99 is None else float(f"{took.p99:.4g}"),
        "timed": slot.timed,
        "spent": _spent(slot),
    }
    return {"n": slot.number, **{name: value for name, value in told.items() if value}}


def _spent(slot: Slot) -> dict[str, float]:
    """Seconds by what they were spent on, as far as a chart shows them."""
    return {part.value: round(s, 4) for part, s in slot.spent_s.items() if s >= _TELLABLE_S}


def _move(moved: Moved) -> dict[str, object]:
    return {
        "slot": moved.slot,
        "at": round(moved.at, 3),
        "breaker": moved.breaker,
        "before": None if moved.before is None else moved.before.value,
        "after": None if moved.after is None else moved.after.value,
        "cause": moved.cause,
    }


def _trouble(row: Trouble) -> dict[str, object]:
    """One row, with what its code means."""
    title = STATUS[row.said][1] if row.kind == "call" and row.said in STATUS else None
    return {**asdict(row), "title": title}

"""Upstream, proxy or caller: whose doing it is when calls fail or wait, and what says so.

Law. A failed call is laid at the door of whoever could have made it succeed (`BLAME`, by the code
of its problem). What is said of each side is graded: fine, worth a look, or bad. The verdict goes
to the side with the worst grade; among equals to the one that spoilt more calls; then upstream
before proxy before caller, because that is the order in which a remedy helps: whoever waits for the
upstream mends nothing by changing a program.

Each side gets at least one sentence, so that a reader sees what was looked at and found in order,
and not only what was found wrong. An upstream that takes its time is no fault: training does. How
much of the calls' time went where is told all the same.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BLAME", "Evidence", "Finding", "Grade", "Side", "Verdict", "judge"]

# From this share of failures on it is no accident.
_MANY: Final = 0.5
# Below this many there is no share to speak of.
_FEW: Final = 5
# The proxy's own share of the calls' time, and its seconds a call, above which it is worth a look.
_OWN_SHARE: Final = 0.2
_OWN_S: Final = 0.02
# Above these it is in the way.
_OWN_SHARE_BAD: Final = 0.5
_OWN_S_BAD: Final = 0.1


class Side(enum.Enum):
    """Who may be at fault."""

    UPSTREAM = "upstream"
    PROXY = "proxy"
    CALLER = "caller"
    NOBODY = "nobody"


class Grade(enum.IntEnum):
    """How bad a finding is."""

    FINE = 0
    NOTICE = 1
    BAD = 2


_OF_UPSTREAM: Final = (
    "circuit_open",
    "upstream_unreachable",
    "upstream_fault",
    "upstream_throttled",
    "upstream_failed",
    "outcome_unknown",
    "model_gone",
)
_OF_PROXY: Final = (
    "internal_error",
    "journal_unavailable",
    "overloaded",
    "too_many_keys",
    "draining",
    "bad_configuration",
)
_OF_CALLER: Final = (
    "invalid_json",
    "invalid_request",
    "payload_too_large",
    "body_stalled",
    "foreign_host",
    "foreign_origin",
    "route_not_found",
    "method_not_allowed",
    "api_key_missing",
    "api_key_refused",
    "model_not_found",
    "future_not_found",
    "idempotency_key_reused",
    "deadline_exceeded",
    "upstream_refused",
    "upstream_conflict",
)
# Who could have made it succeed, by the code of the problem.
BLAME: Final[Mapping[str, Side]] = {
    **dict.fromkeys(_OF_UPSTREAM, Side.UPSTREAM),
    **dict.fromkeys(_OF_PROXY, Side.PROXY),
    **dict.fromkeys(_OF_CALLER, Side.CALLER),
    "withdrawn": Side.NOBODY,
    "ok": Side.NOBODY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What happened in a stretch of time.

    Attributes:
        window_s: its length.
        calls: callers' calls that ended, by the code of their problem, or `ok`.
        answered: requests that the upstream answered below 500.
        faults: requests that it answered 5xx.
        silences: requests that got no answer.
        throttled: requests that it answered 429 or 402.
        breakers: how many circuit breakers there are, by their present state.
        reopens_in_s: when the first open one lets a probe through.
        trips: how often one opened.
        open_s: for how long one was open.
        held_back_s: for how much longer the upstream wants nothing submitted.
        paused: requests that it holds and does not work on.
        own_s: seconds of calls that were the proxy's own: its work, lingering, its journal.
        waiting_s: seconds of calls behind others in their lane, or for leave to submit.
        upstream_s: seconds of calls at the upstream.
        journal_failing: whether the journal cannot be written.
    """

    window_s: float
    calls: Mapping[str, int] = field(default_factory=dict)
    answered: int = 0
    faults: int = 0
    silences: int = 0
    throttled: int = 0
    breakers: Mapping[str, int] = field(default_factory=dict)
    reopens_in_s: float = 0.0
    trips: int = 0
    open_s: float = 0.0
    held_back_s: float = 0.0
    paused: int = 0
    own_s: float = 0.0
    waiting_s: float = 0.0
    upstream_s: float = 0.0
    journal_failing: bool = False

    @property
    def ended(self) -> int:
        """Calls that came to an answer."""
        return sum(self.calls.values())

    def blamed_on(self, side: Side) -> dict[str, int]:
        """Failed calls of one side by code, the most frequent first."""
        found = {code: n for code, n in self.calls.items() if n and BLAME.get(code) is side}
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one side."""

    side: Side
    grade: Grade
    says: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose doing it is.

    Attributes:
        side: whose; nobody's, where nothing is wrong.
        grade: how bad it is.
        headline: one sentence.
        findings: what says so, all sides, the worst of each first.
    """

    side: Side
    grade: Grade
    headline: str
    findings: tuple[Finding, ...]


_HEADLINES: Final[Mapping[tuple[Side, Grade], str]] = {
    (Side.UPSTREAM, Grade.BAD): "The upstream is failing.",
    (Side.UPSTREAM, Grade.NOTICE): "The upstream stumbles; calls go on.",
    (Side.PROXY, Grade.BAD): "The proxy is in the way.",
    (Side.PROXY, Grade.NOTICE): "The proxy is worth a look.",
    (Side.CALLER, Grade.BAD): "Callers ask for what cannot be done.",
    (Side.CALLER, Grade.NOTICE): "All works; some calls were wrong in themselves.",
}


def judge(evidence: Evidence) -> Verdict:
    """Say whose doing it is, and why."""
    found = [*_of_upstream(evidence), *_of_proxy(evidence), *_of_callers(evidence)]
    found.sort(key=lambda finding: (_ORDER.index(finding.side), -finding.grade))
    worst = max(finding.grade for finding in found)
    if worst is Grade.FINE:
        headline = "All is well." if evidence.ended else "Nothing to judge: no call has come."
        return Verdict(Side.NOBODY, worst, headline, tuple(found))
    guilty = [side for side in _ORDER if any(f.side is side and f.grade is worst for f in found)]
    side = max(guilty, key=lambda one: sum(evidence.blamed_on(one).values()))
    return Verdict(side, worst, _HEADLINES[side, worst], tuple(found))


_ORDER: Final = (Side.UPSTREAM, Side.PROXY, Side.CALLER)


def _of_upstream(evidence: Evidence) -> Iterable[Finding]:
    yield from _breakers(evidence)
    yield _answers(evidence)
    if evidence.throttled:
        asked = _count(evidence.throttled, "request was", "requests were")
        yield _upstream(Grade.NOTICE, f"{asked} told to slow down (429 or 402).")
    if evidence.held_back_s > 0:
        held = f"It wants nothing submitted for {_span(evidence.held_back_s)} more."
        yield _upstream(Grade.NOTICE, held)
    if evidence.paused:
        held = _count(evidence.paused, "request", "requests")
        yield _upstream(Grade.NOTICE, f"It holds {held} without working on them, as it says.")
    spoilt = evidence.blamed_on(Side.UPSTREAM)
    if spoilt:
        many = _is_many(sum(spoilt.values()), evidence.ended)
        yield _upstream(Grade.BAD if many else Grade.NOTICE, f"It spoilt {_codes(spoilt)}.")


def _breakers(evidence: Evidence) -> Iterable[Finding]:
    shut = evidence.breakers.get("open", 0)
    if shut:
        left = f"the next probe goes in {_span(evidence.reopens_in_s)}"
        which = _count(shut, "circuit breaker is", "circuit breakers are")
        yield _upstream(Grade.BAD, f"{which} open after repeated failures; {left}.")
    probing = evidence.breakers.get("half_open", 0)
    if probing:
        which = _count(probing, "circuit breaker is", "circuit breakers are")
        yield _upstream(Grade.NOTICE, f"{which} half open: one probe decides.")
    if evidence.trips and not shut:
        times = _count(evidence.trips, "time", "times")
        lasted = f"and sent nothing for {_span(evidence.open_s)}"
        yield _upstream(Grade.NOTICE, f"A circuit breaker opened {times}, {lasted}.")


def _answers(evidence: Evidence) -> Finding:
    failed = evidence.faults + evidence.silences
    asked = evidence.answered + failed + evidence.throttled
    if not asked:
        return _upstream(Grade.FINE, "Nothing was sent to it.")
    if not failed:
        all_of = "the one request" if asked == 1 else f"all of {asked:,} requests"
        return _upstream(Grade.FINE, f"It answered {all_of}.")
    parts = [
        text
        for number, text in (
            (evidence.silences, f"{evidence.silences:,} got no answer"),
            (evidence.faults, f"{evidence.faults:,} were answered 5xx"),
        )
        if number
    ]
    grade = Grade.BAD if _is_many(failed, asked) else Grade.NOTICE
    return _upstream(grade, f"{failed:,} of {asked:,} requests failed: {', '.join(parts)}.")


def _of_proxy(evidence: Evidence) -> Iterable[Finding]:
    if evidence.journal_failing:
        yield Finding(Side.PROXY, Grade.BAD, "Its journal cannot be written.")
    forced = evidence.breakers.get("forced_open", 0)
    if forced:
        which = _count(forced, "circuit breaker", "circuit breakers")
        says = f"An operator holds {which} open: calls are refused here."
        yield Finding(Side.PROXY, Grade.NOTICE, says)
    disabled = evidence.breakers.get("disabled", 0)
    if disabled:
        which = _count(disabled, "circuit breaker is", "circuit breakers are")
        yield Finding(Side.PROXY, Grade.FINE, f"{which} disabled: nothing is held off.")
    spoilt = evidence.blamed_on(Side.PROXY)
    if spoilt:
        grade = Grade.BAD if "internal_error" in spoilt else Grade.NOTICE
        yield Finding(Side.PROXY, grade, f"It refused or spoilt {_codes(spoilt)}.")
    yield _time(evidence)


def _time(evidence: Evidence) -> Finding:
    whole_s = evidence.own_s + evidence.waiting_s + evidence.upstream_s
    if whole_s <= 0:
        return Finding(Side.PROXY, Grade.FINE, "No call has taken any time.")
    share, each_s = evidence.own_s / whole_s, evidence.own_s / max(1, evidence.ended)
    grade = Grade.FINE
    if share > _OWN_SHARE and each_s > _OWN_S:
        grade = Grade.NOTICE
    if share > _OWN_SHARE_BAD and each_s > _OWN_S_BAD:
        grade = Grade.BAD
    says = (
        f"Of the calls' time {_percent(share)} was its own ({_span(each_s)} a call), "
        f"{_percent(evidence.waiting_s / whole_s)} waiting behind other calls, "
        f"{_percent(evidence.upstream_s / whole_s)} at the upstream."
    )
    return Finding(Side.PROXY, grade, says)


def _of_callers(evidence: Evidence) -> Iterable[Finding]:
    wrong = evidence.blamed_on(Side.CALLER)
    if wrong:
        many = _is_many(sum(wrong.values()), evidence.ended)
        says = f"They asked for what cannot be done in {_codes(wrong)}."
        yield Finding(Side.CALLER, Grade.BAD if many else Grade.NOTICE, says)
    elif evidence.ended:
        of = "the one call" if evidence.ended == 1 else f"any of {evidence.ended:,} calls"
        says = f"Nothing was wrong with {of}."
        yield Finding(Side.CALLER, Grade.FINE, says)
    else:
        yield Finding(Side.CALLER, Grade.FINE, "No call has ended.")
    left = evidence.calls.get("withdrawn", 0)
    if left:
        says = f"{_count(left, 'caller', 'callers')} hung up before the answer."
        yield Finding(Side.CALLER, Grade.FINE, says)


def _upstream(grade: Grade, says: str) -> Finding:
    return Finding(Side.UPSTREAM, grade, says)


def _is_many(some: int, of: int) -> bool:
    return some >= _FEW and some >= of * _MANY


def _codes(by_code: Mapping[str, int]) -> str:
    """`12 calls (10 circuit_open, 2 outcome_unknown)`."""
    listed = ", ".join(f"{number:,} {code}" for code, number in by_code.items())
    return f"{_count(sum(by_code.values()), 'call', 'calls')} ({listed})"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _percent(share: float) -> str:
    return "less than 1 %" if 0 < share < 0.01 else f"{share * 100:.0f} %"


def _span(seconds: float) -> str:
    """A length of time as a person says it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"

import pytest

from tinkex_proxy.api.problems import STATUS
from tinkex_proxy.core.verdict import BLAME, Evidence, Grade, Side, judge


def said(side: Side, **evidence: object) -> list[str]:
    found = judge(Evidence(window_s=60, **evidence)).findings
    return [finding.says for finding in found if finding.side is side]


def verdict(**evidence: object) -> tuple[Side, Grade]:
    judged = judge(Evidence(window_s=60, **evidence))
    return judged.side, judged.grade


def test_every_code_has_somebody_who_could_have_made_it_succeed() -> None:
    """A code that is added to the closed list has to be given a place here."""
    assert set(BLAME) == {*STATUS, "ok", "withdrawn"}


def test_without_a_call_there_is_nothing_to_judge() -> None:
    judged = judge(Evidence(window_s=60))
    assert (judged.side, judged.headline) == (
        Side.NOBODY,
        "Nothing to judge: no call has come.",
    )
    assert {finding.side for finding in judged.findings} == set(Side) - {Side.NOBODY}


def test_where_all_is_well_each_side_still_has_its_sentence() -> None:
    judged = judge(
        Evidence(
            window_s=60,
            calls={"ok": 1200},
            answered=2000,
            own_s=0.6,
            waiting_s=29.4,
            upstream_s=570,
        )
    )
    assert (judged.side, judged.grade, judged.headline) == (
        Side.NOBODY,
        Grade.FINE,
        "All is well.",
    )
    assert [finding.says for finding in judged.findings] == [
        "It answered all of 2,000 requests.",
        (
            "Of the calls' time less than 1 % was its own (0 ms a call), "
            "5 % waiting behind other calls, 95 % at the upstream."
        ),
        "Nothing was wrong with any of 1,200 calls.",
    ]


def test_an_open_breaker_is_the_upstreams_doing() -> None:
    found = {"breakers": {"open": 1, "closed": 2}, "reopens_in_s": 12.34}
    assert verdict(**found) == (Side.UPSTREAM, Grade.BAD)
    opened = "1 circuit breaker is open after repeated failures; the next probe goes in 12 s."
    assert opened in said(Side.UPSTREAM, **found)
    assert verdict(breakers={"half_open": 2}) == (Side.UPSTREAM, Grade.NOTICE)


def test_one_that_was_open_is_told_when_it_no_longer_is() -> None:
    past = "A circuit breaker opened 2 times, and sent nothing for 9.5 s."
    assert past in said(Side.UPSTREAM, trips=2, open_s=9.5)
    assert past not in said(Side.UPSTREAM, trips=2, open_s=9.5, breakers={"open": 1})


@pytest.mark.parametrize(
    ("answered", "faults", "silences", "grade"),
    [
        (100, 0, 0, Grade.FINE),
        (100, 1, 0, Grade.NOTICE),
        (4, 4, 0, Grade.NOTICE),
        (5, 2, 3, Grade.BAD),
        (6, 2, 3, Grade.NOTICE),
    ],
)
def test_half_of_the_requests_is_no_accident_if_they_are_five(
    answered: int, faults: int, silences: int, grade: Grade
) -> None:
    found = {"answered": answered, "faults": faults, "silences": silences}
    assert verdict(calls={"ok": 1}, **found)[1] is grade


def test_failed_requests_are_told_by_how_they_failed() -> None:
    told = said(Side.UPSTREAM, answered=1, faults=2, silences=3)
    assert told == ["5 of 6 requests failed: 3 got no answer, 2 were answered 5xx."]


def test_what_the_upstream_asks_for_is_worth_a_look() -> None:
    told = said(Side.UPSTREAM, throttled=1, held_back_s=2.5, paused=7)
    assert told == [
        "1 request was told to slow down (429 or 402).",
        "It wants nothing submitted for 2.5 s more.",
        "It holds 7 requests without working on them, as it says.",
        "It answered the one request.",
    ]
    assert verdict(paused=7) == (Side.UPSTREAM, Grade.NOTICE)


def test_calls_are_laid_at_the_door_of_who_spoilt_them() -> None:
    calls = {"ok": 1, "circuit_open": 4, "outcome_unknown": 5, "invalid_request": 1}
    assert "It spoilt 9 calls (5 outcome_unknown, 4 circuit_open)." in said(
        Side.UPSTREAM, calls=calls
    )
    assert "They asked for what cannot be done in 1 call (1 invalid_request)." in said(
        Side.CALLER, calls=calls
    )
    assert verdict(calls=calls) == (Side.UPSTREAM, Grade.BAD)


def test_callers_who_ask_for_what_cannot_be_done() -> None:
    assert verdict(calls={"ok": 5, "invalid_request": 5}) == (Side.CALLER, Grade.BAD)
    assert verdict(calls={"ok": 50, "model_not_found": 1}) == (Side.CALLER, Grade.NOTICE)


def test_who_hangs_up_is_told_of_and_blamed_for_nothing() -> None:
    calls = {"ok": 5, "withdrawn": 1}
    assert verdict(calls=calls) == (Side.NOBODY, Grade.FINE)
    assert "1 caller hung up before the answer." in said(Side.CALLER, calls=calls)


def test_faults_of_the_proxy() -> None:
    assert verdict(journal_failing=True) == (Side.PROXY, Grade.BAD)
    assert verdict(calls={"ok": 99, "internal_error": 1}) == (Side.PROXY, Grade.BAD)
    assert verdict(calls={"ok": 99, "overloaded": 1}) == (Side.PROXY, Grade.NOTICE)


def test_what_operators_have_done_is_the_proxys() -> None:
    assert verdict(breakers={"forced_open": 1}) == (Side.PROXY, Grade.NOTICE)
    held = "An operator holds 1 circuit breaker open: calls are refused here."
    assert held in said(Side.PROXY, breakers={"forced_open": 1})
    off = "2 circuit breakers are disabled: nothing is held off."
    assert off in said(Side.PROXY, breakers={"disabled": 2})
    assert verdict(calls={"ok": 1}, breakers={"disabled": 2}) == (Side.NOBODY, Grade.FINE)


@pytest.mark.parametrize(
    ("own_s", "upstream_s", "grade"),
    [
        (0.15, 0.9, Grade.FINE),  # a small share
        (0.15, 0.15, Grade.FINE),  # half of it, but 15 ms a call
        (0.30, 0.90, Grade.NOTICE),
        (2.0, 1.0, Grade.BAD),
        (0.9, 0.1, Grade.NOTICE),  # nearly all, but 90 ms a call
    ],
)
def test_the_proxys_own_time_is_in_the_way_where_it_is_much_of_much(
    own_s: float, upstream_s: float, grade: Grade
) -> None:
    assert verdict(calls={"ok": 10}, own_s=own_s, upstream_s=upstream_s)[1] is grade


def test_among_equals_the_verdict_is_on_who_spoilt_more_and_then_on_the_upstream() -> None:
    calls = {"circuit_open": 50, "internal_error": 1}
    assert verdict(calls=calls, breakers={"open": 1})[0] is Side.UPSTREAM
    calls = {"ok": 400, "circuit_open": 5, "internal_error": 90}
    assert verdict(calls=calls, breakers={"open": 1})[0] is Side.PROXY
    assert verdict(journal_failing=True, breakers={"open": 1})[0] is Side.UPSTREAM


def test_the_worst_of_each_side_comes_first() -> None:
    judged = judge(Evidence(window_s=60, breakers={"open": 1, "half_open": 1}, answered=3))
    own = [finding.grade for finding in judged.findings if finding.side is Side.UPSTREAM]
    assert own == sorted(own, reverse=True) == [Grade.BAD, Grade.NOTICE, Grade.FINE]

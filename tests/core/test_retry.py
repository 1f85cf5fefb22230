"""What is sent again after what: the table, and one request's way through it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.core.retry import (
    DISBELIEVED,
    POLICIES,
    Asking,
    Happened,
    Kind,
    Spent,
    of_fault,
    of_status,
    row_of,
)

NONE = "\N{EN DASH}"
PAGE = Path(__file__).parents[2] / "docs" / "retries.md"
H = Happened
MAY_HAVE_RUN = [H.FAULT, H.LOST]
NOTHING_RAN = [H.UNSENT, H.THROTTLED]
ONCE = [kind for kind in Kind if not POLICIES[kind].harmless]
SUBMITS = [Kind.TRAINING, Kind.CREATE_MODEL, Kind.UNRECOGNISED, Kind.SAMPLE]


def asking(kind: Kind, *, recognised: bool = True, **more: object) -> Asking:
    return Asking(row_of(kind, recognised=recognised), 0, kind=kind, **more)


def again(kind: Kind, *happened: Happened, recognised: bool = True, **more: object) -> list[bool]:
    asked = asking(kind, recognised=recognised, **more)
    return [asked.again(each, 1) for each in happened]


def test_every_kind_and_every_operation_has_a_row() -> None:
    assert set(POLICIES) == set(Kind)
    assert set().union(*(policy.operations for policy in POLICIES.values())) == set(Operation)


def test_the_page_has_a_row_for_every_kind_and_says_what_the_table_says() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines()]
    shown = {row[0].strip("`"): row for row in rows if row[0].strip("`") in {k.value for k in Kind}}
    assert set(shown) == {kind.value for kind in Kind}
    for kind, policy in POLICIES.items():
        _, _, known_by, _, doubt, limit, spent = shown[kind.value]
        assert known_by == (f"`{policy.known_by}`" if policy.known_by else NONE)
        assert doubt.startswith("again" if policy.repeats and policy.doubtful else "never")
        assert spent == (policy.spent.value if policy.repeats else NONE)
        if policy.attempts is not None:
            assert limit == f"{policy.attempts} attempts"
        elif policy.repeats:
            assert limit == f"{policy.patience_s:,.0f} s"


@pytest.mark.parametrize("kind", ONCE)
def test_what_counts_once_is_named_or_never_repeated_in_doubt(kind: Kind) -> None:
    """The law of the table."""
    policy = POLICIES[kind]
    assert policy.known_by is not None or not policy.doubtful or not policy.repeats


@pytest.mark.parametrize("kind", Kind)
def test_what_may_not_be_given_up_in_doubt_waits_for_budget(kind: Kind) -> None:
    """And what may be given up does not queue for it. The canary's asker is one who is in doubt."""
    policy = POLICIES[kind]
    if policy.repeats and kind is not Kind.POLL:
        may_be_given_up = policy.harmless and kind is not Kind.CANARY
        assert policy.spent is (Spent.FAIL if may_be_given_up else Spent.WAIT)
    else:
        assert policy.spent is Spent.FREE


@pytest.mark.parametrize("lost", MAY_HAVE_RUN)
def test_where_repetitions_run_again_nothing_goes_after_what_may_have_run(lost: Happened) -> None:
    for kind in (Kind.TRAINING, Kind.CREATE_MODEL):
        assert again(kind, lost) == [True]
        assert again(kind, H.THROTTLED, lost, recognised=False) == [True, False]
    assert again(Kind.SAMPLE, lost, recognised=False) == [True], "drawing twice changes nothing"


@pytest.mark.parametrize("kind", [Kind.HEARTBEAT, Kind.PROBE, Kind.RELAYED])
@pytest.mark.parametrize("happened", Happened)
def test_some_are_never_repeated(kind: Kind, happened: Happened) -> None:
    assert again(kind, happened) == [False]


@pytest.mark.parametrize("kind", SUBMITS)
def test_an_upstream_that_is_away_is_asked_five_times_or_for_as_long_as_promised(
    kind: Kind,
) -> None:
    assert again(kind, *[H.UNSENT] * 5) == [True] * 4 + [False]
    assert all(again(kind, *[H.UNSENT] * 50, persistent=True))
    assert again(kind, H.THROTTLED, *[H.UNSENT] * 4) == [True] * 4 + [False]


@pytest.mark.parametrize("lost", MAY_HAVE_RUN)
def test_once_it_may_have_run_an_absent_upstream_and_an_open_circuit_are_waited_out(
    lost: Happened,
) -> None:
    for kind in (Kind.TRAINING, Kind.CREATE_MODEL, Kind.SAMPLE):
        assert all(again(kind, lost, *[H.UNSENT, H.HELD] * 20))


@pytest.mark.parametrize("kind", [*SUBMITS, Kind.QUESTION, Kind.SESSION])
def test_an_open_circuit_is_told_at_once_while_nothing_has_run(kind: Kind) -> None:
    assert again(kind, H.HELD) == [False]
    if kind in SUBMITS:
        assert again(kind, H.HELD, H.HELD, persistent=True) == [True, True]


@pytest.mark.parametrize("kind", [Kind.QUESTION, Kind.SESSION])
@pytest.mark.parametrize("happened", [*MAY_HAVE_RUN, *NOTHING_RAN])
def test_a_question_is_put_three_times(kind: Kind, happened: Happened) -> None:
    assert again(kind, *[happened] * 3) == [True, True, False]
    assert again(kind, happened, H.HELD) == [True, False]


@pytest.mark.parametrize("kind", [*SUBMITS, Kind.QUESTION, Kind.SESSION])
@pytest.mark.parametrize("refusal", [H.REFUSED, H.BARRED])
def test_a_refusal_ends_it_unless_it_says_otherwise(kind: Kind, refusal: Happened) -> None:
    asked = asking(kind)
    assert asked.again(refusal, 1, told=True)
    assert not asked.again(refusal, 1)
    assert not asked.doubtful


@pytest.mark.parametrize("refusal", [H.REFUSED, H.BARRED])
def test_in_doubt_a_refusal_is_asked_for_again(refusal: Happened) -> None:
    """A gateway may have said it. Refused every time, the same bytes were refused before too."""
    asked = asking(Kind.TRAINING)
    assert asked.again(H.LOST, 1)
    assert [asked.again(refusal, 1) for _ in range(DISBELIEVED)] == [True] * DISBELIEVED
    assert not asked.again(refusal, 1)
    assert asked.doubtful is (refusal is H.BARRED)


def test_what_an_earlier_run_may_have_sent_is_in_doubt_from_the_start() -> None:
    """So it waits for an upstream that is away, and no refusal is believed at once."""
    assert all(again(Kind.TRAINING, *[H.UNSENT, H.HELD] * 20, doubtful=True))
    asked = asking(Kind.TRAINING, doubtful=True)
    assert asked.doubtful
    assert asked.again(H.BARRED, 1)
    assert again(Kind.TRAINING, H.UNSENT, recognised=False, doubtful=True) == [False]


@pytest.mark.parametrize("between", [H.LOST, H.THROTTLED, H.UNSENT])
def test_only_refusals_in_a_row_are_believed(between: Happened) -> None:
    asked = asking(Kind.TRAINING)
    asked.again(H.LOST, 1)
    for happened in [between, *[H.REFUSED] * DISBELIEVED] * 3:
        assert asked.again(happened, 1)
    assert not asked.again(H.REFUSED, 1)


@pytest.mark.parametrize("happened", [H.FAULT, H.THROTTLED])
def test_a_no_ends_what_may_be_given_up_and_nothing_else(happened: Happened) -> None:
    """`x-should-retry: false`; the SDK's training submits go on after it."""
    for kind in (Kind.SAMPLE, Kind.QUESTION, Kind.SESSION):
        assert not asking(kind).again(happened, 1, told=False)
    for kind in (Kind.TRAINING, Kind.CREATE_MODEL):
        assert asking(kind).again(happened, 1, told=False)


def test_patience_ends_it_and_a_wait_for_budget_does_not_count() -> None:
    asked = asking(Kind.TRAINING, patience_s=10)
    assert asked.again(H.LOST, 9.9)
    assert not asked.again(H.LOST, 10)
    assert asked.doubtful
    asked.waited(5)
    assert asked.again(H.LOST, 14.9)
    assert not asked.again(H.LOST, 15)
    assert again(Kind.TRAINING, H.LOST, patience_s=0) == [False]


def test_only_what_was_sent_and_was_not_dated_draws_on_the_budget() -> None:
    for kind in (Kind.TRAINING, Kind.SAMPLE, Kind.QUESTION):
        assert {h for h in Happened if not asking(kind).draws(h)} == {H.HELD, H.THROTTLED}
    assert not any(asking(Kind.POLL).draws(happened) for happened in Happened)


@pytest.mark.parametrize(
    ("status", "happened"),
    [(status, None) for status in (200, 202, 299)]
    + [(status, H.THROTTLED) for status in (402, 429)]
    + [(status, H.FAULT) for status in (408, 500, 502, 503, 504, 599)]
    + [(status, H.REFUSED) for status in (400, 405, 413, 415, 422)]
    + [(status, H.BARRED) for status in (101, 301, 307, 401, 403, 404, 409, 410)],
)
def test_what_an_answer_means(status: int, happened: Happened | None) -> None:
    assert of_status(status) is happened


def test_what_silence_means() -> None:
    """Only a connection that never was proves that nothing was sent."""
    unsent = {fault for fault in Fault if of_fault(fault) is H.UNSENT}
    assert unsent == {Fault.CONNECT, Fault.NOT_SENT}
    assert all(of_fault(fault) is H.LOST for fault in set(Fault) - unsent)


@given(
    st.sampled_from(SUBMITS),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(list(H)), st.sampled_from([None, True, False]))),
)
def test_what_is_given_up_says_truly_whether_it_may_have_run(
    kind: Kind, recognised: bool, persistent: bool, events: list[tuple[Happened, bool | None]]
) -> None:
    """And is never called done while an attempt that may have run has not been answered for."""
    asked = asking(kind, recognised=recognised, persistent=persistent)
    lost = False
    for number, (happened, told) in enumerate(events):
        goes_on = asked.again(happened, 1, told=told)
        lost = lost or happened in MAY_HAVE_RUN
        if goes_on:
            assert recognised or not lost or kind is Kind.SAMPLE
            continue
        if lost and kind is not Kind.SAMPLE and not asked.doubtful:
            assert [h for h, _ in events[: number + 1]].count(H.REFUSED) > DISBELIEVED
        return

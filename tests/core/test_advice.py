"""What an answer says about asking again, read in one place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.advice import MAX_WAIT_S, NO_ADVICE, Advice, advice_of

SENT = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "500"}, 60),
        ({"retry-after": "inf"}, 60),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "9"}, None),
        ({"retry-after-ms": "?", "retry-after": "9"}, 9),
    ],
)
def test_milliseconds_come_before_seconds_and_a_minute_is_the_most(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert advice_of(headers).wait_s == seconds


@pytest.mark.parametrize(
    ("until", "date", "seconds"),
    [
        ("Wed, 21 Oct 2026 07:28:30 GMT", SENT, 30),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", SENT, 30),
        ("Wed, 21 Oct 2026 09:28:30 +0200", SENT, 30),
        ("Wed, 21 Oct 2026 09:28:30 GMT", SENT, 60),
        ("Wed, 21 Oct 2026 07:27:30 GMT", SENT, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "yesterday", None),
        ("Wed, 21 Oct 2026 07:28:30", SENT, None),
        ("Wed, 99 Oct 2026 07:28:30 GMT", SENT, None),
    ],
)
def test_a_date_is_measured_against_the_answers_own(
    until: str, date: str | None, seconds: float | None
) -> None:
    """So the clocks of both sides may differ; a date alone says nothing."""
    headers = {"retry-after": until} | ({} if date is None else {"date": date})
    assert advice_of(headers).wait_s == seconds


@pytest.mark.parametrize(
    ("said", "again"), [("true", True), ("false", False), ("TRUE", None), ("", None)]
)
def test_should_retry_is_read_as_the_sdk_reads_it(said: str, again: bool | None) -> None:
    assert advice_of({"x-should-retry": said}) == Advice(again=again)
    assert advice_of({}) == NO_ADVICE


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text()))
def test_no_header_is_too_odd_to_be_read(headers: dict[str, str]) -> None:
    wait_s = advice_of(headers).wait_s
    assert wait_s is None or 0 < wait_s <= MAX_WAIT_S

import pytest

from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.events import Exchange, Note
from tinkex_proxy.runtime.skew import Skew

DATE, SECONDS = "Tue, 24 Nov 2026 12:00:00 GMT", 1795521600.0


def answered(date: str | None) -> Exchange:
    return Exchange("submit", 200, Outcome.SUCCESS, 0.01, date=date)


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 7.25])
def test_the_upstream_is_ahead_of_us_by_what_its_date_says(ahead: float) -> None:
    skew = Skew(lambda: SECONDS + 0.5 - ahead)
    skew.on_event(answered(DATE))
    assert skew.seconds == ahead


def test_it_is_known_once_told_and_then_told_anew_each_second() -> None:
    now = SECONDS
    skew = Skew(lambda: now)
    skew.on_event(answered(None))
    skew.on_event(Note("info", "no answer at all"))
    assert skew.seconds is None
    skew.on_event(answered(DATE))
    now += 0.9
    skew.on_event(answered(DATE))
    assert skew.seconds == 0.5, "a second's first answer is the nearest to its beginning"
    skew.on_event(answered("Tue, 24 Nov 2026 12:00:01 GMT"))
    assert skew.seconds == pytest.approx(0.6)


@pytest.mark.parametrize(
    "date", ["", "soon", "Tue, 99 Nov 2026 12:00:00 GMT", "Tue, 24 Nov 99999999999 12:00:00 GMT"]
)
def test_what_is_no_date_changes_nothing(date: str) -> None:
    skew = Skew(lambda: SECONDS)
    skew.on_event(answered(DATE))
    skew.on_event(answered(date))
    assert skew.seconds == 0.5

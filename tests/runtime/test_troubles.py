import pytest

from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.runtime.events import (
    BatchLeft,
    CallEnded,
    CallTimed,
    Event,
    Exchange,
    JournalFailed,
    JournalMended,
    ModelsLost,
    Note,
    Shed,
)
from tinkex_proxy.runtime.troubles import KEPT, QUIET_S, Troubles, failed_unseen
from tinkex_proxy.runtime.whose import Whose


def timed(operation: str, code: str) -> CallTimed:
    return CallTimed(operation, code, Timeline(0.0), Whose("r", "k"))


def rows(*events: Event) -> list[tuple[str, str, str, int]]:
    troubles = Troubles()
    for event in events:
        troubles.take(event, 1, 5.0)
    return [(row.kind, row.what, row.said, row.count) for row in troubles.rows()]


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (CallEnded("sample", "circuit_open", 0.1), ("call", "sample", "circuit_open")),
        (timed("sdk_optim_step", "upstream_failed"), ("call", "sdk_optim_step", "upstream_failed")),
        (Exchange("submit", 503, Outcome.FAILURE, 1.0), ("upstream", "submit", "503")),
        (Exchange("poll", None, Outcome.FAILURE, 1.0), ("upstream", "poll", "no answer")),
        (Exchange("submit", 429, Outcome.THROTTLED, 1.0), ("upstream", "submit", "429")),
        (ModelsLost("s", 2, "410"), ("upstream", "session of 2 models", "410")),
        (Shed("calls"), ("proxy", "admission", "no room for more (calls)")),
        (
            JournalFailed("disk full"),
            ("proxy", "journal", "the journal cannot be written: disk full"),
        ),
        (Note("warning", "odd"), ("proxy", "warning", "odd")),
    ],
)
def test_what_goes_wrong_is_a_row(event: Event, row: tuple[str, str, str]) -> None:
    assert rows(event) == [(*row, 1)]


@pytest.mark.parametrize(
    "event",
    [
        CallEnded("sample", "ok", 0.1),
        CallEnded("sample", "withdrawn", 0.1),
        timed("sdk_optim_step", "ok"),
        Exchange("submit", 200, Outcome.SUCCESS, 1.0),
        Exchange("submit", None, Outcome.NEUTRAL, 1.0),
        ModelsLost("s", 0, "410"),
        Note("info", "started"),
        BatchLeft("m", 1, "idle", 1, 1, 0.0),
        JournalMended(),
    ],
)
def test_what_goes_right_is_none(event: Event) -> None:
    assert rows(event) == []


def test_a_failure_that_is_told_twice_is_one() -> None:
    """A plain call's and a relayed request's failure is told of when its request ends."""
    assert not failed_unseen(timed("sample", "circuit_open"))
    assert not failed_unseen(timed("sdk_submit", "circuit_open"))
    assert not failed_unseen(timed("sdk_optim_step", "withdrawn"))
    assert failed_unseen(timed("sdk_optim_step", "upstream_failed"))


def test_like_things_are_one_row_until_it_has_been_quiet() -> None:
    troubles, event = Troubles(), CallEnded("sample", "circuit_open", 0.1)
    troubles.take(event, 1, 100.0)
    troubles.take(event, 2, 101.0)
    troubles.take(event, 40, 101.0 + QUIET_S)
    latest, first = troubles.rows()
    assert (first.count, first.first_at, first.last_at, first.slot) == (2, 100.0, 101.0, 2)
    assert (latest.count, latest.first_at) == (1, 101.0 + QUIET_S)
    assert latest.id != first.id


def test_whoever_looks_again_gets_what_happened_again() -> None:
    troubles = Troubles()
    troubles.take(CallEnded("sample", "draining", 0.1), 1, 1.0)
    troubles.take(CallEnded("forward", "draining", 0.1), 1, 2.0)
    troubles.take(CallEnded("sample", "draining", 0.1), 7, 3.0)
    assert [row.what for row in troubles.rows()] == ["sample", "forward"]
    assert [row.what for row in troubles.rows(7)] == ["sample"]


def test_only_the_last_are_kept_and_no_text_is_long() -> None:
    troubles = Troubles()
    for number in range(KEPT + 5):
        troubles.take(Note("error", f"{number} " + "x" * 5000), 1, 1.0)
    assert len(troubles.rows()) == KEPT
    assert max(len(row.said) for row in troubles.rows()) <= 300
    assert "0 x" not in {row.said[:3] for row in troubles.rows()}


def test_it_knows_whether_the_journal_fails_now() -> None:
    troubles = Troubles()
    assert not troubles.journal_failing
    troubles.take(JournalFailed("full"), 1, 1.0)
    troubles.take(Shed("calls"), 1, 1.0)
    assert troubles.journal_failing
    troubles.take(JournalMended(), 1, 1.0)
    assert not troubles.journal_failing

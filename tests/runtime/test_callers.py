"""Each SDK caller of a model has a count of its own."""

from types import SimpleNamespace

import pytest

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.runtime import callers
from tinkex_proxy.runtime.callers import GAP_S, Callers
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.journal import Book, NoJournal
from tinkex_proxy.runtime.records import CallerRecord, deleted, written


class Named(str):
    """A call by its name, whose answer is not there."""

    __slots__ = ()
    answer = SimpleNamespace(done=lambda: False)


def recorded(
    clock: ManualClock | None = None, journal: NoJournal | None = None
) -> tuple[Callers, list[str]]:
    """Callers whose works are their own calls, and what went to the lane."""
    queue: list[str] = []
    clock = clock or ManualClock()
    book = Book("me", journal or NoJournal())
    made = Callers(
        lambda work, _: Named(work), queue.extend, clock.call_later, book=book, model_id="m"
    )
    return made, queue


def test_each_callers_calls_go_in_the_order_of_its_own_count() -> None:
    shared, queue = recorded()
    assert shared.place("a", 2, "a2").waits
    assert not shared.place("b", 1, "b1").waits
    assert shared.waiting == 1
    assert shared.expected("a") == 1
    assert not shared.place("a", 1, "a1").waits
    assert queue == ["b1", "a1", "a2"]
    assert (shared.waiting, shared.expected("a")) == (0, 3)


def test_a_call_is_awaited_while_others_of_its_caller_wait_for_it() -> None:
    shared, _ = recorded()
    assert not shared.awaits("a", 1)
    shared.place("a", 2, "a2")
    assert shared.awaits("a", 1)
    assert not shared.awaits("a", 3)
    assert not shared.awaits("a", None)
    assert not shared.awaits("b", 1)
    shared.place("a", 1, "a1")
    assert not shared.awaits("a", 3)


def test_a_call_without_a_number_goes_at_once() -> None:
    shared, queue = recorded()
    shared.place("a", 2, "a2")
    assert not shared.place("a", None, "x").waits
    shared.give_back("a", None)
    assert queue == ["x"]


def test_a_number_is_taken_until_it_is_given_back() -> None:
    shared, queue = recorded()
    assert not shared.taken("a", 1)
    shared.place("a", 1, "first")
    assert shared.taken("a", 1)
    assert not shared.taken("b", 1)
    shared.give_back("a", 1)
    shared.give_back("nobody", 1)
    assert not shared.taken("a", 1)
    shared.place("a", 1, "again")
    assert queue == ["first", "again"]


def test_nobody_waits_for_a_call_that_was_refused() -> None:
    shared, queue = recorded()
    assert shared.place("a", 2, "a2").waits
    shared.skip("a", 1)
    assert queue == ["a2"]
    shared.skip("b", 1)
    assert not shared.place("b", 2, "b2").waits


def test_who_has_not_called_is_expected_to_begin_at_the_beginning() -> None:
    assert recorded()[0].expected("a") == 1


def test_names_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(callers, "MAX_CALLERS", 2)
    shared, _ = recorded()
    shared.place("a", 1, "a1")
    shared.place("b", 1, "b1")
    shared.place("a", 2, "a2")
    with pytest.raises(InvalidRequest, match="X-Tinkex-Caller"):
        shared.place("c", 1, "c1")


def test_a_number_that_never_comes_is_waited_for_as_long_as_its_sdk_would_try() -> None:
    clock = ManualClock()
    shared, queue = recorded(clock)
    shared.place("a", 2, "a2")
    shared.place("a", 4, "a4")
    clock.advance(GAP_S - 1)
    assert queue == []
    clock.advance(1)
    assert queue == ["a2"]
    clock.advance(GAP_S)
    assert queue == ["a2", "a4"]
    clock.advance(GAP_S)
    assert clock.pending == 0


def test_a_number_that_came_in_time_is_not_given_up() -> None:
    clock = ManualClock()
    shared, queue = recorded(clock)
    shared.place("a", 2, "a2")
    shared.place("a", 1, "a1")
    shared.place("a", 4, "a4")
    clock.advance(GAP_S)
    assert queue == ["a1", "a2"]
    clock.advance(GAP_S)
    assert queue == ["a1", "a2", "a4"]


def test_what_failed_while_it_waited_does_not_go(monkeypatch) -> None:
    """The model died: its calls are answered, and must not come upon the lane."""
    shared, queue = recorded()
    shared.place("a", 2, "a2")
    monkeypatch.setattr(Named, "answer", SimpleNamespace(done=lambda: True))
    shared.skip("a", 1)
    assert queue == []


def count(caller: str, expected: int, *reopened: int) -> CallerRecord:
    return CallerRecord("me", "m", caller, expected, reopened)


def test_what_leaves_is_to_be_written_as_far_as_it_has_left() -> None:
    """Not as far as it has come: what waits on the lane comes again after a restart."""
    shared, _ = recorded()
    for number in (1, 2, 3):
        shared.place("a", number, f"a{number}")
    shared.place("b", 1, "b1")
    assert shared.leaving("a", 1) == [written(count("a", 2))]
    assert shared.leaving("a", 3) == [written(count("a", 4))]
    assert shared.leaving("a", 2) == [written(count("a", 4))]
    assert shared.leaving("b", 1) == [written(count("b", 2))]
    assert shared.leaving("a", None) == []


def test_a_number_that_had_left_and_came_to_nothing_is_noted(noted) -> None:
    shared, _ = recorded(journal=noted)
    for number in (1, 2, 3, 4):
        shared.place("a", number, f"a{number}")
    for number in (1, 2, 3):
        shared.leaving("a", number)
    shared.give_back("a", 2)
    assert noted.changes == [written(count("a", 4, 2))]
    shared.give_back("a", 4)  # had not left
    shared.give_back("nobody", 1)
    assert len(noted.changes) == 1
    assert shared.leaving("a", 4) == [written(count("a", 5, 2, 4))]


def test_a_count_of_an_earlier_run_is_gone_on_with() -> None:
    shared, queue = recorded()
    shared.restore(count("a", 5, 2))
    assert [shared.taken("a", number) for number in range(1, 7)] == [
        *(True, False, True, True),
        *(False, False),
    ]
    assert shared.expected("a") == 5
    assert not shared.place("a", 2, "a2").waits
    assert shared.place("a", 6, "a6").waits
    assert not shared.place("a", 5, "a5").waits
    assert queue == ["a2", "a5", "a6"]
    assert shared.leaving("a", 2) == [written(count("a", 5))]
    assert shared.leaving("a", 5) == [written(count("a", 6))]


def test_the_counts_of_a_model_that_is_no_more_are_taken_out_once(noted) -> None:
    shared, _ = recorded(journal=noted)
    shared.restore(count("a", 5))
    shared.place("b", 1, "b1")
    shared.leaving("b", 1)
    shared.place("c", 1, "has not left")
    shared.close()
    assert noted.changes == [deleted(count("a", 5)), deleted(count("b", 2))]
    shared.close()
    shared.give_back("a", 1)
    assert len(noted.changes) == 2

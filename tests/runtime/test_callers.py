"""Each SDK caller of a model has a count of its own."""

from types import SimpleNamespace

import pytest

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.runtime import callers
from tinkex_proxy.runtime.callers import GAP_S, Callers
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.journal import Book, NoJournal


class Named(str):
    """A call by its name, whose answer is not there."""

    __slots__ = ()
    answer = SimpleNamespace(done=lambda: False)


def recorded(clock: ManualClock | None = None) -> tuple[Callers, list[str]]:
    """Callers whose works are their own calls, and what went to the lane."""
    queue: list[str] = []
    clock = clock or ManualClock()
    book = Book("me", NoJournal())
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

"""Each SDK caller of a model has a count of its own."""

import pytest

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.runtime import callers
from tinkex_proxy.runtime.callers import Callers


def recorded() -> tuple[Callers, list[str]]:
    """Callers whose works are their own calls, and what went to the lane."""
    queue: list[str] = []
    return Callers(lambda work: work, queue.extend), queue


def test_each_callers_calls_go_in_the_order_of_its_own_count() -> None:
    shared, queue = recorded()
    assert shared.place("a", 2, "a2").waits
    assert not shared.place("b", 1, "b1").waits
    assert shared.waiting == 1
    assert shared.expected("a") == 1
    assert not shared.place("a", 1, "a1").waits
    assert queue == ["b1", "a1", "a2"]
    assert (shared.waiting, shared.expected("a")) == (0, 3)


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

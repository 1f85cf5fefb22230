"""Numbers go in their order, whatever the order they come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.inorder import InOrder


@given(st.permutations(range(1, 9)))
def test_whatever_the_arrival_all_go_once_and_in_order(arrivals: list[int]) -> None:
    order = InOrder[int](1)
    gone: list[int] = []
    for count, number in enumerate(arrivals, 1):
        gone += order.arrive(number, number)
        assert len(gone) + order.held == count
        assert order.expected == len(gone) + 1
    assert gone == list(range(1, 9))


def test_the_first_piece_last_lets_all_go() -> None:
    """As the SDK sends the pieces of one large call."""
    order = InOrder[str](1)
    assert order.arrive(2, "b") == []
    assert order.arrive(3, "c") == []
    assert order.held == 2
    assert order.arrive(1, "a") == ["a", "b", "c"]
    assert (order.held, order.expected) == (0, 4)


def test_a_number_is_taken_while_it_waits_and_after_it_went() -> None:
    order = InOrder[str](1)
    order.arrive(1, "a")
    order.arrive(3, "c")
    assert [order.taken(number) for number in (1, 2, 3, 4)] == [True, False, True, False]
    for number in (1, 3):
        with pytest.raises(ValueError, match=f"number {number} has come before"):
            order.arrive(number, "again")


def test_a_number_that_came_to_nothing_may_come_once_more_and_goes_at_once() -> None:
    order = InOrder[str](1)
    order.arrive(1, "a")
    order.arrive(2, "b")
    order.reopen(1)
    assert not order.taken(1)
    assert order.arrive(1, "a again") == ["a again"]
    assert order.taken(1)
    assert order.expected == 3


def test_one_that_waits_can_be_taken_back() -> None:
    order = InOrder[str](1)
    order.arrive(2, "b")
    order.reopen(2)
    assert (order.held, order.taken(2)) == (0, False)
    assert order.arrive(1, "a") == ["a"]
    assert order.arrive(2, "b") == ["b"]


def test_what_has_not_come_cannot_be_reopened() -> None:
    order = InOrder[str](1)
    order.reopen(5)
    assert order.arrive(5, "e") == []
    assert order.held == 1


def test_nobody_waits_for_a_number_that_was_refused() -> None:
    """An SDK whose call was refused goes on with the next number."""
    order = InOrder[str](1)
    assert order.arrive(3, "c") == []
    assert order.skip(2) == []
    assert order.arrive(1, "a") == ["a", "c"]
    assert order.skip(4) == []
    assert order.arrive(5, "e") == ["e"]


def test_a_refused_number_may_still_come_and_goes_at_once() -> None:
    order = InOrder[str](1)
    assert order.skip(1) == []
    assert not order.taken(1)
    assert order.arrive(1, "better") == ["better"]
    order.skip(3)
    assert order.arrive(3, "better too") == []
    assert order.arrive(2, "b") == ["b", "better too"]


def test_what_has_come_cannot_be_skipped() -> None:
    order = InOrder[str](1)
    order.arrive(1, "a")
    order.arrive(3, "c")
    assert order.skip(1) == order.skip(3) == []
    assert order.taken(1)
    assert order.arrive(2, "b") == ["b", "c"]


def test_a_count_goes_on_where_it_was_with_the_numbers_that_may_come_again() -> None:
    """As an earlier run of the program left it."""
    order = InOrder[str](5, [2, 4])
    assert order.expected == 5
    assert [number for number in range(1, 7) if order.taken(number)] == [1, 3]
    assert order.arrive(4, "d") == ["d"]
    assert order.taken(4)
    assert order.arrive(6, "f") == []
    assert order.arrive(5, "e") == ["e", "f"]


def test_what_may_come_again_is_told_in_order_as_far_as_is_asked() -> None:
    order = InOrder[str](1)
    for number in (1, 2, 3, 4):
        order.arrive(number, "x")
    order.skip(5)
    for number in (4, 1, 3):
        order.reopen(number)
    assert order.reopened(before=4) == [1, 3]
    assert order.reopened(before=9) == [1, 3, 4, 5]
    order.arrive(3, "again")
    assert order.reopened(before=9) == [1, 4, 5]


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["arrive", "skip", "reopen"]))))
def test_a_count_that_is_gone_on_with_says_the_same_of_every_number(deeds) -> None:
    order = InOrder[int](1)
    for number, deed in deeds:
        if deed == "arrive" and not order.taken(number):
            order.arrive(number, number)
        elif deed != "arrive":
            getattr(order, deed)(number)
    gone_on = InOrder[int](order.expected, order.reopened(order.expected))
    for number in range(1, order.expected):
        assert gone_on.taken(number) == order.taken(number)

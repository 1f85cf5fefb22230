"""A 429 is about the key: all of its submits wait, and fewer of them are out at once."""

from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.throttle import Throttle


def sent(throttle: Throttle, count: int) -> None:
    for _ in range(count):
        throttle.went()


def test_nothing_is_held_back_while_nothing_is_refused() -> None:
    throttle = Throttle(3)
    assert (throttle.limit, throttle.held_until(0)) == (3, None)
    sent(throttle, 2)
    assert throttle.may_go(0)
    throttle.went()
    assert not throttle.may_go(0)
    throttle.ended()
    assert throttle.may_go(0)


def test_a_refusal_holds_back_all_until_the_moment_it_names() -> None:
    throttle = Throttle(100)
    sent(throttle, 1)
    throttle.refused(sent_at=9, now=10, wait_s=5)
    throttle.ended()
    assert throttle.held_until(14.9) == 15
    assert not throttle.may_go(14.9)
    assert throttle.may_go(15)
    assert throttle.held_until(15) is None


def test_a_shorter_wait_does_not_shorten_a_longer_one() -> None:
    throttle = Throttle(100)
    throttle.refused(sent_at=0, now=10, wait_s=30)
    throttle.refused(sent_at=0, now=11, wait_s=1)
    assert throttle.held_until(11) == 40


def test_the_time_held_back_is_counted_once_however_many_are_refused() -> None:
    """Overlapping waits are one; what is still to come has not been waited yet."""
    throttle = Throttle(100)
    assert throttle.held_s(5) == 0
    throttle.refused(sent_at=9, now=10, wait_s=5)
    throttle.refused(sent_at=9, now=11, wait_s=6)
    assert throttle.held_s(10) == 0
    assert throttle.held_s(13) == 3
    assert throttle.held_s(17) == throttle.held_s(100) == 7
    throttle.refused(sent_at=100, now=100, wait_s=1)
    assert throttle.held_s(200) == 8


def test_a_refused_burst_halves_what_was_out_once() -> None:
    throttle = Throttle(1000)
    sent(throttle, 40)
    for now in (10.0, 10.1, 10.2):
        throttle.refused(sent_at=9, now=now, wait_s=1)
        throttle.ended()
    assert throttle.limit == 20


def test_a_refusal_of_what_was_sent_after_that_halves_it_again_down_to_one() -> None:
    throttle = Throttle(1000)
    sent(throttle, 4)
    for turn in range(4):
        throttle.refused(sent_at=turn * 10, now=turn * 10 + 1, wait_s=1)
    assert throttle.limit == 1


def test_what_is_admitted_lets_one_more_go_for_as_many_as_there_are() -> None:
    throttle = Throttle(20)
    sent(throttle, 20)
    throttle.refused(sent_at=0, now=1, wait_s=1)
    assert throttle.limit == 10
    for _ in range(11):  # ten, and one for what is lost in rounding
        throttle.admitted()
    assert throttle.limit == 11
    for _ in range(1000):
        throttle.admitted()
    assert throttle.limit == 20


@given(
    st.lists(st.sampled_from(["go", "admitted", "refused", "later"]), max_size=200),
    st.integers(min_value=1, max_value=50),
)
def test_never_more_are_out_than_may_be_and_one_may_always_go_in_the_end(
    events: list[str], most: int
) -> None:
    throttle, now, begun = Throttle(most), 0.0, []
    for event in events:
        if event == "go" and throttle.may_go(now):
            throttle.went()
            begun.append(now)
            assert throttle.out <= throttle.limit <= most
        elif event == "later":
            now += 1
        elif begun and event != "go":
            sent_at = begun.pop(0)
            if event == "admitted":
                throttle.admitted()
            else:
                throttle.refused(sent_at=sent_at, now=now, wait_s=2)
            throttle.ended()
        assert throttle.out == len(begun)
        assert 1 <= throttle.limit <= most
    while begun:
        begun.pop()
        throttle.ended()
    assert throttle.may_go(now + 2)

"""A key repeats no more than a fifth of its requests and ten a second, over ten seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.budget import RetryBudget


def taken(budget: RetryBudget, now: float) -> int:
    """Take all there is."""
    count = 0
    while budget.take(now):
        count += 1
    return count


def test_a_key_without_traffic_may_repeat_ten_times_a_second() -> None:
    """A hundred in ten seconds, at once or spread."""
    budget = RetryBudget()
    assert budget.remaining(0) == 100
    assert taken(budget, 0) == 100
    assert budget.remaining(0) == 0
    assert not budget.take(9.9)


def test_a_fifth_of_the_requests_comes_on_top() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.begun(0)
    assert taken(budget, 5) == 300


def test_what_is_older_than_the_window_earns_nothing_and_costs_nothing() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.begun(0)
    assert taken(budget, 0) == 300
    assert budget.remaining(10) == 0, "a second's slot ages out when all of it is that old"
    assert budget.remaining(11) == 100
    assert taken(budget, 1000) == 100


def test_a_repetition_ages_out_by_its_own_time() -> None:
    budget = RetryBudget(ratio=0, per_s=1)
    assert [budget.take(now) for now in range(10)] == [True] * 10
    assert not budget.take(10.5)
    assert budget.take(11), "the first is older than ten seconds"
    assert not budget.take(11)
    assert budget.take(12)


def test_who_waits_for_the_next_slot_gets_it_in_the_end() -> None:
    budget = RetryBudget()
    assert taken(budget, 0.25) == 100
    assert budget.wait_s(0.25) == pytest.approx(0.75)
    assert budget.wait_s(1.0) == pytest.approx(1.0)
    now, waits = 0.25, 0
    while not budget.take(now):
        now += budget.wait_s(now)
        waits += 1
    assert now == pytest.approx(11)
    assert waits == 11


@pytest.mark.parametrize("per_s", [0, 0.001])
def test_there_is_always_one_to_be_had(per_s: float) -> None:
    """Work that may have run waits for budget, so the wait has to end."""
    budget = RetryBudget(ratio=0, per_s=per_s)
    assert taken(budget, 0) == 1
    assert budget.take(11)


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "take"]), st.floats(0, 3)), max_size=200),
    st.floats(0, 1),
    st.integers(1, 20),
)
def test_no_ten_seconds_hold_more_than_the_rule_says(
    events: list[tuple[str, float]], ratio: float, per_s: int
) -> None:
    """Against the plain lists of all moments; requests count for as long as a slot lives."""
    budget, now = RetryBudget(ratio, per_s), 0.0
    requests: list[float] = []
    repetitions: list[float] = []
    for event, pause in events:
        now += pause
        if event == "begin":
            budget.begun(now)
            requests.append(now)
        elif budget.take(now):
            repetitions.append(now)
            lately = sum(1 for at in repetitions if now - at <= 10)
            earned = sum(1 for at in requests if now - at <= 11)
            assert lately <= per_s * 10 + ratio * earned + 1e-9

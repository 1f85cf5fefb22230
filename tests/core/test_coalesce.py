import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.coalesce import Decision, FlushReason, Item, Limits, Waiting, decide

LIMITS = Limits(linger_s=1.0, idle_s=0.1, max_requests=4, max_datums=10, max_bytes=100)


def waiting(
    *specs: tuple[object, int, int], since: float = 0.0, deadline: float | None = None
) -> list[Waiting]:
    return [
        Waiting(Item(id=n, key=key, datums=datums, size_bytes=size, deadline=deadline), since)
        for n, (key, datums, size) in enumerate(specs)
    ]


def small(count: int) -> list[tuple[object, int, int]]:
    return [("k", 1, 1)] * count


def test_nothing_waits_for_nothing() -> None:
    assert decide([], LIMITS, now=5, busy=False) == Decision(0, None)


def test_what_shares_with_nobody_leaves_at_once_and_alone() -> None:
    queue = waiting((None, 0, 0), ("k", 1, 1))
    assert decide(queue, LIMITS, now=0, busy=True) == Decision(1, FlushReason.ALONE)


@pytest.mark.parametrize("behind", [(None, 0, 0), ("other", 1, 1)])
def test_a_batch_that_cannot_grow_leaves_at_once(behind: tuple[object, int, int]) -> None:
    """A barrier, or a call with another loss, behind the open batch flushes it."""
    queue = waiting(("k", 1, 1), ("k", 1, 1), behind)
    assert decide(queue, LIMITS, now=0, busy=True) == Decision(2, FlushReason.BARRIER)


def test_full_by_requests() -> None:
    decision = decide(waiting(*small(6)), LIMITS, now=0, busy=True)
    assert decision == Decision(4, FlushReason.REQUESTS)


def test_full_by_datums_when_the_next_would_pass_the_limit() -> None:
    queue = waiting(("k", 6, 1), ("k", 5, 1))
    assert decide(queue, LIMITS, now=0, busy=True) == Decision(1, FlushReason.DATUMS)


def test_full_by_datums_when_the_limit_is_met_exactly() -> None:
    queue = waiting(("k", 6, 1), ("k", 4, 1))
    assert decide(queue, LIMITS, now=0, busy=True) == Decision(2, FlushReason.DATUMS)


def test_one_short_of_a_limit_is_not_full() -> None:
    for almost in (("k", 9, 1), ("k", 1, 99)):
        assert decide(waiting(almost), LIMITS, now=0, busy=True).reason is None


def test_full_by_bytes() -> None:
    over = waiting(("k", 1, 60), ("k", 1, 60))
    exact = waiting(("k", 1, 60), ("k", 1, 40))
    assert decide(over, LIMITS, now=0, busy=True) == Decision(1, FlushReason.BYTES)
    assert decide(exact, LIMITS, now=0, busy=True) == Decision(2, FlushReason.BYTES)


def test_one_call_above_a_limit_still_leaves() -> None:
    """A datum that is larger than the limit cannot be made smaller by waiting."""
    queue = waiting(("k", 1, 500), ("k", 1, 1))
    assert decide(queue, LIMITS, now=0, busy=True) == Decision(1, FlushReason.BYTES)


def test_a_lone_caller_of_an_idle_lane_pays_the_quiet_time_only() -> None:
    queue = waiting(*small(1))
    assert decide(queue, LIMITS, now=0.05, busy=False) == Decision(0, None, 0.1)
    assert decide(queue, LIMITS, now=0.1, busy=False) == Decision(1, FlushReason.IDLE)


def test_quiet_time_counts_from_the_last_arrival_but_never_past_the_linger() -> None:
    calls = waiting(*small(2))
    trickle = [calls[0], Waiting(calls[1].item, 0.08)]
    assert decide(trickle, LIMITS, now=0.1, busy=False).ask_at == pytest.approx(0.18)
    late = [calls[0], Waiting(calls[1].item, 0.99)]
    assert decide(late, LIMITS, now=0.995, busy=False).ask_at == 1.0


def test_a_busy_lane_lingers() -> None:
    queue = waiting(*small(2))
    assert decide(queue, LIMITS, now=0.5, busy=True) == Decision(0, None, 1.0)
    assert decide(queue, LIMITS, now=1.0, busy=True) == Decision(2, FlushReason.LINGER)


def test_half_of_a_callers_time_is_the_upstreams() -> None:
    queue = waiting(*small(2), deadline=1.0)
    assert decide(queue, LIMITS, now=0.4, busy=True) == Decision(0, None, 0.5)
    assert decide(queue, LIMITS, now=0.5, busy=True) == Decision(2, FlushReason.DEADLINE)


def test_where_two_moments_are_the_same_the_batchs_own_reason_is_told() -> None:
    queue = waiting(*small(2), deadline=2.0)
    assert decide(queue, LIMITS, now=1.0, busy=True) == Decision(2, FlushReason.LINGER)


def test_half_of_the_time_counts_from_the_callers_arrival() -> None:
    queue = waiting(*small(1), since=100.0, deadline=101.0)
    assert decide(queue, LIMITS, now=100.0, busy=True).ask_at == 100.5


def test_draining_flushes() -> None:
    decision = decide(waiting(*small(2)), LIMITS, now=0, busy=True, draining=True)
    assert decision == Decision(2, FlushReason.DRAIN)


@pytest.mark.parametrize(("gathered", "leave"), [(1, 1), (2, 2), (3, 2), (5, 4)])
def test_preferred_sizes_cut_a_batch_that_leaves_with_room_to_spare(
    gathered: int, leave: int
) -> None:
    limits = Limits(linger_s=1, max_requests=8, preferred_datums=(2, 4))
    decision = decide(waiting(*small(gathered)), limits, now=1, busy=True)
    assert decision == Decision(leave, FlushReason.LINGER)


def test_one_datum_may_be_a_preferred_size() -> None:
    limits = Limits(linger_s=1, max_requests=8, preferred_datums=(1,))
    assert decide(waiting(*small(3)), limits, now=1, busy=True).take == 1


items = st.builds(
    lambda key, datums, size: (key, datums, size),
    st.sampled_from(["a", "b", None]),
    st.integers(1, 12),
    st.integers(0, 120),
)


@given(st.lists(items, min_size=1, max_size=12), st.floats(0, 3), st.booleans())
def test_no_batch_mixes_keys_or_passes_a_limit(
    specs: list[tuple[object, int, int]], now: float, busy: bool
) -> None:
    """Whatever waits: one key, within every limit unless it is a single call; or a time to ask."""
    queue = waiting(*specs)
    decision = decide(queue, LIMITS, now=now, busy=busy)
    if decision.reason is None:
        assert decision.ask_at is not None
        assert decision.ask_at > now
        assert decide(queue, LIMITS, now=decision.ask_at, busy=busy).reason is not None
        return
    taken = [w.item for w in queue[: decision.take]]
    assert taken
    if len(taken) > 1:
        assert {item.key for item in taken} == {taken[0].key}
        assert taken[0].key is not None
        assert len(taken) <= LIMITS.max_requests
        assert sum(item.datums for item in taken) <= LIMITS.max_datums
        assert sum(item.size_bytes for item in taken) <= LIMITS.max_bytes

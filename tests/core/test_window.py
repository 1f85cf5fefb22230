from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.window import SLOTS, Counts, Window


def test_what_ended_a_whole_window_ago_is_forgotten() -> None:
    window = Window(10)
    window.add(0.0, failed=True, slow=False)
    window.add(5.0, failed=False, slow=True)
    assert window.counts(9.9) == Counts(2, 1, 1)
    assert window.counts(10.0) == Counts(1, 0, 1)
    assert window.counts(15.0) == Counts(0, 0, 0)


def test_a_long_silence_empties_it() -> None:
    window = Window(10)
    window.add(3.0, failed=True, slow=True)
    assert window.counts(1e9) == Counts(0, 0, 0)
    window.add(1e9, failed=True, slow=False)
    assert window.counts(1e9) == Counts(1, 1, 0)


def test_it_can_be_emptied() -> None:
    window = Window(10)
    window.add(3.0, failed=True, slow=True)
    window.clear()
    assert window.counts(3.0) == Counts(0, 0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=60),
    st.integers(-1000, 1000),
)
def test_it_counts_what_a_list_counts_to_a_tenth_of_the_window(calls, start) -> None:
    """Against a plain list; moments are tenths of a window, so that both mean the same slots."""
    window, seen, now = Window(SLOTS), [], start
    for step, failed, slow in calls:
        now += step
        window.add(float(now), failed=failed, slow=slow)
        seen.append((now, failed, slow))
        kept = [one for one in seen if one[0] > now - SLOTS]
        expected = Counts(len(kept), sum(f for _, f, _ in kept), sum(s for _, _, s in kept))
        assert window.counts(float(now)) == expected


def test_a_moment_between_two_slots_is_the_later_ones() -> None:
    window = Window(10)
    window.add(0.5, failed=True, slow=False)
    window.add(1.0, failed=True, slow=False)
    assert window.counts(10.0) == Counts(1, 1, 0)


def test_all_of_a_slot_leaves_at_once() -> None:
    window = Window(10)
    for _ in range(3):
        window.add(0.0, failed=True, slow=True)
    assert window.counts(10.0) == Counts(0, 0, 0)


def test_a_window_of_any_length_has_ten_slots() -> None:
    window = Window(60)
    window.add(1.0, failed=False, slow=True)
    window.add(7.0, failed=True, slow=False)
    assert window.counts(59.9) == Counts(2, 1, 1)
    assert window.counts(60.0) == Counts(1, 1, 0)
    assert window.counts(66.0) == Counts(0, 0, 0)


def test_slots_may_be_shorter_than_a_second() -> None:
    window = Window(1)
    window.add(0.05, failed=True, slow=False)
    assert window.counts(0.95) == Counts(1, 1, 0)
    assert window.counts(1.05) == Counts(0, 0, 0)


def test_the_clocks_zero_is_a_moment_like_any_other() -> None:
    window = Window(10)
    window.add(-0.5, failed=True, slow=False)
    window.add(0.5, failed=False, slow=False)
    assert window.counts(9.0) == Counts(1, 0, 0)

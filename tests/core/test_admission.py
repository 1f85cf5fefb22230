"""What is taken on and what is shed, and that no bound becomes a trap."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinkex_proxy.core.admission import EARLY_SHARE, Admission, Bound, Bounds, Usage

BOUNDS = Bounds(max_bytes=100, max_calls=3, max_lane_depth=2)


def test_bytes_up_to_the_bound_are_held_and_no_more() -> None:
    admission = Admission(BOUNDS)
    assert admission.hold("a", 60) is None
    assert admission.hold("b", 41) is Bound.BYTES
    assert admission.hold("b", 40) is None
    assert admission.hold("b", 1, own=40) is Bound.BYTES
    assert (admission.total, admission.of("a")) == (Usage(100, 0), Usage(60, 0))
    admission.give_back("a", 60, 0)
    assert admission.hold("b", 60) is None


def test_a_call_that_is_alone_is_not_shed_for_its_size() -> None:
    """It could come for ever otherwise; nor may it be shed as it grows."""
    admission = Admission(BOUNDS)
    assert admission.hold("a", 150) is None
    assert admission.hold("a", 50, own=150) is None
    assert admission.hold("b", 1) is Bound.BYTES


def test_what_was_taken_on_before_is_never_shed() -> None:
    admission = Admission(BOUNDS)
    assert admission.hold("a", 90) is None
    assert admission.hold("a", 90, owed=True, early=True) is None
    assert admission.total.size_bytes == 180


def test_pieces_that_came_early_leave_room_for_the_one_they_wait_for() -> None:
    """Not even alone may they fill everything: what they wait for would never be read."""
    admission = Admission(BOUNDS)
    most = int(100 * EARLY_SHARE)
    assert admission.hold("a", most + 1, early=True) is Bound.BYTES
    assert admission.hold("a", most, early=True) is None
    assert admission.hold("a", 1, early=True) is Bound.BYTES
    assert admission.hold("a", 100 - most) is None


def test_a_call_that_has_come_whole_is_taken_on_at_once_or_not_at_all() -> None:
    admission = Admission(BOUNDS)
    assert admission.whole("a", 150) is None, "alone it is not shed for its size"
    assert admission.whole("b", 1) is Bound.BYTES
    assert admission.whole("b", 0) is None, "what holds nothing is not shed for bytes"
    admission.give_back("b", 0, 1)
    admission.give_back("a", 150, 1)
    assert [admission.whole("b", 10) for _ in range(4)] == [None, None, None, Bound.CALLS]
    assert (admission.total, admission.of("a")) == (Usage(30, 3), Usage(0, 0))


def test_calls_are_counted_and_one_that_others_wait_for_is_taken_on_regardless() -> None:
    admission = Admission(BOUNDS)
    assert [admission.call("a") for _ in range(4)] == [None, None, None, Bound.CALLS]
    assert admission.call("a", awaited=True) is None
    assert admission.total.calls == 4
    admission.give_back("a", 0, 4)
    assert admission.call("a") is None


def test_a_lane_is_full_when_so_many_wait_for_it() -> None:
    admission = Admission(BOUNDS)
    assert admission.queue(1) is None
    assert admission.queue(2) is Bound.LANE
    assert admission.queue(2, awaited=True) is None


def test_bounds_may_change_and_what_is_held_stays() -> None:
    admission = Admission(BOUNDS)
    assert admission.hold("a", 90) is None
    admission.bounds = Bounds(max_bytes=50)
    assert admission.hold("b", 1) is Bound.BYTES
    assert admission.of("a") == Usage(90, 0)


class Holding(RuleBasedStateMachine):
    """Calls come, grow and end; the sums are always those of what is held, and within bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(BOUNDS)
        self.held: list[tuple[str, int, bool]] = []

    def sum(self, owner: str | None = None) -> int:
        return sum(size for who, size, _ in self.held if owner in {None, who})

    @rule(owner=st.sampled_from("ab"), size=st.integers(1, 70), early=st.booleans())
    def come(self, owner: str, size: int, *, early: bool) -> None:
        limit = int(100 * EARLY_SHARE) if early else 100
        shed = self.admission.hold(owner, size, early=early)
        assert (shed is None) is (self.sum() + size <= limit)
        if shed is None:
            self.held.append((owner, size, early))

    @precondition(lambda self: self.held)
    @rule(more=st.integers(1, 70))
    def grow(self, more: int) -> None:
        owner, size, early = self.held[-1]
        alone = len(self.held) == 1
        shed = self.admission.hold(owner, more, own=size)
        assert (shed is None) is (alone or self.sum() + more <= 100)
        if shed is None:
            self.held[-1] = (owner, size + more, early)

    @precondition(lambda self: self.held)
    @rule(choice=st.integers(0, 1000))
    def end(self, choice: int) -> None:
        owner, size, _ = self.held.pop(choice % len(self.held))
        self.admission.give_back(owner, size, 0)

    @invariant()
    def the_sums_are_right(self) -> None:
        assert self.admission.total.size_bytes == self.sum()
        for owner in "ab":
            assert self.admission.of(owner).size_bytes == self.sum(owner)
        assert len(self.admission._owners) == len({owner for owner, _, _ in self.held})


TestHolding = Holding.TestCase

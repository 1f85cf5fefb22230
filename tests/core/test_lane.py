import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinkex_proxy.core.coalesce import FlushReason, Item, Limits
from tinkex_proxy.core.lane import Batch, Lane

LIMITS = Limits(linger_s=1.0, idle_s=0.1, max_requests=4, max_datums=10, max_bytes=100)


def item(number: int, key: object = "k", datums: int = 1) -> Item:
    return Item(id=number, key=key, datums=datums, size_bytes=1)


def lane_with(*items: Item) -> Lane:
    lane = Lane(LIMITS)
    for each in items:
        lane.add(each, 0.0)
    return lane


def leave(lane: Lane, now: float = 10.0) -> Batch:
    batch = lane.poll(now)
    assert batch is not None
    return batch


def ids(batch: Batch) -> list[int]:
    return [each.id for each in batch.items]


def test_one_submit_on_the_wire_at_a_time() -> None:
    lane = lane_with(item(1, None), item(2, None))
    first = leave(lane)
    assert lane.on_wire is first
    assert lane.poll(10.0) is None
    assert lane.ask_at(10.0) is None
    lane.admitted()
    assert leave(lane).seq_id == 2


def test_a_result_is_never_awaited_before_the_next_submit() -> None:
    """The barrier leaves as soon as the batch ahead is admitted, results or none."""
    lane = lane_with(item(1), item(2), item(3, None))
    assert ids(leave(lane)) == [1, 2]
    lane.admitted()
    assert lane.owed == 1
    assert ids(leave(lane)) == [3]


def test_coalesced_calls_use_one_number_and_leave_no_gap() -> None:
    lane = lane_with(item(1), item(2), item(3), item(4, None))
    assert leave(lane).seq_id == 1
    lane.admitted()
    assert leave(lane).seq_id == 2
    assert lane.next_seq == 2


def test_a_refused_number_is_used_again() -> None:
    lane = lane_with(item(1, None), item(2, None))
    batch = leave(lane)
    assert lane.refused(bisect=True) == batch.items
    assert leave(lane).seq_id == batch.seq_id


def test_bisection_finds_the_culprit_and_spares_the_rest() -> None:
    """Refused batches go again in halves, ahead of what came later, until one call stands alone."""
    lane = lane_with(*(item(n) for n in (1, 2, 3, 4)), item(5, None))
    admitted, refused = [], []
    while lane.depth or lane.on_wire:
        batch = leave(lane)
        if 3 in ids(batch):
            refused += [each.id for each in lane.refused(bisect=True)]
        else:
            lane.admitted()
            admitted.append((batch.seq_id, ids(batch)))
    assert refused == [3]
    assert admitted == [(1, [1, 2]), (2, [4]), (3, [5])]


def test_a_refusal_that_concerns_everyone_is_not_bisected() -> None:
    lane = lane_with(item(1), item(2))
    batch = leave(lane)
    assert lane.refused(bisect=False) == batch.items
    assert lane.depth == 0


def test_a_number_that_turns_out_to_be_used_is_skipped() -> None:
    """An abandoned submit had been taken after all: the batch goes again under the next number."""
    lane = lane_with(item(1), item(2))
    leave(lane)
    lane.outnumbered()
    again = leave(lane)
    assert (again.seq_id, ids(again), again.reason) == (2, [1, 2], FlushReason.BISECT)


def test_a_caller_that_leaves_in_time_is_taken_out() -> None:
    lane = lane_with(item(1), item(2), item(3))
    assert lane.withdraw(2)
    assert not lane.withdraw(2)
    assert ids(leave(lane)) == [1, 3]
    assert not lane.withdraw(1)


def test_a_caller_may_leave_between_bisections() -> None:
    lane = lane_with(*(item(n) for n in (1, 2, 3)))
    leave(lane)
    lane.refused(bisect=True)
    assert lane.withdraw(3)
    assert not lane.withdraw(9)
    assert lane.withdraw(1)
    assert lane.depth == 1
    assert ids(leave(lane)) == [2]


def test_an_idle_lane_says_when_to_ask() -> None:
    lane = lane_with(item(1))
    assert lane.ask_at(0.0) == pytest.approx(0.1)
    assert lane.ask_at(0.2) == 0.2
    assert Lane(LIMITS).ask_at(0.0) is None
    assert Lane(LIMITS).poll(0.0) is None


def test_settling_makes_the_lane_idle_again() -> None:
    lane = lane_with(item(1, None))
    leave(lane)
    lane.admitted()
    lane.add(item(2), 10.0)
    assert lane.ask_at(10.0) == 11.0
    lane.settled()
    assert lane.ask_at(10.0) == pytest.approx(10.1)


def test_waiting_time_is_the_oldest_callers() -> None:
    lane = Lane(LIMITS)
    assert lane.oldest_since is None
    lane.add(item(1), 3.0)
    lane.add(item(2), 4.0)
    assert lane.oldest_since == 3.0
    assert leave(lane, 7.0).waited_s == 4.0
    lane.refused(bisect=True)
    assert lane.oldest_since == 3.0
    assert lane.ask_at(7.0) == 7.0


def test_closing_gives_back_what_had_not_left() -> None:
    lane = lane_with(*(item(n) for n in (1, 2, 3)), item(4, None))
    leave(lane)
    lane.refused(bisect=True)
    assert [each.id for each in lane.close()] == [1, 2, 3, 4]
    assert lane.depth == 0


def test_draining_and_new_limits_take_effect_at_once() -> None:
    lane = lane_with(item(1))
    lane.set_limits(Limits(linger_s=5.0, idle_s=5.0))
    assert lane.ask_at(0.0) == 5.0
    lane.drain()
    assert leave(lane, 0.0).reason is FlushReason.DRAIN


def test_reporting_on_nothing_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="on the wire"):
        Lane(LIMITS).admitted()


def test_a_lane_goes_on_with_the_answers_an_earlier_run_was_owed() -> None:
    """It is busy, so a call lingers; when they have come it is idle."""
    lane = Lane(LIMITS, next_seq=7)
    lane.resume(owed=2, on_wire=False)
    lane.add(item(1), 0.0)
    assert (lane.owed, lane.on_wire, lane.ask_at(0.0)) == (2, None, 1.0)
    lane.settled()
    lane.settled()
    assert lane.ask_at(0.0) == pytest.approx(0.1)
    assert leave(lane).seq_id == 7


def test_nothing_leaves_before_it_is_known_what_became_of_an_earlier_runs_submit() -> None:
    lane = Lane(LIMITS, next_seq=7)
    lane.resume(owed=0, on_wire=True)
    lane.add(item(1, None), 0.0)
    assert lane.on_wire == Batch(7, (), FlushReason.RESUME, 0.0)
    assert lane.poll(10.0) is lane.ask_at(10.0) is None
    lane.admitted()
    assert (lane.owed, leave(lane).seq_id) == (1, 8)


def test_an_earlier_runs_submit_that_was_refused_leaves_its_number() -> None:
    lane = Lane(LIMITS, next_seq=7)
    lane.resume(owed=0, on_wire=True)
    lane.add(item(1, None), 0.0)
    assert lane.refused(bisect=False) == ()
    assert (lane.owed, leave(lane).seq_id) == (0, 7)


def test_what_is_put_first_leaves_in_order_before_all_else_and_each_by_itself() -> None:
    lane = lane_with(item(1), item(2))
    lane.put_first([item(8), item(9)], 5.0)
    lane.put_first([], 5.0)
    assert (lane.depth, lane.oldest_since, lane.ask_at(5.0)) == (4, 5.0, 5.0)
    left = []
    while lane.depth:
        left.append(ids(leave(lane)))
        lane.admitted()
    assert left == [[8], [9], [1, 2]]


def test_what_is_put_first_may_be_taken_out_again() -> None:
    lane = Lane(LIMITS)
    lane.put_first([item(8), item(9)], 0.0)
    assert lane.withdraw(8)
    assert ids(leave(lane)) == [9]


class LaneLaws(RuleBasedStateMachine):
    """Against a plain list of what was added: nothing lost, nothing twice, order kept."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(LIMITS)
        self.now = 0.0
        self.number = 0
        self.waiting: list[Item] = []
        self.wire: Batch | None = None
        self.sent: list[tuple[int, tuple[Item, ...]]] = []
        self.bad: set[int] = set()
        self.owed = 0

    @rule(key=st.sampled_from(["a", "b", None]), datums=st.integers(1, 6), bad=st.booleans())
    def add(self, key: str | None, datums: int, bad: bool) -> None:
        self.number += 1
        new = Item(id=self.number, key=key, datums=datums, size_bytes=datums * 12)
        if bad:
            self.bad.add(new.id)
        self.lane.add(new, self.now)
        self.waiting.append(new)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        on_wire = self.wire is not None and gone in self.wire.items
        assert self.lane.withdraw(gone.id) is not on_wire
        if not on_wire:
            self.waiting.remove(gone)

    @precondition(lambda self: self.wire is None)
    @rule()
    def poll(self) -> None:
        ask_at = self.lane.ask_at(self.now)
        batch = self.lane.poll(self.now)
        assert (batch is not None) == (ask_at is not None and ask_at <= self.now)
        if batch is None:
            return
        # order kept and no barrier passed: it is the oldest that waits, without a hole
        assert list(batch.items) == self.waiting[: len(batch.items)]
        assert batch.seq_id == len(self.sent) + 1
        if len(batch.items) > 1:
            assert batch.items[0].key is not None
            assert {each.key for each in batch.items} == {batch.items[0].key}
            assert len(batch.items) <= LIMITS.max_requests
            assert batch.datums <= LIMITS.max_datums
            assert sum(each.size_bytes for each in batch.items) <= LIMITS.max_bytes
        self.wire = batch

    @precondition(lambda self: self.wire is not None)
    @rule()
    def upstream_answers(self) -> None:
        assert self.wire is not None
        batch, self.wire = self.wire, None
        if self.bad.isdisjoint(each.id for each in batch.items):
            self.lane.admitted()
            self.owed += 1
            self.sent.append((batch.seq_id, batch.items))
            self.waiting = self.waiting[len(batch.items) :]
            return
        culprits = self.lane.refused(bisect=True)
        assert len(culprits) <= 1
        assert all(each.id in self.bad for each in culprits)
        self.waiting = [each for each in self.waiting if each not in culprits]

    @precondition(lambda self: self.lane.owed > 0)
    @rule()
    def settle(self) -> None:
        self.lane.settled()
        self.owed -= 1

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        on_wire = len(self.wire.items) if self.wire else 0
        assert self.lane.depth == len(self.waiting) - on_wire
        assert self.lane.owed == self.owed
        sent = [each.id for _, items in self.sent for each in items]
        assert sent == sorted(set(sent))

    def teardown(self) -> None:
        """From wherever it stands, the lane empties itself."""
        for _ in range(10_000):
            if self.wire is not None:
                self.upstream_answers()
            elif self.waiting:
                self.now = max(self.now, self.lane.ask_at(self.now) or self.now)
                self.poll()
            else:
                return
        raise AssertionError("the lane never empties")


LaneLaws.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLaneLaws = LaneLaws.TestCase


def test_a_number_used_ahead_of_its_turn_is_passed_over() -> None:
    lane = Lane(Limits(idle_s=0.0))
    assert (lane.next_seq, lane.ahead) == (1, 2)
    lane.use(2)
    assert lane.ahead == 3
    lane.use(3)
    lane.add(Item(id=1, key=None), 0.0)
    assert lane.poll(0.0).seq_id == 1
    lane.admitted()
    assert (lane.next_seq, lane.ahead) == (4, 5)


def test_a_number_used_ahead_is_passed_over_by_one_that_is_outnumbered_too() -> None:
    lane = Lane(Limits(idle_s=0.0))
    lane.use(2)
    lane.add(Item(id=1, key=None), 0.0)
    assert lane.poll(0.0).seq_id == 1
    lane.outnumbered()
    assert lane.poll(0.0).seq_id == 3

import pytest

from tinkex_proxy.core.breaker import (
    TRANSITIONS,
    Force,
    Gate,
    GateSettings,
    Permit,
    Refusal,
    State,
    Verdict,
)
from tinkex_proxy.core.trip import TripSettings

TRIP = TripSettings(failure_threshold=2)
SETTINGS = GateSettings(trip=TRIP, open_for_s=10, max_probes=1, probe_lease_s=30)


class Counter:
    """A circuit that counts failures in a row."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.failures = 0
        self.seen: list[tuple[State, State]] = []

    def record(self, *, ok: bool, threshold: int) -> None:
        self.failures = 0 if ok else self.failures + 1
        if ok and self.state is State.HALF_OPEN:
            self._move(State.CLOSED)
        elif not ok and (self.state is State.HALF_OPEN or self.failures >= threshold):
            self._move(State.OPEN)

    def open(self) -> None:
        self._move(State.OPEN)

    def half_open(self) -> None:
        self._move(State.HALF_OPEN)

    def close(self) -> None:
        self.failures = 0
        if self.state is not State.CLOSED:
            self._move(State.CLOSED)

    def _move(self, after: State) -> None:
        self.seen.append((self.state, after))
        self.state = after


def permit(gate: Gate, now: float) -> Permit:
    leave = gate.acquire(now)
    assert isinstance(leave, Permit)
    return leave


@pytest.fixture
def tripped() -> Gate:
    gate = Gate(Counter(), SETTINGS)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    assert gate.state(0) is State.OPEN
    return gate


def test_a_new_one_has_seen_nothing() -> None:
    gate = Gate(Counter(), SETTINGS)
    assert (gate.passed, gate.stale, gate.transitions, gate.generation) == (0, 0, 0, 0)
    assert (gate.opened_at, gate.forced, gate.moves) == (None, None, [])
    assert gate.state(1e9) is State.CLOSED


def test_open_refuses_until_cooled_and_then_admits_one_probe(tripped: Gate) -> None:
    assert tripped.acquire(9.0) == Refusal(1.0)
    assert permit(tripped, 10).is_probe
    assert tripped.acquire(11) == Refusal(1.0)  # the probe answers soon; its lease ends in 29 s
    assert tripped.acquire(39.5) == Refusal(0.5)
    assert tripped.probes(11) == 1
    assert tripped.probes(40) == 0


def test_state_is_right_without_traffic(tripped: Gate) -> None:
    """An elapsed window reads half-open before anybody calls."""
    assert (tripped.state(9.999), tripped.retry_after_s(9.5)) == (State.OPEN, 0.5)
    assert (tripped.state(10), tripped.retry_after_s(10)) == (State.HALF_OPEN, 0)
    assert tripped.opened_at == 0


def test_several_probes_where_several_are_allowed() -> None:
    settings = GateSettings(trip=TRIP, open_for_s=10, max_probes=2, probe_lease_s=30)
    gate = Gate(Counter(), settings)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    assert [isinstance(gate.acquire(10), Permit) for _ in range(3)] == [True, True, False]


def test_lost_probe_does_not_wedge(tripped: Gate) -> None:
    """A probe that never reports gives its place up when its lease ends, and counts no more."""
    late = permit(tripped, 10)
    assert isinstance(tripped.acquire(39.9), Refusal)
    assert permit(tripped, 40).is_probe
    assert tripped.settle(late, ok=True, now=41) is Verdict.LOST
    assert tripped.settle(late, ok=True, now=41) is Verdict.LOST
    assert tripped.state(41) is State.HALF_OPEN
    assert tripped.stale == 2


def test_cancelled_probe_frees_its_place(tripped: Gate) -> None:
    probe = permit(tripped, 10)
    assert tripped.settle(probe, ok=None, now=11) is Verdict.NEUTRAL
    assert permit(tripped, 11).is_probe


def test_late_failure_does_not_extend_the_window() -> None:
    gate = Gate(Counter(), SETTINGS)
    slow = permit(gate, 0)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    for late in range(1, 4):
        assert gate.settle(slow, ok=False, now=9) is Verdict.LATE
        assert gate.stale == late
    assert gate.retry_after_s(9) == 1


def test_late_success_does_not_close() -> None:
    gate = Gate(Counter(), SETTINGS)
    slow = permit(gate, 0)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    probe = permit(gate, 10)
    assert gate.settle(slow, ok=True, now=11) is Verdict.LATE
    assert gate.state(11) is State.HALF_OPEN
    assert gate.settle(probe, ok=True, now=12) is Verdict.COUNTED
    assert gate.state(12) is State.CLOSED


@pytest.mark.parametrize(("ok", "after"), [(True, State.CLOSED), (False, State.OPEN)])
def test_probe_decides(tripped: Gate, ok: bool, after: State) -> None:
    """One success closes, one failure opens anew, for twice the time."""
    tripped.settle(permit(tripped, 10), ok=ok, now=12)
    assert tripped.state(12) is after
    assert tripped.retry_after_s(12) == (0 if ok else 20)
    assert tripped.opened_at == (None if ok else 12)


def test_neutral_outcomes_move_nothing() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.settle(permit(gate, 0), ok=False, now=0)
    gate.settle(permit(gate, 0), ok=None, now=0)
    gate.settle(permit(gate, 0), ok=False, now=0)
    assert gate.state(0) is State.OPEN
    assert gate.generation == gate.transitions == 1


def test_every_move_is_in_the_table() -> None:
    circuit = Counter()
    gate = Gate(circuit, SETTINGS)
    now = 0.0
    for ok in (False, False, False, True, True, False, False, True):
        now += 41
        gate.settle(permit(gate, now), ok=ok, now=now)
    assert circuit.seen == [(move.before, move.after) for move in gate.moves]
    assert len(gate.moves) == gate.transitions == 8
    assert all(after in TRANSITIONS[before] for before, after in circuit.seen)


def test_what_moved_is_left_to_be_told_with_its_cause(tripped: Gate) -> None:
    tripped.settle(permit(tripped, 10), ok=True, now=11)
    assert [move.cause for move in tripped.moves] == [
        "2 failures in a row",
        "it has been open for its time",
        "probes that succeeded: 1",
    ]


def test_the_time_open_doubles_up_to_the_longest_and_begins_anew_once_closed() -> None:
    """A probe that fails doubles it, a success that closes forgets it."""
    gate = Gate(Counter(), GateSettings(trip=TRIP, open_for_s=30, longest_open_s=300))
    now, spans = 0.0, []
    gate.settle(permit(gate, now), ok=False, now=now)
    for ok in (False, False, False, False, False, False, True, False, False):
        gate.settle(permit(gate, now), ok=ok, now=now)
        spans.append(gate.retry_after_s(now))
        now += spans[-1]
    assert spans == [30, 60, 120, 240, 300, 300, 0, 0, 30]


@pytest.mark.parametrize(("draw", "span"), [(0.0, 20.0), (0.5, 21.0)])
def test_the_first_time_open_is_exact_and_jitter_only_adds_to_the_others(draw, span) -> None:
    gate = Gate(Counter(), SETTINGS)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0, draw=draw)
    assert gate.retry_after_s(0) == gate.due == 10
    gate.settle(permit(gate, 10), ok=False, now=10, draw=draw)
    assert gate.retry_after_s(10) == span


@pytest.mark.parametrize("longest", [10, 1])
def test_jitter_does_not_pass_the_longest_and_the_longest_is_not_below_the_first(longest) -> None:
    gate = Gate(Counter(), GateSettings(trip=TRIP, open_for_s=10, longest_open_s=longest))
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    gate.settle(permit(gate, 10), ok=False, now=10, draw=0.9)
    assert gate.retry_after_s(10) == 10


def test_many_trips_do_not_overflow(tripped: Gate) -> None:
    now = 10.0
    for _ in range(2000):
        tripped.settle(permit(tripped, now), ok=False, now=now)
        now += 300
    assert tripped.retry_after_s(now - 300) == 300


def test_it_closes_after_as_many_probes_as_asked_for() -> None:
    settings = GateSettings(trip=TRIP, open_for_s=10, max_probes=2, successes_to_close=3)
    gate = Gate(Counter(), settings)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    for _ in range(2):
        gate.settle(permit(gate, 10), ok=True, now=10)
        assert gate.state(10) is State.HALF_OPEN
    gate.settle(permit(gate, 10), ok=True, now=10)
    assert gate.state(10) is State.CLOSED


def test_one_failed_probe_undoes_those_that_passed() -> None:
    settings = GateSettings(trip=TRIP, open_for_s=10, successes_to_close=2)
    gate = Gate(Counter(), settings)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    gate.settle(permit(gate, 10), ok=True, now=10)
    gate.settle(permit(gate, 10), ok=False, now=10)
    gate.settle(permit(gate, 30), ok=True, now=30)
    assert gate.state(30) is State.HALF_OPEN


def test_a_failure_rate_trips_what_never_fails_in_a_row() -> None:
    """Four of five fail and a success always comes between: half of ten calls is enough."""
    trip = TripSettings(failure_threshold=5, failure_rate=0.5, minimum_calls=10)
    gate = Gate(Counter(), GateSettings(trip=trip))
    calls = 0
    while gate.state(calls) is State.CLOSED:
        gate.settle(permit(gate, calls), ok=calls % 5 == 4, now=calls)
        calls += 1
    assert calls == 11, "the tenth call is a success, and a success trips nothing"
    assert gate.moves[0].cause == "9 of 11 calls failed within 60 s"


def test_slow_calls_trip_though_they_succeed_and_polls_are_never_slow() -> None:
    trip = TripSettings(slow_s=5, slow_rate=1, minimum_calls=3)
    gate = Gate(Counter(), GateSettings(trip=trip))
    for _ in range(5):
        gate.settle(permit(gate, 0), ok=True, now=50, timed=False)
    for _ in range(3):
        assert gate.state(100) is State.CLOSED
        gate.settle(permit(gate, 100), ok=True, now=105)
    assert gate.state(105) is State.CLOSED, "three of eight"
    gate = Gate(Counter(), GateSettings(trip=trip))
    for _ in range(3):
        gate.settle(permit(gate, 100), ok=True, now=105)
    assert gate.state(105) is State.OPEN
    assert gate.moves[0].cause == "3 of 3 calls took 5 s or longer within 60 s"


def test_a_call_is_slow_by_its_own_time_not_by_the_clocks() -> None:
    trip = TripSettings(slow_s=5, slow_rate=1, minimum_calls=1)
    gate = Gate(Counter(), GateSettings(trip=trip))
    gate.settle(permit(gate, 100), ok=True, now=104)
    assert gate.counts(104).slow == 0


def test_a_closed_circuit_has_forgotten_the_window_that_tripped_it() -> None:
    trip = TripSettings(failure_threshold=100, failure_rate=0.5, minimum_calls=4)
    gate = Gate(Counter(), GateSettings(trip=trip, open_for_s=10))
    for _ in range(4):
        gate.settle(permit(gate, 0), ok=False, now=0)
    gate.settle(permit(gate, 10), ok=True, now=10)
    gate.settle(permit(gate, 10), ok=False, now=10)
    assert gate.state(10) is State.CLOSED


def test_forced_open_nothing_goes_until_a_probe_once_its_time_is_over() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.force(Force.OPEN, 0, ttl_s=60)
    assert (gate.state(59), gate.acquire(59)) == (State.FORCED_OPEN, Refusal(1))
    assert (gate.state(60), gate.forced) == (State.HALF_OPEN, None)
    gate.settle(permit(gate, 60), ok=True, now=61)
    assert gate.state(61) is State.CLOSED
    assert [move.cause for move in gate.moves] == [
        "an operator forced it open",
        "the time for which it was forced is over",
        "probes that succeeded: 1",
    ]


def test_a_probe_that_fails_after_a_forced_time_opens_it_for_the_first_time_exactly() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.force(Force.OPEN, 0, ttl_s=60)
    gate.settle(permit(gate, 60), ok=False, now=60, draw=0.5)
    assert gate.retry_after_s(60) == 10


def test_forced_open_without_a_time_it_stays_so_until_it_is_reset(tripped: Gate) -> None:
    """A success that was under way does not undo what the operator did."""
    probe = permit(tripped, 10)
    tripped.force(Force.OPEN, 10)
    assert tripped.settle(probe, ok=True, now=11) is Verdict.LATE
    assert tripped.acquire(1e9) == Refusal(10)
    assert tripped.opened_at == 10
    tripped.reset()
    assert (tripped.state(1e9), tripped.opened_at) == (State.CLOSED, None)


def test_held_closed_failures_count_and_none_trips_until_its_time_is_over() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.force(Force.CLOSE, 0, ttl_s=60)
    for _ in range(10):
        assert gate.settle(permit(gate, 1), ok=False, now=1) is Verdict.COUNTED
    assert (gate.state(59), gate.failures, gate.forced) == (State.CLOSED, 10, Force.CLOSE)
    assert (gate.state(60), gate.forced) == (State.CLOSED, None)
    gate.settle(permit(gate, 60), ok=False, now=60)
    assert gate.state(60) is State.OPEN


def test_disabled_all_goes_and_nothing_counts_until_its_time_is_over(tripped: Gate) -> None:
    tripped.force(Force.DISABLE, 1, ttl_s=60)
    for _ in range(10):
        assert tripped.settle(permit(tripped, 2), ok=False, now=2) is Verdict.DISABLED
    assert (tripped.state(60.9), tripped.failures) == (State.DISABLED, 0)
    assert tripped.state(61) is State.CLOSED


def test_a_reset_forgets_everything_and_what_was_under_way_counts_no_more(tripped: Gate) -> None:
    tripped.settle(permit(tripped, 10), ok=False, now=10)
    tripped.reset()
    slow = permit(tripped, 10)
    tripped.settle(permit(tripped, 10), ok=False, now=10)
    tripped.reset()
    assert tripped.settle(slow, ok=False, now=10) is Verdict.LATE
    assert (tripped.state(10), tripped.failures, tripped.opened_at) == (State.CLOSED, 0, None)
    for _ in range(2):
        tripped.settle(permit(tripped, 10), ok=False, now=10)
    assert tripped.retry_after_s(10) == 10, "the growth is forgotten too"


def test_switched_off_by_settings_it_is_disabled_unless_it_is_forced() -> None:
    gate = Gate(Counter(), SETTINGS, enabled=False)
    for _ in range(9):
        gate.settle(permit(gate, 0), ok=False, now=0)
    assert gate.state(0) is State.DISABLED
    for what, state in ((Force.OPEN, State.FORCED_OPEN), (Force.CLOSE, State.CLOSED)):
        gate.force(what, 0, ttl_s=5)
        assert gate.state(4) is state
        assert gate.state(5) is State.DISABLED
    gate.force(Force.OPEN, 0)
    gate.reset()
    assert gate.state(0) is State.DISABLED
    assert all(move.after in TRANSITIONS[move.before] for move in gate.moves)


def test_what_ends_after_the_time_of_a_force_began_before_it_moved() -> None:
    """The report comes before anybody looked at the time: the time counts all the same."""
    gate = Gate(Counter(), SETTINGS)
    gate.force(Force.DISABLE, 0, ttl_s=5)
    slow = permit(gate, 1)
    assert gate.settle(slow, ok=False, now=6) is Verdict.LATE
    assert gate.state(6) is State.CLOSED


def test_what_ends_in_the_very_moment_that_a_force_ends_is_late() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.force(Force.DISABLE, 0, ttl_s=5)
    assert gate.settle(permit(gate, 1), ok=False, now=5) is Verdict.LATE


def test_every_move_tells_why() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.force(Force.DISABLE, 0, ttl_s=1)
    gate.tick(1)
    for _ in range(2):
        gate.settle(permit(gate, 1), ok=False, now=1)
    gate.settle(permit(gate, 11), ok=False, now=11)
    gate.force(Force.CLOSE, 11)
    gate.force(Force.OPEN, 11)
    gate.reset()
    assert [move.cause for move in gate.moves] == [
        "an operator disabled it",
        "the time for which it was forced is over",
        "2 failures in a row",
        "it has been open for its time",
        "a probe failed",
        "an operator holds it closed",
        "an operator forced it open",
        "an operator reset it",
    ]


def test_a_probe_of_an_earlier_time_takes_no_place_in_a_later_one() -> None:
    gate = Gate(Counter(), GateSettings(trip=TRIP, open_for_s=10, max_probes=2, probe_lease_s=99))
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    failed, _silent = permit(gate, 10), permit(gate, 10)
    gate.settle(failed, ok=False, now=10)
    assert gate.probes(30) == 0
    assert [permit(gate, 30).is_probe for _ in range(2)] == [True, True]


def test_other_settings_hold_from_the_next_decision_on(tripped: Gate) -> None:
    """A time open that has begun ends when it was to end; what comes after it is new."""
    trip = TripSettings(failure_threshold=1)
    other = GateSettings(trip=trip, open_for_s=100, max_probes=2, successes_to_close=2)
    tripped.reconfigure(other, enabled=True)
    assert (tripped.state(9.9), tripped.state(10)) == (State.OPEN, State.HALF_OPEN)
    probes = [permit(tripped, 10), permit(tripped, 10)]
    assert isinstance(tripped.acquire(10), Refusal)
    tripped.settle(probes[0], ok=True, now=10)
    assert tripped.state(10) is State.HALF_OPEN
    tripped.settle(probes[1], ok=True, now=10)
    assert tripped.state(10) is State.CLOSED
    tripped.settle(permit(tripped, 11), ok=False, now=11)
    assert (tripped.state(11), tripped.retry_after_s(11)) == (State.OPEN, 100)


def test_failures_in_a_row_count_against_the_new_threshold() -> None:
    gate = Gate(Counter(), GateSettings(trip=TripSettings(failure_threshold=9)))
    for _ in range(5):
        gate.settle(permit(gate, 0), ok=False, now=0)
    gate.reconfigure(SETTINGS, enabled=True)
    assert (gate.threshold, gate.state(0)) == (2, State.CLOSED)
    gate.settle(permit(gate, 0), ok=False, now=0)
    assert gate.state(0) is State.OPEN


def test_it_can_be_disabled_and_enabled_while_it_works(tripped: Gate) -> None:
    tripped.moves.clear()
    tripped.reconfigure(SETTINGS, enabled=False)
    assert tripped.state(0) is State.DISABLED
    assert permit(tripped, 0)
    tripped.reconfigure(SETTINGS, enabled=True)
    assert (tripped.state(0), tripped.failures) == (State.CLOSED, 0)
    assert [move.cause for move in tripped.moves] == [
        "the configuration disabled it",
        "the configuration enabled it",
    ]


def test_what_an_operator_has_forced_outlives_other_settings(tripped: Gate) -> None:
    """Its time is over when it was to be over, and then the new settings say what it is."""
    tripped.force(Force.OPEN, now=0, ttl_s=5)
    tripped.reconfigure(SETTINGS, enabled=False)
    assert tripped.state(4.9) is State.FORCED_OPEN
    assert tripped.state(5) is State.DISABLED

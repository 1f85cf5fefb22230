import pytest

from tinkex_proxy.core.breaker import TRANSITIONS, Gate, GateSettings, Permit, Refusal, State

SETTINGS = GateSettings(open_for_s=10, max_probes=1, probe_lease_s=30)


class Counter:
    """A circuit that trips after two failures in a row."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.failures = 0
        self.seen: list[tuple[State, State]] = []

    def record(self, *, ok: bool) -> None:
        self.failures = 0 if ok else self.failures + 1
        if ok and self.state is State.HALF_OPEN:
            self._move(State.CLOSED)
        elif not ok and (self.state is State.HALF_OPEN or self.failures >= 2):
            self._move(State.OPEN)

    def half_open(self) -> None:
        self._move(State.HALF_OPEN)

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


def test_every_state_has_a_row() -> None:
    """Adding a state without saying how to leave it fails here."""
    assert set(TRANSITIONS) == set(State)


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
    gate = Gate(Counter(), GateSettings(open_for_s=10, max_probes=2, probe_lease_s=30))
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    assert [isinstance(gate.acquire(10), Permit) for _ in range(3)] == [True, True, False]


def test_lost_probe_does_not_wedge(tripped: Gate) -> None:
    """A probe that never reports gives its place up when its lease ends, and counts no more."""
    late = permit(tripped, 10)
    assert isinstance(tripped.acquire(39.9), Refusal)
    assert permit(tripped, 40).is_probe
    assert tripped.settle(late, ok=True, now=41) is None
    assert tripped.state(41) is State.HALF_OPEN
    assert tripped.stale == 1


def test_cancelled_probe_frees_its_place(tripped: Gate) -> None:
    probe = permit(tripped, 10)
    assert tripped.settle(probe, ok=None, now=11) is None
    assert permit(tripped, 11).is_probe


def test_late_failure_does_not_extend_the_window() -> None:
    gate = Gate(Counter(), SETTINGS)
    slow = permit(gate, 0)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    gate.settle(slow, ok=False, now=9)
    assert gate.retry_after_s(9) == 1
    assert gate.stale == 1


def test_late_success_does_not_close() -> None:
    gate = Gate(Counter(), SETTINGS)
    slow = permit(gate, 0)
    for _ in range(2):
        gate.settle(permit(gate, 0), ok=False, now=0)
    probe = permit(gate, 10)
    assert gate.settle(slow, ok=True, now=11) is None
    assert gate.state(11) is State.HALF_OPEN
    assert gate.settle(probe, ok=True, now=12) is State.CLOSED


@pytest.mark.parametrize(("ok", "after"), [(True, State.CLOSED), (False, State.OPEN)])
def test_probe_decides(tripped: Gate, ok: bool, after: State) -> None:
    """One success closes, one failure opens anew with a whole window."""
    assert tripped.settle(permit(tripped, 10), ok=ok, now=12) is after
    assert tripped.state(12) is after
    assert tripped.retry_after_s(12) == (0 if ok else 10)
    assert tripped.opened_at == (None if ok else 12)


def test_neutral_outcomes_move_nothing() -> None:
    gate = Gate(Counter(), SETTINGS)
    gate.settle(permit(gate, 0), ok=False, now=0)
    gate.settle(permit(gate, 0), ok=None, now=0)
    assert gate.settle(permit(gate, 0), ok=False, now=0) is State.OPEN
    assert gate.generation == gate.transitions == 1


def test_every_move_is_in_the_table() -> None:
    circuit = Counter()
    gate = Gate(circuit, SETTINGS)
    now = 0.0
    for ok in (False, False, False, True, True, False, False, True):
        now += 11
        gate.settle(permit(gate, now), ok=ok, now=now)
    assert circuit.seen
    assert all(after in TRANSITIONS[before] for before, after in circuit.seen)

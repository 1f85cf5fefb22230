"""The gate against a model of it: whatever is done to either, they say the same.

The model is written from the documented rules and in another manner: it keeps every call that is
under way with the number of the era it began in, and all that counted as a list; it knows of no
generations, leases or windows. Moments are whole seconds.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.core.test_breaker import Counter
from tinkex_proxy.core.breaker import Gate, GateSettings, Permit
from tinkex_proxy.core.circuit import TRANSITIONS, Force
from tinkex_proxy.core.trip import TripSettings

THRESHOLD, MINIMUM, WINDOW_S = 3, 6, 10
OPEN_S, LONGEST_S, PROBES, PASSES, LEASE_S = 5, 20, 2, 3, 7

CHOSEN = GateSettings(
    trip=TripSettings(
        failure_threshold=THRESHOLD, failure_rate=0.5, minimum_calls=MINIMUM, window_s=WINDOW_S
    ),
    open_for_s=OPEN_S,
    longest_open_s=LONGEST_S,
    max_probes=PROBES,
    successes_to_close=PASSES,
    probe_lease_s=LEASE_S,
)


@dataclass
class Call:
    """One under way."""

    era: int
    probe_since: int | None
    placed: bool = True  # a silent probe loses its place when another one takes it


@dataclass
class Model:
    state: str = "closed"
    era: int = 0
    until: int | None = None
    held: bool = False
    trips: int = 0
    passes: int = 0
    row: int = 0
    history: list[tuple[int, bool]] = field(default_factory=list)
    probes: list[Call] = field(default_factory=list)

    def become(self, state: str, until: int | None = None) -> None:
        self.state, self.until = state, until
        self.era += 1
        self.held, self.passes, self.probes = False, 0, []
        if state in {"closed", "disabled"}:
            self.trips, self.row, self.history = 0, 0, []

    def pass_time(self, now: int) -> None:
        if self.until is None or now < self.until:
            return
        if self.held:
            self.held, self.until = False, None
        elif self.state == "disabled":
            self.become("closed")
        else:
            self.become("half_open")

    def trip(self, now: int) -> None:
        span = min(LONGEST_S, OPEN_S * 2**self.trips)
        self.become("open", now + span)
        self.trips += 1

    def begin(self, now: int) -> Call | None:
        self.pass_time(now)
        if self.state in {"open", "forced_open"}:
            return None
        if self.state != "half_open":
            return Call(self.era, None)
        for probe in self.probes:
            probe.placed = now < probe.probe_since + LEASE_S
        self.probes = [probe for probe in self.probes if probe.placed]
        if len(self.probes) == PROBES:
            return None
        self.probes.append(Call(self.era, now))
        return self.probes[-1]

    def end(self, call: Call, ok: bool | None, now: int) -> None:
        self.pass_time(now)
        if call.era != self.era or not call.placed:
            return
        if call.probe_since is not None:
            self.probes = [probe for probe in self.probes if probe is not call]
        if ok is None or self.state == "disabled":
            return
        if self.state == "half_open":
            self.end_probe(ok, now)
        else:
            self.end_call(ok, now)

    def end_probe(self, ok: bool, now: int) -> None:
        if not ok:
            self.trip(now)
            return
        self.passes += 1
        if self.passes == PASSES:
            self.become("closed")

    def end_call(self, ok: bool, now: int) -> None:
        self.history.append((now, ok))
        self.row = 0 if ok else self.row + 1
        if ok or self.held:
            return
        recent = [good for at, good in self.history if at > now - WINDOW_S]
        often = len(recent) >= MINIMUM and recent.count(False) * 2 >= len(recent)
        if self.row >= THRESHOLD or often:
            self.trip(now)

    def force(self, what: Force, until: int | None) -> None:
        state = {Force.OPEN: "forced_open", Force.CLOSE: "closed", Force.DISABLE: "disabled"}[what]
        self.become(state, until)
        self.held = what is Force.CLOSE


class GateAndModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.calm = 0  # steps without an operator, who would else keep it from ever tripping
        self.gate = Gate(Counter(), CHOSEN)
        self.model = Model()
        self.under_way: list[tuple[Permit, Call]] = []

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(many=st.integers(1, 4))
    def calls_begin(self, many: int) -> None:
        for _ in range(many):
            leave, call = self.gate.acquire(self.now), self.model.begin(self.now)
            assert isinstance(leave, Permit) == (call is not None)
            if call is not None:
                assert leave.is_probe == (call.probe_since is not None)
                self.under_way.append((leave, call))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), ok=st.sampled_from([True, False, False, None]))
    def a_call_ends(self, data: st.DataObject, ok: bool | None) -> None:
        self.ended(data.draw(st.integers(0, len(self.under_way) - 1)), ok)

    def ended(self, number: int, ok: bool | None) -> None:
        permit, call = self.under_way.pop(number)
        self.gate.settle(permit, ok=ok, now=self.now)
        self.model.end(call, ok, self.now)

    @rule(oks=st.lists(st.sampled_from([True, False, False, None]), min_size=1, max_size=6))
    def calls_end_at_once(self, oks: list[bool | None]) -> None:
        for ok in oks:
            before = len(self.under_way)
            self.calls_begin(1)
            if len(self.under_way) > before:
                self.ended(-1, ok)

    @rule(oks=st.lists(st.booleans(), min_size=2, max_size=4))
    def it_is_awaited_and_probed(self, oks: list[bool]) -> None:
        if self.model.state == "open":
            self.now = self.model.until
        self.calls_end_at_once(oks)

    @precondition(lambda self: self.calm >= 12)
    @rule(what=st.sampled_from(Force), ttl_s=st.none() | st.integers(1, 9))
    def an_operator_forces_it(self, what: Force, ttl_s: int | None) -> None:
        self.calm = 0
        self.gate.force(what, self.now, ttl_s)
        self.model.force(what, None if ttl_s is None else self.now + ttl_s)

    @precondition(lambda self: self.calm >= 12)
    @rule()
    def an_operator_resets_it(self) -> None:
        self.calm = 0
        self.gate.reset()
        self.model.become("closed")

    @invariant()
    def they_say_the_same(self) -> None:
        self.calm += 1
        self.model.pass_time(self.now)
        assert self.gate.state(self.now).value == self.model.state
        until, state = self.model.until, self.model.state
        left = 0 if until is None or state not in {"open", "forced_open"} else until - self.now
        if state == "forced_open" and until is None:
            left = OPEN_S
        assert self.gate.retry_after_s(self.now) == left
        if state == "closed":
            assert self.gate.failures == self.model.row

    @invariant()
    def its_moves_are_in_the_table_and_follow_one_another(self) -> None:
        moves = self.gate.moves
        assert len(moves) == self.gate.transitions
        assert all(move.after in TRANSITIONS[move.before] for move in moves)
        assert [m.after for m in moves[:-1]] == [m.before for m in moves[1:]]

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        assert self.gate.probes(self.now) <= PROBES


GateAndModel.TestCase.settings = settings(stateful_step_count=60)
TestGateAndModel = GateAndModel.TestCase

"""The last quarter of an hour, in slots of two seconds: what the page and `top` draw.

A listener that counts into the present slot, and forgets slots that are too old. A slot in which
nothing happened does not exist. All is bounded: slots, models and points of their curves, errors,
moves of breakers; codes and reasons come from closed lists.

Whoever looks again asks for what is new since a slot: slots, points and errors carry the number of
the slot they last changed in, and what has that number or a higher one is told (again), so that a
reader replaces all from there on. Slots are numbered from the start of the proxy.

A curve that is full is thinned: neighbours are averaged, so that it goes on showing the whole run
and not its end. Losses are per datum: calls of different sizes are then one curve.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Never

from tinkex_proxy.core.circuit import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.quantiles import Quantiles, Sketch
from tinkex_proxy.core.timeline import Part
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.curves import Curves
from tinkex_proxy.runtime.events import (
    FINE,
    BatchLeft,
    BreakerDropped,
    CallEnded,
    CallTimed,
    Event,
    Exchange,
    JournalFailed,
    JournalMended,
    ModelsLost,
    Note,
    Relayed,
    Repeated,
    Shed,
    Trained,
    Transition,
)
from tinkex_proxy.runtime.hub import ByKind
from tinkex_proxy.runtime.troubles import Troubles, failed_unseen

__all__ = ["KEPT_S", "STEP_S", "History", "Moved", "Slot", "sizes_of"]

# Short enough to see an outage begin, long enough that a slot of a busy proxy says something.
STEP_S: Final = 2.0
# A quarter of an hour: an outage, its cause and what came of it.
KEPT_S: Final = 900.0
# Most bins of a slot's quantiles: 1 % from a millisecond to twenty minutes.
_BINS: Final = 700
# Moves of breakers: three a minute for an hour.
KEPT_MOVES: Final = 200
# Long by design, or nobody's work: these say nothing of how calls fare.
_NO_CALLS: Final = frozenset({"sdk_poll", "sdk_heartbeat"})
# Records that are no counts, and are remembered by themselves or as something that went wrong.
_KEPT: Final = (
    *(BreakerDropped, JournalFailed, JournalMended, ModelsLost, Note, Shed, Transition),
)


@dataclass(slots=True)
class Slot:
    """What happened in one slot.

    Attributes:
        number: its place since the start.
        calls: calls that ended, by code.
        took_ms: how long those took that were answered as asked.
        answered: requests that the upstream answered below 500.
        faults: requests that it answered 5xx.
        silences: requests that got no answer.
        throttled: requests that it told to slow down.
        timed: calls whose time is known, however they ended.
        spent_s: seconds of these, by what they were spent on.
        repeated: requests that were sent again.
        batches: submits of lanes, by how many calls shared one.
        reasons: the same, by why they left.
        datums: datums in them.
    """

    number: int
    calls: Counter[str] = field(default_factory=Counter)
    took_ms: Sketch = field(default_factory=lambda: Sketch(_BINS))
    answered: int = 0
    faults: int = 0
    silences: int = 0
    throttled: int = 0
    timed: int = 0
    spent_s: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(Part, 0.0))
    repeated: int = 0
    batches: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    datums: int = 0

    @property
    def failed(self) -> int:
        """Calls that did not come to what was asked."""
        return sum(number for code, number in self.calls.items() if code not in FINE)

    @property
    def batched_calls(self) -> int:
        """Calls in the submits of lanes."""
        return sum(size * number for size, number in self.batches.items())

    @property
    def waiting_s(self) -> float:
        """Seconds of calls behind other calls, or for leave to submit."""
        return self.spent_s[Part.QUEUE]

    @property
    def upstream_s(self) -> float:
        """Seconds of calls at the upstream."""
        return sum(seconds for part, seconds in self.spent_s.items() if part.upstream)

    @property
    def own_s(self) -> float:
        """Seconds of calls that were the proxy's own."""
        return sum(self.spent_s.values()) - self.upstream_s - self.waiting_s

    def add(self, other: "Slot") -> None:
        """Count what another has counted, to sum several up; of `took_ms` see `History.took_ms`."""
        self.calls += other.calls
        self.answered += other.answered
        self.faults += other.faults
        self.silences += other.silences
        self.throttled += other.throttled
        self.timed += other.timed
        for part, seconds in other.spent_s.items():
            self.spent_s[part] += seconds
        self.repeated += other.repeated
        self.batches += other.batches
        self.reasons += other.reasons
        self.datums += other.datums


@dataclass(frozen=True, slots=True)
class Moved:
    """A breaker moved, or is no more (`after` is None)."""

    slot: int
    at: float
    breaker: str
    before: State | None
    after: State | None
    cause: str


class History(ByKind):
    """Remembers the last quarter of an hour.

    Args:
        clock: says which slot it is.
        wall_clock: gives the time of day in seconds, for people.

    Attributes:
        began_at: the time of day at which slot 0 began.
        curves: the losses of models.
        troubles: what went wrong lately.
    """

    def __init__(self, *, clock: Clock, wall_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._began = clock.now()
        self.began_at = wall_clock()
        self._present = Slot(-1)
        self._slots: deque[Slot] = deque(maxlen=round(KEPT_S / STEP_S))
        self._moves: deque[Moved] = deque(maxlen=KEPT_MOVES)
        self._present_ends = -math.inf
        self.curves = Curves()
        self.troubles = Troubles()
        counted: dict[type[Event], Callable[[Never], None]] = {
            BatchLeft: self._left,
            Repeated: self._repeated,
            Trained: self._trained,
        }
        together: dict[type[Event], Callable[[Sequence[Never]], None]] = {
            Exchange: self._exchanges,
            CallEnded: self._ended,
            CallTimed: self._timed,
            Relayed: self._relayed,
        }
        super().__init__({**dict.fromkeys(_KEPT, self._keep), **counted}, together)

    @property
    def number(self) -> int:
        """Of the present slot."""
        return int((self._clock.now() - self._began) / STEP_S)

    @property
    def into_s(self) -> float:
        """How much of the present slot is over."""
        return (self._clock.now() - self._began) % STEP_S

    def slots(self, after: int = 0) -> list[Slot]:
        """What is remembered from a slot on, oldest first; of what is too old nothing."""
        oldest = max(after, self.number - round(KEPT_S / STEP_S) + 1)
        return [slot for slot in self._slots if slot.number >= oldest]

    def summed(self, window_s: float) -> Slot:
        """The last `window_s` seconds as one slot, without how long calls took."""
        whole = Slot(self.number)
        for slot in self._last(window_s):
            whole.add(slot)
        return whole

    def took_ms(self, window_s: float) -> Quantiles:
        """How long those calls took that were answered as asked in the last `window_s` seconds.

        Merging all that is remembered would hold everybody up for 30 ms: ask for a minute.
        """
        merged = Sketch(_BINS)
        for slot in self._last(window_s):
            merged.merge(slot.took_ms)
        return merged.quantiles()

    def _last(self, window_s: float) -> list[Slot]:
        return self.slots(self.number - round(window_s / STEP_S) + 1)

    def moves(self, after: int = 0) -> list[Moved]:
        """Moves of breakers from a slot on, oldest first."""
        return [moved for moved in self._moves if moved.slot >= after]

    def outage(self, window_s: float) -> tuple[int, float]:
        """How often a breaker opened in the last seconds, and for how long one was open."""
        now = self._wall_clock()
        since = now - window_s
        trips = sum(1 for m in self._moves if m.after is State.OPEN and m.at >= since)
        spans = [(max(begin, since), end) for begin, end in self._open_spans(now) if end > since]
        return trips, sum(end - begin for begin, end in spans)

    def _open_spans(self, now: float) -> Iterator[tuple[float, float]]:
        """From when to when at least one breaker was open."""
        shut: set[str] = set()
        begin = 0.0
        for moved in self._moves:
            was_open = bool(shut)
            if moved.after is State.OPEN:
                shut.add(moved.breaker)
            else:
                shut.discard(moved.breaker)
            if shut and not was_open:
                begin = moved.at
            elif was_open and not shut:
                yield begin, moved.at
        if shut:
            yield begin, now

    def _ended(self, events: Sequence[CallEnded]) -> None:
        """Count calls that failed; how the others fared is told with their time."""
        for ended in events:
            if ended.code == "ok":
                continue
            if ended.operation not in _NO_CALLS:
                self._now().calls[ended.code] += 1
            self._wrong(ended)

    def _timed(self, events: Sequence[CallTimed]) -> None:
        """Count calls that were taken on, and where their time went."""
        calls = [timed for timed in events if timed.operation not in _NO_CALLS]
        if not calls:
            return
        slot = self._now()
        slot.timed += len(calls)
        spent_s, took_ms = slot.spent_s, list[float]()
        for timed in calls:
            line = timed.timeline
            for part, seconds in line.sums().items():
                spent_s[part] += seconds
            if timed.code == "ok":
                took_ms.append(line.whole_s * 1000)
            elif failed_unseen(timed):
                slot.calls[timed.code] += 1
                self._wrong(timed)
        if took_ms:
            slot.calls["ok"] += len(took_ms)
            slot.took_ms.add_all(took_ms)

    def _relayed(self, events: Sequence[Relayed]) -> None:
        """Count calls that were relayed and answered."""
        slot = self._now()
        slot.timed += len(events)
        slot.calls["ok"] += len(events)
        slot.spent_s[Part.PROXY] += sum([call.left - call.began for call in events])
        slot.spent_s[Part.UPLOAD] += sum([call.answered - call.left for call in events])
        slot.took_ms.add_all([(call.answered - call.began) * 1000 for call in events])

    def _exchanges(self, events: Sequence[Exchange]) -> None:
        judged = [event for event in events if event.outcome is not Outcome.NEUTRAL]
        if not judged:
            return
        slot = self._now()
        for exchange in judged:
            if exchange.outcome is Outcome.SUCCESS:
                slot.answered += 1
                continue
            if exchange.outcome is Outcome.THROTTLED:
                slot.throttled += 1
            elif exchange.status is None:
                slot.silences += 1
            else:
                slot.faults += 1
            self._wrong(exchange)

    def _repeated(self, repeated: Repeated) -> None:
        self._now().repeated += repeated.sent

    def _trained(self, event: Trained) -> None:
        each = event.loss / max(1, event.datums)
        self.curves.add(event.model_id, self.number, self._wall_clock(), each)

    def _left(self, left: BatchLeft) -> None:
        slot = self._now()
        slot.batches[left.requests] += 1
        slot.reasons[left.reason] += 1
        slot.datums += left.datums

    def _keep(self, event: Event) -> None:
        """Remember what is no count."""
        number, at = self.number, self._wall_clock()
        match event:
            case Transition():
                moved = (event.breaker, event.before, event.after, event.cause)
                self._moves.append(Moved(number, at, *moved))
            case BreakerDropped():
                self._moves.append(Moved(number, at, event.breaker, None, None, ""))
            case _:
                self.troubles.take(event, number, at)

    def _wrong(self, event: Event) -> None:
        """Keep a row of what went wrong, if this did."""
        self.troubles.take(event, self.number, self._wall_clock())

    def _now(self) -> Slot:
        """The present slot."""
        now = self._clock.now()
        if now >= self._present_ends:
            number = int((now - self._began) / STEP_S)
            if self._present.number != number:
                self._present = Slot(number)
                self._slots.append(self._present)
            self._present_ends = self._began + (number + 1) * STEP_S
        return self._present


def sizes_of(batches: Mapping[int, int]) -> list[tuple[str, int]]:
    """Batches by size, in bars: one for each size up to 10, then one for each doubling."""
    bars: dict[int, int] = {}
    for size, number in batches.items():
        top = size if size <= 10 else 1 << (size - 1).bit_length()
        bars[top] = bars.get(top, 0) + number
    return [(_bar(top), bars[top]) for top in sorted(bars)]


def _bar(top: int) -> str:
    return str(top) if top <= 10 else f"{max(11, top // 2 + 1)}-{top}"

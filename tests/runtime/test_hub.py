import inspect
import re
from collections.abc import Sequence
from typing import get_args

import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import CallCut, Event, Note
from tinkex_proxy.runtime.feed import BreakerFeed, SnapshotFeed
from tinkex_proxy.runtime.hub import GATHERED_S, MOST, ByKind, Hub
from tinkex_proxy.runtime.metrics import JournalMetrics


class Broken:
    def on_event(self, event: Event) -> None:
        raise RuntimeError("listener")


class Kept:
    def __init__(self) -> None:
        self.seen: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.seen.append(event)


def test_a_listener_that_raises_breaks_nobody() -> None:
    """The call goes on, the other listeners hear it, the fault is reported."""
    kept, reported = Kept(), []
    hub = Hub([Broken(), kept], reported.append)
    hub.tell(Note("info", "hello"))
    assert kept.seen == [Note("info", "hello")]
    assert [str(error) for error in reported] == ["listener"]


def test_who_wants_only_some_kinds_is_told_of_no_others() -> None:
    class Choosy(Kept):
        KINDS = frozenset({CallCut})

    choosy, kept = Choosy(), Kept()
    hub = Hub([choosy, kept], lambda error: None)
    for event in (Note("info", "hello"), cut := CallCut(2), Note("info", "again")):
        hub.tell(event)
    assert choosy.seen == [cut]
    assert len(kept.seen) == 3


def test_who_has_a_method_for_each_kind_is_told_there() -> None:
    cuts = []
    sorted_out = ByKind({CallCut: cuts.append})
    hub = Hub([sorted_out], lambda error: None)
    for event in (Note("info", "hello"), cut := CallCut(2)):
        hub.tell(event)
        sorted_out.on_event(event)
    assert cuts == [cut, cut]


class Together(ByKind):
    """Takes cuts together, and notes how many at a time."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        super().__init__({Note: lambda _: None}, {CallCut: self._take})

    def _take(self, cuts: Sequence[CallCut]) -> None:
        self.taken.append([cut.parts for cut in cuts])


def test_what_is_taken_together_is_gathered_for_a_moment() -> None:
    together, kept, clock = Together(), Kept(), ManualClock()
    hub = Hub([together, kept], print, clock.call_later)
    for parts in (1, 2):
        hub.tell(CallCut(parts))
    assert (together.taken, len(kept.seen)) == ([], 2), "others are told at once"
    clock.advance(GATHERED_S)
    assert together.taken == [[1, 2]]
    clock.advance(60)
    assert (together.taken, clock.pending) == ([[1, 2]], 0)
    hub.tell(CallCut(3))
    clock.advance(GATHERED_S)
    assert together.taken == [[1, 2], [3]]


def test_who_looks_has_it_told_first() -> None:
    together, clock = Together(), ManualClock()
    hub = Hub([together], print, clock.call_later)
    hub.flush()
    hub.tell(CallCut(1))
    hub.flush()
    hub.flush()
    assert together.taken == [[1]]


def test_no_more_is_gathered_than_is_told_in_one_go() -> None:
    together, clock = Together(), ManualClock()
    hub = Hub([together], print, clock.call_later)
    for parts in range(MOST + 1):
        hub.tell(CallCut(parts))
    assert together.taken == [list(range(MOST))]
    clock.advance(GATHERED_S)
    assert together.taken[1:] == [[MOST]]


def test_what_is_told_while_it_is_told_is_told_next() -> None:
    clock, taken = ManualClock(), []

    def take(cuts: Sequence[CallCut]) -> None:
        taken.append(len(cuts))
        if len(taken) == 1:
            hub.tell(CallCut(2))

    hub = Hub([ByKind({}, {CallCut: take})], print, clock.call_later)
    hub.tell(CallCut(1))
    hub.flush()
    clock.advance(GATHERED_S)
    assert taken == [1, 1]


def test_a_listener_that_raises_at_many_breaks_nobody() -> None:
    def broken(_: Sequence[CallCut]) -> None:
        raise RuntimeError("listener")

    together, reported = Together(), []
    hub = Hub([ByKind({}, {CallCut: broken}), together], reported.append, ManualClock().call_later)
    hub.tell(CallCut(1))
    hub.flush()
    assert together.taken == [[1]]
    assert [str(error) for error in reported] == ["listener"]


def test_where_nothing_is_gathered_each_is_told_at_once() -> None:
    together = Together()
    hub = Hub([together], print)
    hub.tell(CallCut(1))
    hub.tell(Note("info", "hello"))
    assert together.taken == [[1]]


@pytest.mark.parametrize("listener", [BreakerFeed, JournalMetrics, SnapshotFeed])
def test_who_says_what_he_wants_wants_all_that_he_takes(listener: type) -> None:
    """Else a kind that is added to the one and not to the other would be lost."""
    source = inspect.getsource(listener)
    taken = {kind for kind in get_args(Event) if takes(source, kind.__name__)}
    assert taken
    assert taken <= listener.KINDS


def takes(source: str, kind: str) -> bool:
    return bool(re.search(rf"(case .*|isinstance\(event, .*)\b{kind}\b", source))

import inspect
import re
from typing import get_args

import pytest

from tinkex_proxy.runtime.events import CallCut, Event, Note
from tinkex_proxy.runtime.feed import BreakerFeed, SnapshotFeed
from tinkex_proxy.runtime.hub import ByKind, Hub
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


@pytest.mark.parametrize("listener", [BreakerFeed, JournalMetrics, SnapshotFeed])
def test_who_says_what_he_wants_wants_all_that_he_takes(listener: type) -> None:
    """Else a kind that is added to the one and not to the other would be lost."""
    source = inspect.getsource(listener)
    taken = {kind for kind in get_args(Event) if takes(source, kind.__name__)}
    assert taken
    assert taken <= listener.KINDS


def takes(source: str, kind: str) -> bool:
    return bool(re.search(rf"(case .*|isinstance\(event, .*)\b{kind}\b", source))

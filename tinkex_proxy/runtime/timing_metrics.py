"""Where calls spent their time, as series: parts, the proxy's own share, and what held them back.

A part that a call did not come to is not observed: the count says how many did, the sum over the
sum of all parts what share of all time it took.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from prometheus_client import CollectorRegistry

from tinkex_proxy.core.timeline import UPSTREAM, Part
from tinkex_proxy.runtime.events import CallTimed, Relayed
from tinkex_proxy.runtime.futures import QUEUE_STATES
from tinkex_proxy.runtime.hub import ByKind
from tinkex_proxy.runtime.metrics import Children
from tinkex_proxy.runtime.series import SERIES, Refused
from tinkex_proxy.runtime.tallies import Ladder, Tally

__all__ = ["TimingMetrics"]


# Seconds by operation and part.
_Spent: TypeAlias = Mapping[tuple[str, Part], list[float]]


class TimingMetrics(ByKind):
    """Counts the parts of calls.

    Args:
        registry: where the series are kept.
        refused: counts updates of what is beyond a bound.
    """

    def __init__(self, registry: CollectorRegistry, refused: Refused | None = None) -> None:
        refused = refused or Refused()
        self._parts = _ladders("tinkex_proxy_call_part_seconds", registry, refused)
        self._overhead = _ladders("tinkex_proxy_overhead_seconds", registry, refused)
        name = "tinkex_proxy_upstream_queue_seconds_total"
        row = SERIES[name]
        self._held = Children(Tally(name, row.text, row.labels, registry=registry), refused)
        self._by_operation: dict[str, Mapping[Part, Ladder]] = {}
        super().__init__({}, {CallTimed: self._count, Relayed: self._count_relayed})

    def _count(self, events: Sequence[CallTimed]) -> None:
        spent: defaultdict[tuple[str, Part], list[float]] = defaultdict(list)
        overhead: defaultdict[str, list[float]] = defaultdict(list)
        for event in events:
            named, line = event.operation, event.timeline
            parts, own_s = line.sums(), 0.0
            for part, seconds in parts.items():
                spent[named, part].append(seconds)
                own_s += 0.0 if part in UPSTREAM else seconds
            overhead[named].append(own_s)
            if line.held is not None:
                state = line.held.state
                state = state if state in QUEUE_STATES else QUEUE_STATES[-1]
                self._held[named, state].inc(parts.get(Part.UPSTREAM_QUEUE, 0.0))
        self._observe(spent, overhead)

    def _count_relayed(self, events: Sequence[Relayed]) -> None:
        own: defaultdict[str, list[float]] = defaultdict(list)
        upload: defaultdict[str, list[float]] = defaultdict(list)
        for event in events:
            own[event.operation].append(event.left - event.began)
            upload[event.operation].append(event.answered - event.left)
        spent = {(named, Part.PROXY): each for named, each in own.items()}
        spent |= {(named, Part.UPLOAD): each for named, each in upload.items()}
        self._observe(spent, own)

    def _observe(self, spent: _Spent, overhead: Mapping[str, list[float]]) -> None:
        for (named, part), each in spent.items():
            (self._by_operation.get(named) or self._bind(named))[part].observe_all(each)
        for named, each in overhead.items():
            self._overhead[named].observe_all(each)

    def _bind(self, operation: str) -> Mapping[Part, Ladder]:
        """Make all parts of an operation at its first call.

        Of a series that begins with its first value, a rate does not see that value.
        """
        bound = {part: self._parts[operation, part.value] for part in Part}
        self._by_operation[operation] = bound
        return bound


def _ladders(name: str, registry: CollectorRegistry, refused: Refused) -> Children[Ladder]:
    row = SERIES[name]
    family = Ladder(name, row.text, row.labels, buckets=row.buckets, registry=registry)
    return Children(family, refused)

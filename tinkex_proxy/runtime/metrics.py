"""Prometheus: events in, series out. What series there are stands in `series.py`.

Every app has a registry of its own, so that two in one process do not mix, and a name that is made
twice in one raises. An event costs no look-up of labels: the child of each combination is bound
when it is first seen. Labels come from closed sets, so a family that comes to `MAX_CHILDREN` is a
fault, and further ones are refused and counted rather than filling the memory. A breaker's series
go when it does, for callers may bring a new key with every call: they are as many as
`upstream.max_keys` lets there be breakers.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Generic, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from tinkex_proxy.core.breaker import TRANSITIONS, State
from tinkex_proxy.runtime.events import (
    BatchLeft,
    BreakerDropped,
    CallCut,
    CallEnded,
    CallRecognised,
    CallTimed,
    Event,
    Exchange,
    JournalFailed,
    JournalWritten,
    ModelsLost,
    Relayed,
    Repeated,
    RequestEnded,
    Shed,
    Transition,
)
from tinkex_proxy.runtime.hub import ByKind
from tinkex_proxy.runtime.series import SERIES, Refused
from tinkex_proxy.runtime.tallies import Ladder, Tally
from tinkex_proxy.runtime.trace_context import recorded
from tinkex_proxy.runtime.troubles import of_lane

__all__ = [
    "Children",
    "JournalMetrics",
    "Metrics",
    "Readings",
    "StateCollector",
    "class_of",
    "lag_metric",
    "registry_of_process",
]

# More than any family has: some 20 operations by some 40 codes, most of which never meet.
MAX_CHILDREN: Final = 1000

# Of one series a value, of a family its values by label.
Readings: TypeAlias = Callable[[], float | Iterable[tuple[str, float]]]

_Labels: TypeAlias = str | tuple[str, ...]

M = TypeVar("M", Tally, Ladder)


class Children(dict[str | tuple[str, ...], M], Generic[M]):
    """The series of one family by their labels, each bound when it is first asked for.

    Args:
        family: their family.
        refused: counts updates of what is beyond the bound.
        most: the bound; what is beyond it is a series that nobody sees.
    """

    def __init__(self, family: M, refused: Refused, *, most: int = MAX_CHILDREN) -> None:
        super().__init__()
        self._family: M = family
        self._refused = refused
        self._most = most
        self._nowhere: M = type(family)("nowhere", "What is beyond the bound.", registry=None)

    def __missing__(self, labels: str | tuple[str, ...]) -> M:
        if len(self) >= self._most:
            self._refused.count += 1
            return self._nowhere
        child: M = self._family.labels(*((labels,) if isinstance(labels, str) else labels))
        self[labels] = child
        return child

    def drop(self, *labels: str) -> None:
        """Forget the series with these labels, if there is one."""
        if self.pop(labels if len(labels) > 1 else labels[0], None) is not None:
            self._family.remove(*labels)


class _Maker:
    """Makes series of a registry by the rows of the table."""

    def __init__(self, registry: CollectorRegistry, refused: Refused) -> None:
        self._registry = registry
        self._refused = refused

    def counter(self, name: str) -> Tally:
        return _counter(self._registry, name)

    def ladder(self, name: str) -> Ladder:
        row = SERIES[name]
        return Ladder(name, row.text, row.labels, buckets=row.buckets, registry=self._registry)

    def counters(self, name: str, most: int = MAX_CHILDREN) -> Children[Tally]:
        return Children(self.counter(name), self._refused, most=most)

    def ladders(self, name: str) -> Children[Ladder]:
        return Children(self.ladder(name), self._refused)


def _counter(registry: CollectorRegistry, name: str) -> Tally:
    return Tally(name, SERIES[name].text, SERIES[name].labels, registry=registry)


class Metrics(ByKind):
    """Counts events.

    Args:
        registry: where the series are kept.
        refused: counts updates of what is beyond a bound.
    """

    def __init__(self, registry: CollectorRegistry, refused: Refused | None = None) -> None:
        make = _Maker(registry, refused or Refused())
        self._calls = make.counters("tinkex_proxy_calls_total")
        self._call_seconds = make.ladders("tinkex_proxy_call_duration_seconds")
        self._recognised = make.counters("tinkex_proxy_dedup_hits_total")
        self._exchanges = make.counters("tinkex_proxy_upstream_requests_total")
        self._exchange_seconds = make.ladders("tinkex_proxy_upstream_request_duration_seconds")
        self._flushes = make.counters("tinkex_proxy_batch_flushes_total")
        self._requests = make.ladder("tinkex_proxy_batch_requests")
        self._datums = make.ladder("tinkex_proxy_batch_datums")
        self._bytes = make.ladder("tinkex_proxy_batch_bytes")
        self._waits = make.ladder("tinkex_proxy_batch_wait_seconds")
        self._cut = make.counter("tinkex_proxy_batch_split_total")
        transitions = "tinkex_proxy_circuit_breaker_transitions_total"
        self._transitions = make.counters(transitions, most=sys.maxsize)
        self._retries = make.counters("tinkex_proxy_retries_total")
        self._unretried = make.counters("tinkex_proxy_retries_refused_total")
        self._lost = make.counter("tinkex_proxy_models_lost_total")
        self._shed = make.counters("tinkex_proxy_shed_total")
        self._http_requests = make.counters("http_requests_total")
        self._http_seconds = make.ladders("http_request_duration_seconds")
        super().__init__(
            {
                BatchLeft: self._count_batch,
                BreakerDropped: self._dropped,
                CallCut: self._count_cut,
                CallRecognised: self._count_recognised,
                ModelsLost: self._count_lost,
                Repeated: self._count_repeated,
                Shed: self._count_shed,
                Transition: self._moved,
            },
            {
                CallEnded: self._count_calls,
                CallTimed: self._count_timed,
                Exchange: self._count_exchanges,
                Relayed: self._count_relayed,
                RequestEnded: self._count_requests,
            },
        )

    def _count_exchanges(self, events: Sequence[Exchange]) -> None:
        told = (
            (
                ((each.operation, class_of(each.status), each.outcome.label), each.operation),
                each.duration_s,
                recorded(each.trace),
            )
            for each in events
        )
        _count(self._exchanges, self._exchange_seconds, told)

    def _count_timed(self, events: Sequence[CallTimed]) -> None:
        for each in events:
            if of_lane(each):
                self._calls[each.operation, each.code].inc()

    def _count_repeated(self, event: Repeated) -> None:
        counted = self._retries if event.sent else self._unretried
        counted[event.operation, event.reason].inc()

    def _count_recognised(self, event: CallRecognised) -> None:
        self._recognised[event.operation].inc()

    def _count_cut(self, _: CallCut) -> None:
        self._cut.inc()

    def _count_shed(self, event: Shed) -> None:
        self._shed[event.reason].inc()

    def _count_lost(self, event: ModelsLost) -> None:
        self._lost.inc(event.models)

    def _count_calls(self, events: Sequence[CallEnded]) -> None:
        told = (
            (((each.operation, each.code), each.operation), each.duration_s, each.trace_id)
            for each in events
        )
        _count(self._calls, self._call_seconds, told)

    def _count_requests(self, events: Sequence[RequestEnded]) -> None:
        told = (
            (
                ((each.handler, each.method, class_of(each.status)), (each.handler, each.method)),
                each.duration_s,
                each.trace_id,
            )
            for each in events
        )
        _count(self._http_requests, self._http_seconds, told)

    def _count_relayed(self, events: Sequence[Relayed]) -> None:
        alike: defaultdict[tuple[str, str | None, int], list[float]] = defaultdict(list)
        for each in events:
            labels = each.operation, each.handler, each.status
            alike[labels].append(each.ended - each.began)
        for (operation, handler, status), took_s in alike.items():
            self._calls[operation, "ok"].inc(len(took_s))
            self._call_seconds[operation].observe_all(took_s)
            if handler is not None:
                self._http_requests[handler, "POST", class_of(status)].inc(len(took_s))
                self._http_seconds[handler, "POST"].observe_all(took_s)

    def _count_batch(self, left: BatchLeft) -> None:
        self._flushes[left.reason].inc()
        self._requests.observe(left.requests)
        self._waits.observe(left.waited_s)
        if left.datums:
            self._datums.observe(left.datums)
            self._bytes.observe(left.size_bytes)

    def _moved(self, event: Transition) -> None:
        self._transitions[event.breaker, event.before.value, event.after.value].inc()

    def _dropped(self, event: BreakerDropped) -> None:
        for before, afters in TRANSITIONS.items():
            for after in afters:
                self._transitions.drop(event.breaker, before.value, after.value)


_CLASSES: Final = {number: f"{number}xx" for number in range(1, 6)}


@lru_cache(maxsize=1000)  # each call asks twice, and there are no more
def class_of(status: int | None) -> str:
    """The class of a status, such as 4xx; an upstream may answer what is of none, or nothing."""
    return "none" if status is None else _CLASSES.get(status // 100, "other")


def _count(
    tallies: Children[Tally],
    ladders: Children[Ladder],
    told: Iterable[tuple[tuple[_Labels, _Labels], float, str | None]],
) -> None:
    """Count what took so long: in two families, with its labels in each, and its trace if any."""
    alike: defaultdict[tuple[_Labels, _Labels], list[float]] = defaultdict(list)
    for labels, seconds, trace_id in told:
        if trace_id is None:
            alike[labels].append(seconds)
        else:
            tallies[labels[0]].inc()
            ladders[labels[1]].observe(seconds, {"trace_id": trace_id})
    for (of_tally, of_ladder), each in alike.items():
        tallies[of_tally].inc(len(each))
        ladders[of_ladder].observe_all(each)


class JournalMetrics:
    """Counts what the journal writes.

    Args:
        registry: where the series are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = _counter(registry, "tinkex_proxy_journal_records_total")
        name = "tinkex_proxy_journal_write_duration_seconds"
        row = SERIES[name]
        self._seconds = Ladder(name, row.text, buckets=row.buckets, registry=registry)
        name = "tinkex_proxy_journal_failing"
        self._failing = Gauge(name, SERIES[name].text, registry=registry)

    KINDS = frozenset({JournalFailed, JournalWritten})

    def on_event(self, event: Event) -> None:
        """Count one record."""
        match event:
            case JournalWritten():
                self._records.inc(event.records)
                self._seconds.observe(event.duration_s)
                self._failing.set(0)
            case JournalFailed():
                self._failing.set(1)
            case _:
                pass


def lag_metric(registry: CollectorRegistry) -> Ladder:
    """The series of how late the event loop is."""
    name = "tinkex_proxy_event_loop_lag_seconds"
    return Ladder(name, SERIES[name].text, buckets=SERIES[name].buckets, registry=registry)


class StateCollector(Collector):
    """Series that are read off the program at scrape time, so that they are right without traffic.

    Args:
        breakers: gives the snapshots of all breakers.
        readings: by name of a series, what to read: its value, or those of a family by its label.
        build: facts of the build.
        config_hash: names the configuration in force.
    """

    def __init__(
        self,
        breakers: Callable[[], Iterable[Mapping[str, object]]],
        readings: Mapping[str, Readings],
        build: Mapping[str, str],
        config_hash: Callable[[], str],
    ) -> None:
        self._breakers = breakers
        self._readings = readings
        self._build = build
        self._config_hash = config_hash

    @override
    def collect(self) -> Iterable[Metric]:
        """Read everything now."""
        yield from self._of_breakers()
        for name, read in self._readings.items():
            yield _family(name, read())
        for name, facts in (
            ("tinkex_proxy_build_info", self._build),
            ("tinkex_proxy_config_hash_info", {"sha256": self._config_hash()}),
        ):
            yield InfoMetricFamily(name.removesuffix("_info"), SERIES[name].text, value=dict(facts))

    def _of_breakers(self) -> Iterable[Metric]:
        name = "tinkex_proxy_circuit_breaker_state"
        states = StateSetMetricFamily(name, SERIES[name].text, labels=("breaker",))
        rejected, stale = [], []
        for breaker in self._breakers():
            breaker_id, now, counts = str(breaker["id"]), breaker["state"], breaker["counts"]
            states.add_metric([breaker_id], {state.value: state.value == now for state in State})
            if isinstance(counts, Mapping):
                rejected.append((breaker_id, counts["rejected"]))
                stale.append((breaker_id, counts["stale"]))
        yield states
        yield _family("tinkex_proxy_circuit_breaker_rejected_total", rejected)
        yield _family("tinkex_proxy_circuit_breaker_stale_results_total", stale)


def _family(name: str, read: float | Iterable[tuple[str, float]]) -> Metric:
    row = SERIES[name]
    family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    metric = family(name, row.text, labels=row.labels)
    values = [((), read)] if isinstance(read, int | float) else [((at,), n) for at, n in read]
    for labels, value in values:
        metric.add_metric(labels, value)
    return metric


def registry_of_process() -> CollectorRegistry:
    """A registry that has the series of this process: memory, CPU, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry

"""The one file that knows Prometheus: events in, series out.

Every app has a registry of its own, so that two in one process do not mix. Labels come from closed
sets (operations, codes, reasons, states) and from breaker ids, of which there are at most as many
as accounts: a breaker's series go when it does, for callers may bring a new key with every call.
Durations use a ladder of factor √2 from 1 ms to 1,049 s: with the usual buckets the P95 of an 18 s
forward_backward is wrong by 83 to 98 %.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
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
    CallEnded,
    Event,
    Exchange,
    JournalFailed,
    JournalWritten,
    ModelsLost,
    Repeated,
    Shed,
    Transition,
)

__all__ = ["DURATION_BUCKETS", "Family", "JournalMetrics", "Metrics", "StateCollector"]

DURATION_BUCKETS: Final = tuple(round(0.001 * 2 ** (step / 2), 6) for step in range(41))
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_WAITS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)


class Metrics:
    """Counts events.

    Args:
        registry: where the series are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "tinkex_proxy_calls",
            "Plain calls by outcome (ok or the code of their problem).",
            ("operation", "code"),
            registry=registry,
        )
        self._call_seconds = Histogram(
            "tinkex_proxy_call_duration_seconds",
            "Time from a plain call's arrival to its answer.",
            ("operation",),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._exchanges = Counter(
            "tinkex_proxy_upstream_requests",
            "Requests to the upstream by class of answer and by how the breaker judged them.",
            ("operation", "code_class", "outcome"),
            registry=registry,
        )
        self._exchange_seconds = Histogram(
            "tinkex_proxy_upstream_request_duration_seconds",
            "Time from sending a request upstream to its whole answer.",
            ("operation",),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._flushes = Counter(
            "tinkex_proxy_batch_flushes",
            "Upstream submits of lanes by the reason they left.",
            ("reason",),
            registry=registry,
        )
        self._requests = Histogram(
            "tinkex_proxy_batch_requests",
            "Calls in one upstream submit.",
            buckets=_SIZES,
            registry=registry,
        )
        self._datums = Histogram(
            "tinkex_proxy_batch_datums",
            "Datums in one upstream submit.",
            buckets=_SIZES,
            registry=registry,
        )
        self._waits = Histogram(
            "tinkex_proxy_batch_wait_seconds",
            "Time from the first call of a batch to its leaving.",
            buckets=_WAITS,
            registry=registry,
        )
        self._transitions = Counter(
            "tinkex_proxy_circuit_breaker_transitions",
            "Changes of state of the circuit breakers.",
            ("breaker", "from", "to"),
            registry=registry,
        )
        self._retries = Counter(
            "tinkex_proxy_retries",
            "Requests sent again by kind of call (docs/retries.md) and by what came before.",
            ("operation", "reason"),
            registry=registry,
        )
        self._unretried = Counter(
            "tinkex_proxy_retries_refused",
            "Requests not sent again because the key's retry budget was spent.",
            ("operation", "reason"),
            registry=registry,
        )
        self._lost = Counter(
            "tinkex_proxy_models_lost",
            "Models that died with their upstream session.",
            registry=registry,
        )

        self._shed = Counter(
            "tinkex_proxy_shed",
            "Calls turned away by the bound that was used up.",
            ("reason",),
            registry=registry,
        )

    def on_event(self, event: Event) -> None:
        """Count one record."""
        match event:
            case CallEnded():
                self._calls.labels(event.operation, event.code).inc()
                self._call_seconds.labels(event.operation).observe(event.duration_s)
            case Exchange():
                code = "none" if event.status is None else f"{event.status // 100}xx"
                self._exchanges.labels(event.operation, code, event.outcome.value).inc()
                self._exchange_seconds.labels(event.operation).observe(event.duration_s)
            case BatchLeft():
                self._count_batch(event)
            case Transition() | BreakerDropped():
                self._moved(event)
            case Repeated():
                counted = self._retries if event.sent else self._unretried
                counted.labels(event.operation, event.reason).inc()
            case Shed():
                self._shed.labels(event.reason).inc()
            case ModelsLost():
                self._lost.inc(event.models)
            case _:
                pass

    def _count_batch(self, left: BatchLeft) -> None:
        self._flushes.labels(left.reason).inc()
        self._requests.observe(left.requests)
        self._waits.observe(left.waited_s)
        if left.datums:
            self._datums.observe(left.datums)

    def _moved(self, event: Transition | BreakerDropped) -> None:
        if isinstance(event, Transition):
            labels = (event.breaker, event.before.value, event.after.value)
            self._transitions.labels(*labels).inc()
            return
        for before, afters in TRANSITIONS.items():
            for after in afters:
                with contextlib.suppress(KeyError):  # it has not made this move
                    self._transitions.remove(event.breaker, before.value, after.value)


@dataclass(frozen=True, slots=True)
class Family:
    """Several series of one name, read at scrape time.

    Attributes:
        text: the help.
        label: what tells them apart; its values come from a closed set, or go with their account.
        read: gives the value for each label value.
        total: whether it only ever grows.
    """

    text: str
    label: str
    read: Callable[[], Iterable[tuple[str, float]]]
    total: bool = False

    def metric(self, name: str) -> Metric:
        """Read it now."""
        kind = CounterMetricFamily if self.total else GaugeMetricFamily
        family = kind(name, self.text, labels=(self.label,))
        for value, number in self.read():
            family.add_metric([value], number)
        return family


class JournalMetrics:
    """Counts what the journal writes.

    Args:
        registry: where the series are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = Counter(
            "tinkex_proxy_journal_records",
            "Records written to the journal.",
            registry=registry,
        )
        self._seconds = Histogram(
            "tinkex_proxy_journal_write_duration_seconds",
            "Time to write one group of records, until they outlast the process.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._failing = Gauge(
            "tinkex_proxy_journal_failing",
            "Whether the journal cannot be written.",
            registry=registry,
        )

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


class StateCollector(Collector):
    """Series that are read off the program at scrape time, so that they are right without traffic.

    Args:
        breakers: gives the snapshots of all breakers.
        gauges: name and help of each gauge, and what to read.
        build: facts of the build.
        families: name of each series that has a label.
    """

    def __init__(
        self,
        breakers: Callable[[], Iterable[dict[str, object]]],
        gauges: dict[str, tuple[str, Callable[[], float]]],
        build: dict[str, str],
        families: Mapping[str, Family] = MappingProxyType({}),
    ) -> None:
        self._breakers = breakers
        self._gauges = gauges
        self._build = build
        self._families = families

    @override
    def collect(self) -> Iterable[Metric]:
        """Read everything now."""
        states = StateSetMetricFamily(
            "tinkex_proxy_circuit_breaker_state",
            "State of each circuit breaker; closed means that traffic flows.",
            labels=("breaker",),
        )
        for breaker in self._breakers():
            now = breaker["state"]
            known = {state.value: state.value == now for state in State}
            states.add_metric([str(breaker["id"])], known)
        yield states
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        for name, family in self._families.items():
            yield family.metric(name)
        yield InfoMetricFamily("tinkex_proxy_build", "What is running.", value=self._build)

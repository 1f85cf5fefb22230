"""Every series there is, in one table: what is not here is not on `/metrics`.

`metrics.py`, `gauges.py` and the HTTP side make their series from these rows, and docs/metrics.md
is generated from them. Names follow Prometheus: base units, `_total` for what only grows, `_info`
for what does not change. Labels come from closed sets (operations, codes, reasons, states, routes),
or go with their owner: `breaker` and `key_id` with the key's account, of which there are at most
`upstream.max_keys`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["DURATION_BUCKETS", "SERIES", "SNAPSHOT", "Named", "Refused", "Series", "page"]

# Factor √2 from 1 ms to 1,049 s: a quantile is off by 17 % at the most. With the usual buckets, up
# to 10 s, the P95 of an 18 s forward_backward is wrong by 83 to 98 %.
DURATION_BUCKETS: Final = tuple(round(0.001 * 2 ** (step / 2), 6) for step in range(41))
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_BYTES: Final = tuple(4**power for power in range(4, 14))
# The bound on what may hold the loop up is 5 ms, so that is one of them.
_LAGS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_WAITS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30)
# Steps of factor 2: a part is looked at beside the others, and there is one ladder for each part of
# each operation.
_PARTS: Final = tuple(0.001 * 2**step for step in range(21))
# What is ours begins far below what an upstream takes.
_OVERHEAD: Final = tuple(0.0001 * 2**step for step in range(21))

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info", "stateset"]


@dataclass(frozen=True, slots=True)
class Series:
    """One family of series.

    Attributes:
        name: as it is scraped; of a histogram without `_bucket`, `_sum`, `_count`.
        kind: what it is.
        text: its help.
        labels: what tells its series apart.
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_CALLS: Final = (
    Series(
        "tinkex_proxy_calls_total",
        "counter",
        "Calls by outcome: ok, or the code of their problem. An SDK's call on a lane is a request "
        "(sdk_submit) and, once it has its result, a call of its own name (sdk_forward_backward).",
        ("operation", "code"),
    ),
    Series(
        "tinkex_proxy_call_duration_seconds",
        "histogram",
        "Time from a call's arrival to its answer.",
        ("operation",),
        DURATION_BUCKETS,
    ),
    Series(
        "tinkex_proxy_dedup_hits_total",
        "counter",
        "Calls that were repetitions of an earlier one, and got its answer.",
        ("operation",),
    ),
    Series("tinkex_proxy_shed_total", "counter", "Calls turned away, by the bound.", ("reason",)),
    Series(
        "tinkex_proxy_inflight_requests",
        "gauge",
        "Requests of callers that are being received or answered, long polls among them.",
    ),
    Series("tinkex_proxy_inflight_calls", "gauge", "Calls that were taken on and have not ended."),
    Series(
        "tinkex_proxy_inflight_bytes",
        "gauge",
        "Bytes that calls hold: bodies, and what is made of them.",
    ),
    Series(
        "tinkex_proxy_futures_pending",
        "gauge",
        "Calls under way whose answer can be asked for, by operation; those of SDKs are sdk.",
        ("operation",),
    ),
    Series("tinkex_proxy_kept_answers", "gauge", "Answers kept for whoever comes for them."),
    Series("tinkex_proxy_kept_answers_bytes", "gauge", "Bytes of those answers."),
)

_TIME: Final = (
    Series(
        "tinkex_proxy_call_part_seconds",
        "histogram",
        "Where the time of calls went, part by part; the parts of a call sum to its whole. A part "
        "that a call did not come to is not counted.",
        ("operation", "part"),
        _PARTS,
    ),
    Series(
        "tinkex_proxy_overhead_seconds",
        "histogram",
        "Time of calls that was not the upstream's: queue, linger, journal, and our own work.",
        ("operation",),
        _OVERHEAD,
    ),
    Series(
        "tinkex_proxy_upstream_queue_seconds_total",
        "counter",
        "Time for which the upstream held calls back, by the state that it gave last.",
        ("operation", "state"),
    ),
    Series(
        "tinkex_proxy_trace_spans_total",
        "counter",
        "Spans by what became of them: exported to the collector, or dropped.",
        ("outcome",),
    ),
)

_UPSTREAM: Final = (
    Series(
        "tinkex_proxy_upstream_requests_total",
        "counter",
        "Requests to the upstream by class of answer (none: no answer came) and by how the breaker "
        "judged them.",
        ("operation", "code_class", "outcome"),
    ),
    Series(
        "tinkex_proxy_upstream_request_duration_seconds",
        "histogram",
        "Time from sending a request upstream to its whole answer.",
        ("operation",),
        DURATION_BUCKETS,
    ),
    Series(
        "tinkex_proxy_queue_state",
        "gauge",
        "Requests that the upstream holds, by what it last said of them.",
        ("state",),
    ),
    Series(
        "tinkex_proxy_upstream_futures_pending",
        "gauge",
        "Requests that the upstream has taken on and whose result is awaited.",
    ),
    Series(
        "tinkex_proxy_future_age_seconds",
        "gauge",
        "How long the oldest of them has been awaited; 0 without any.",
    ),
    Series(
        "tinkex_proxy_retries_total",
        "counter",
        "Requests sent again by kind of call (docs/retries.md) and by what came before.",
        ("operation", "reason"),
    ),
    Series(
        "tinkex_proxy_retries_refused_total",
        "counter",
        "Requests not sent again because the key's retry budget was spent.",
        ("operation", "reason"),
    ),
    Series(
        "tinkex_proxy_retry_budget_remaining",
        "gauge",
        "Requests that a key could send again now.",
        ("key_id",),
    ),
    Series(
        "tinkex_proxy_held_back_remaining_seconds",
        "gauge",
        "For how much longer no submit of a key goes, as the upstream asked.",
        ("key_id",),
    ),
    Series(
        "tinkex_proxy_held_back_seconds_total",
        "counter",
        "Time for which a key's submits have been held back.",
        ("key_id",),
    ),
    Series(
        "tinkex_proxy_upstream_clock_skew_seconds",
        "gauge",
        "How far the upstream's clock is ahead of ours, to half a second; nothing until it has "
        "answered.",
    ),
    Series("tinkex_proxy_sessions", "gauge", "Upstream sessions kept alive."),
    Series(
        "tinkex_proxy_models_lost_total", "counter", "Models that died with their upstream session."
    ),
)

_LANES: Final = (
    Series("tinkex_proxy_lanes", "gauge", "Lanes of live models."),
    Series("tinkex_proxy_lane_depth", "gauge", "Calls that have not left their lane."),
    Series(
        "tinkex_proxy_batch_flushes_total",
        "counter",
        "Upstream submits of lanes by the reason they left.",
        ("reason",),
    ),
    Series("tinkex_proxy_batch_requests", "histogram", "Calls in one submit.", (), _SIZES),
    Series("tinkex_proxy_batch_datums", "histogram", "Datums in one submit.", (), _SIZES),
    Series(
        "tinkex_proxy_batch_bytes",
        "histogram",
        "Bytes of training data in one submit, as the upstream counts them.",
        (),
        _BYTES,
    ),
    Series(
        "tinkex_proxy_batch_wait_seconds",
        "histogram",
        "Time from the first call of a batch to its leaving.",
        (),
        _WAITS,
    ),
    Series(
        "tinkex_proxy_batch_split_total",
        "counter",
        "Calls too large for one submit, which went in several.",
    ),
)

_BREAKERS: Final = (
    Series(
        "tinkex_proxy_circuit_breaker_state",
        "stateset",
        "State of each circuit breaker; closed means that traffic flows.",
        ("breaker", "tinkex_proxy_circuit_breaker_state"),
    ),
    Series(
        "tinkex_proxy_circuit_breaker_transitions_total",
        "counter",
        "Changes of state of the circuit breakers.",
        ("breaker", "from", "to"),
    ),
    Series(
        "tinkex_proxy_circuit_breaker_rejected_total",
        "counter",
        "Requests that a breaker did not let through.",
        ("breaker",),
    ),
    Series(
        "tinkex_proxy_circuit_breaker_stale_results_total",
        "counter",
        "Outcomes that came too late to count: their breaker had moved since.",
        ("breaker",),
    ),
)

_ITSELF: Final = (
    Series("tinkex_proxy_journal_records_total", "counter", "Records written to the journal."),
    Series(
        "tinkex_proxy_journal_write_duration_seconds",
        "histogram",
        "Time to write one group of records, until they outlast the process.",
        (),
        DURATION_BUCKETS,
    ),
    Series("tinkex_proxy_journal_failing", "gauge", "Whether the journal cannot be written."),
    Series(
        "tinkex_proxy_event_loop_lag_seconds",
        "histogram",
        "How much later than asked for a timer fired, looked at twice a second: what holds up "
        "everybody's calls.",
        (),
        _LAGS,
    ),
    Series(
        "tinkex_proxy_tasks",
        "gauge",
        "Background tasks. A proxy at rest has one for each session, its heartbeat.",
    ),
    Series(
        "tinkex_proxy_series_refused_total",
        "counter",
        "Updates of series, names and models beyond their bounds. Anything but 0 is a fault of the "
        "proxy, or of who uses its snapshot API.",
    ),
    Series("tinkex_proxy_build_info", "info", "What is running.", ("version", "python")),
    Series(
        "tinkex_proxy_config_hash_info",
        "info",
        "The configuration in force, without its secrets: equal hashes are equal settings.",
        ("sha256",),
    ),
)

_HTTP: Final = (
    Series(
        "http_requests_total",
        "counter",
        "HTTP requests by route, method and class of status; none: the caller left first.",
        ("handler", "method", "status"),
    ),
    Series(
        "http_request_duration_seconds",
        "histogram",
        "Time from the head of an HTTP request to the end of its answer; of an endless one (server-"
        "sent events) to its beginning.",
        ("handler", "method"),
        DURATION_BUCKETS,
    ),
)

_PROCESS: Final = (
    Series("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    Series("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    Series(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
    ),
    Series(
        "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."
    ),
    Series("process_open_fds", "gauge", "Number of open file descriptors."),
    Series("process_max_fds", "gauge", "Maximum number of open file descriptors."),
)

_SECTIONS: Final[Mapping[str, tuple[Series, ...]]] = {
    "Calls": _CALLS,
    "Where the time went": _TIME,
    "The upstream": _UPSTREAM,
    "Lanes and batches": _LANES,
    "Circuit breakers": _BREAKERS,
    "The proxy itself": _ITSELF,
    "HTTP": _HTTP,
    "The process (Linux only)": _PROCESS,
}

SERIES: Final[Mapping[str, Series]] = {row.name: row for rows in _SECTIONS.values() for row in rows}


@dataclass(slots=True)
class Refused:
    """How many updates were refused for a bound."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """One name of the snapshot.

    Attributes:
        name: what it is asked for by.
        kind: what it is.
        text: what it says.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    text: str


SNAPSHOT: Final[Mapping[str, Named]] = {
    row.name: row
    for row in (
        Named(
            "tinkex.requests.total",
            "counter",
            "Callers' requests that were answered: `/v1` and `/api/v1`, but for polls, heartbeats "
            "and futures.",
        ),
        Named("tinkex.requests.success", "counter", "Those answered 2xx."),
        Named("tinkex.requests.failure", "counter", "All others."),
        Named(
            "tinkex.circuit_breaker.state",
            "gauge",
            "0 closed, 1 open, 2 half-open; of several breakers, an open one counts before a "
            "half-open one, and that before a closed one.",
        ),
        Named("tinkex.active_sessions", "gauge", "Upstream sessions kept alive."),
        Named(
            "tinkex.request.duration_ms",
            "histogram",
            "Time from the head of such a request to the end of its answer, in milliseconds.",
        ),
        Named(
            "tinkex.batch.size",
            "histogram",
            "Calls in one submit of training data (`forward_backward`, `forward`).",
        ),
        Named(
            "tinkex.training.loss_total",
            "summary",
            "Loss of each `forward_backward`, summed over its datums: mean and standard deviation "
            "of the last 100, over all models and for each of the 100 that trained last.",
        ),
    )
}


def page() -> str:
    """The tables of docs/metrics.md."""
    parts = ["## Snapshot\n", _table(("name", "kind", "what it says"), _snapshot_rows())]
    for title, rows in _SECTIONS.items():
        cells = ((f"`{r.name}`", r.kind, _labels(r), r.text + _ladder(r)) for r in rows)
        parts += [f"\n## {title}\n", _table(("series", "kind", "labels", "what it says"), cells)]
    return "\n".join(parts)


def _snapshot_rows() -> Iterable[tuple[str, ...]]:
    return ((f"`{row.name}`", row.kind, row.text) for row in SNAPSHOT.values())


def _labels(row: Series) -> str:
    return ", ".join(f"`{label}`" for label in row.labels)


def _ladder(row: Series) -> str:
    if not row.buckets:
        return ""
    return f" {len(row.buckets)} buckets, {row.buckets[0]:g} to {row.buckets[-1]:g}."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

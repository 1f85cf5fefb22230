"""The settings, section by section: name, bounds, default, and the default's reason.

The names of `circuit_breaker`, `metrics` and the first three of `batching` are those of the
configuration this proxy succeeds, units included.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinkex_proxy.config.values import (
    BindHost,
    HostNames,
    Names,
    Secret,
    SecretHeaders,
    Sizes,
    Url,
)

__all__ = [
    "SECTIONS",
    "AdmissionSettings",
    "BatchingSettings",
    "CallsSettings",
    "CircuitBreakerSettings",
    "JournalSettings",
    "LogSettings",
    "MetricsSettings",
    "SdkSettings",
    "ServerSettings",
    "TracingSettings",
    "UpstreamSettings",
]


class _Section(BaseModel):
    """One section: frozen, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerSettings(_Section):
    """Where the proxy listens, and for whom."""

    host: BindHost = Field(
        default="127.0.0.1",
        description="Address to listen on. Loopback: whoever reaches the proxy uses its key.",
    )
    port: int = Field(
        default=8465,
        ge=0,
        le=65535,
        description="Port to listen on; 0 takes a free one. TINK on a phone keypad: 8000, 8080 and "
        "8787 are other tools' defaults.",
    )
    uds: Path | None = Field(
        default=None, description="Unix socket to listen on instead of a port; made with mode 0600."
    )
    allowed_hosts: HostNames = Field(
        default=(),
        description="Further `Host` names to answer to, such as a compose service's. Empty: only "
        "loopback names, so that no web page can reach the proxy by rebinding its own.",
    )
    max_body_bytes: int = Field(
        default=67_108_864,
        ge=1024,
        description="Largest body of a call. 64 MiB holds twelve of the upstream's largest "
        "requests; more would only fill memory.",
    )
    drain_pause_ms: int | None = Field(
        default=None,
        ge=0,
        le=600_000,
        description="How long calls are still taken after readiness has turned false, before new "
        "ones are refused. None: 5,000 beyond loopback, where a load balancer or Kubernetes needs "
        "seconds to send them elsewhere; 0 on loopback and on a Unix socket, where nobody does.",
    )
    drain_linger_ms: int = Field(
        default=1000,
        ge=0,
        le=60_000,
        description="How long idle connections are kept after the last answer at shutdown: a call "
        "that comes on one is refused with a word, not cut off. Longer makes Ctrl-C slow.",
    )


class UpstreamSettings(_Section):
    """The Tinker server behind the proxy."""

    base_url: Url = Field(
        default="https://tinker.thinkingmachines.dev/services/tinker-prod",
        description="The upstream. The hosted service, as in the official SDK.",
    )
    api_key: Secret | None = Field(
        default=None,
        description="Key for callers that send none; falls back to `TINKER_API_KEY`. Not an "
        "option: the process list is public.",
    )
    transport: Literal["auto", "pyqwest", "httpx"] = Field(
        default="auto",
        description="HTTP client. `auto` takes the proxy's own for `http://`, which is the "
        "fastest, and for `https://` `pyqwest`, which is what the official SDK uses; `httpx` is "
        "there for its proxies and custom transports.",
    )
    flavour: Literal["auto", "protobuf", "json"] = Field(
        default="auto",
        description="How training data is written. `auto` begins with protobuf, as SDKs since 0.25 "
        "do, and turns to JSON when the upstream refuses it.",
    )
    connect_timeout_s: float = Field(
        default=5.0,
        gt=0,
        le=300,
        description="Longest wait for a connection. As in the official SDK.",
    )
    request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Longest wait for a submit's answer. As in the SDK.",
    )
    poll_timeout_s: float = Field(
        default=45.0,
        gt=0,
        le=3600,
        description="How long one long poll is asked to be held. As in the SDK; the hosted service "
        "is tuned to it.",
    )
    submit_retry_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="How long a lost answer is asked for again, with the same sequence number. As "
        "in the SDK.",
    )
    retry_budget_ratio: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Repetitions that a key may send for each request of the last 10 s. A fifth, "
        "as in Finagle and linkerd: an upstream that is coming back is not held down.",
    )
    retry_budget_per_s: float = Field(
        default=10.0,
        ge=1,
        le=10_000,
        description="Repetitions a second on top, for keys with few requests. As there; at least "
        "1, because a submit that may have run waits for it.",
    )
    deduplicates: Literal["ask", "yes", "no"] = Field(
        default="ask",
        description="Whether it knows a repeated training request again. `ask`: find out, without "
        "harm, the first time that an answer is lost; of the hosted service it is not public.",
    )
    heartbeat_interval_s: float = Field(
        default=10.0,
        gt=0,
        le=120,
        description="Time between heartbeats of a session. As in the SDK; servers unload a model "
        "after 300 s without.",
    )
    max_keys: int = Field(
        default=64,
        ge=1,
        description="Most API keys with a session of their own. Callers bring keys, so there has "
        "to be a bound; a team rarely has more.",
    )
    extra_loss_fns: Names = Field(
        default=(),
        description="Further loss names to let through. Unknown names are refused here, with the "
        "list, before an upstream cycle is lost on them.",
    )


class CircuitBreakerSettings(_Section):
    """When to stop calling an upstream that fails, one breaker per upstream and key."""

    enabled: bool = Field(default=True, description="Whether failures open a breaker.")
    failure_threshold: int = Field(
        default=5,
        ge=1,
        description="Failures in a row that open it. One restart of an upstream costs fewer.",
    )
    adaptive_threshold: bool = Field(
        default=False,
        description="Whether that number follows how often this upstream fails anyway: 4 for 5 "
        "where it hardly ever does, 10 where one call in ten does. Off: easier to foretell.",
    )
    timeout_ms: int = Field(
        default=30_000,
        ge=1,
        description="How long it stays open before a probe: about as long as a restart.",
    )
    max_timeout_ms: int = Field(
        default=300_000,
        ge=1,
        description="What that time grows to, doubling with every trip until a probe succeeds. As "
        "in Envoy and Finagle; a caller need not wait longer for an upstream that is back.",
    )
    half_open_max_calls: int = Field(
        default=1,
        ge=1,
        description="Probes at once while half open. One answers the question; more would burden "
        "an upstream that is coming back.",
    )
    success_threshold: int = Field(
        default=1,
        ge=1,
        description="Probes that must succeed before it closes. More for an upstream that often "
        "answers once and fails again.",
    )
    failure_rate: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of failed calls that opens it too. Half, as elsewhere: an upstream that "
        "fails four calls of five may never fail five in a row. 1: only where all fail.",
    )
    minimum_calls: int = Field(
        default=20,
        ge=1,
        description="Calls the window must hold before a share of them counts. As in Hystrix.",
    )
    window_s: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        description="The time over which shares are taken. As in resilience4j.",
    )
    slow_call_ms: int | None = Field(
        default=None,
        ge=1,
        description="A call (not a poll) that takes this long is slow. None: none is, because an "
        "upstream may well take minutes to admit a call.",
    )
    slow_call_rate: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Share of slow calls that opens it, where `slow_call_ms` says what is slow.",
    )


class MetricsSettings(_Section):
    """What is measured."""

    enabled: bool = Field(
        default=True,
        description="Whether `/metrics` is served and HTTP requests are measured; the rest of "
        "`/metrics/snapshot` counts all the same.",
    )
    snapshot_interval_ms: int = Field(
        default=60_000,
        ge=1,
        description="Time between snapshots told to those who follow `/metrics/events` and in the "
        "log: a usual scrape step.",
    )
    histogram_max_size: int = Field(
        default=1000,
        ge=1,
        description="Most bins of one quantile sketch: 1,000 hold 1 % precision over a factor of "
        "480 million, from 10 µs to more than an hour. Lower values than that share a bin.",
    )


class BatchingSettings(_Section):
    """How calls that land close together share one upstream request."""

    enabled: bool = Field(default=True, description="Whether calls share requests at all.")
    window_ms: float = Field(
        default=5.0,
        ge=0,
        le=60_000,
        description="Longest a call waits for company while its lane is busy. Little beside an "
        "upstream's tick of 100 ms and more.",
    )
    max_batch_size: int = Field(
        default=10,
        ge=1,
        description="Most calls in one request: a failure touches no more than these.",
    )
    max_datums: int = Field(
        default=1024,
        ge=1,
        description="Most datums in one request. The upstream's own default limit.",
    )
    max_bytes: int = Field(
        default=5_000_000,
        ge=1,
        description="Most bytes in one request, counted as the upstream counts. Its own default.",
    )
    idle_flush_ms: float = Field(
        default=0.5,
        ge=0,
        le=60_000,
        description="Quiet time after which a batch leaves while its lane is idle. Callers "
        "released together land within it, and a lone caller does not feel it.",
    )
    preferred_sizes: Sizes = Field(
        default=(),
        description="Batch sizes in datums that are cheap for the upstream, such as those a JAX "
        "server has compiled. Empty: any size.",
    )


class CallsSettings(_Section):
    """How long calls and their answers live."""

    default_timeout_s: float | None = Field(
        default=None,
        gt=0,
        description="Deadline of calls that bring none. None: training calls may queue for hours.",
    )
    retention_s: float = Field(
        default=3600.0,
        ge=0,
        description="How long an answer can be fetched again. An hour outlasts a caller's restart.",
    )
    max_kept_answers: int = Field(
        default=10_000, ge=1, description="Most answers kept; the oldest go first."
    )
    max_kept_bytes: int = Field(
        default=268_435_456,
        ge=0,
        description="Most bytes of kept answers; the oldest go first. 256 MiB is what a sidecar "
        "may take at its worst.",
    )
    shutdown_grace_s: float = Field(
        default=30.0,
        ge=0,
        description="How long calls may still finish after SIGTERM, once the pause is over. Give "
        "the process the pause, this and 5 s more before it is killed.",
    )


class AdmissionSettings(_Section):
    """How much is taken on at once; what comes beyond it is told to come again."""

    max_bytes: int = Field(
        default=268_435_456,
        ge=1024,
        description="Most bytes that calls hold together, from the moment their bodies are "
        "announced until they end. 256 MiB is the largest body with what is made of it, "
        "or 25 of the upstream's largest requests.",
    )
    max_calls: int = Field(
        default=10_000,
        ge=1,
        description="Most calls in flight; long polls and heartbeats are none. An SDK has up to "
        "2,000 samples out: this is five of them, and a third of what the open files allow.",
    )
    max_lane_depth: int = Field(
        default=5_000,
        ge=1,
        description="Most calls that wait for one model. Steps queued by the thousand are a "
        "program that does not wait for answers, and they would be minutes from theirs.",
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Longest that nothing of a body may come: room is held for the rest of it. "
        "Half of what an SDK gives a whole request.",
    )


class SdkSettings(_Section):
    """What is done with the calls of the official SDKs, at `/api/v1`."""

    mode: Literal["lane", "transparent"] = Field(
        default="lane",
        description="`lane`: training calls join their model's lane, so that SDK and plain calls "
        "train one model in one order. `transparent`: all is passed on byte for byte.",
    )
    coalesce: bool = Field(
        default=False,
        description="Whether `forward_backward` calls of SDKs share requests too. Off: an SDK "
        "shows its upstream's metrics as they are, and only of a request of its own are they its "
        "own. `X-Tinkex-Coalesce: on` or `off` says otherwise for one call.",
    )


class JournalSettings(_Section):
    """What outlasts a restart or a crash of the proxy."""

    enabled: bool = Field(
        default=True,
        description="Whether sessions, lanes, calls under way and answers outlast the proxy.",
    )
    state_dir: Path | None = Field(
        default=None,
        description="Folder of the journal; `TINKEX_PROXY_STATE_DIR` says the same. None: the "
        "platform's folder for such things. Holds training data and results; made with mode 0700.",
    )
    sync: Literal["full", "process"] = Field(
        default="process",
        description="`process`: what is written outlasts the end of the proxy, `kill -9` included. "
        "`full`: a power failure too, at the price of a flush of the disk for each group of "
        "records. A machine that loses its power takes the callers of a sidecar along, so that "
        "nobody is left to repeat a call; choose `full` where callers are elsewhere.",
    )
    on_failure: Literal["warn", "refuse"] = Field(
        default="warn",
        description="Where it cannot be written (a full disk): `warn` goes on, and a crash may "
        "then repeat or lose calls; `refuse` sends nothing that could not be told after a crash.",
    )
    max_bytes: int = Field(
        default=4_294_967_296,
        ge=1_048_576,
        description="Most bytes on the disk. Kept answers have bounds of their own; 4 GiB is more "
        "than the requests of a thousand lanes.",
    )


class LogSettings(_Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe line that is written. `debug` has one for every batch.",
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: for people on a terminal, JSON elsewhere."
    )


class TracingSettings(_Section):
    """Where spans are sent, and of how many calls; needs the extra `otel`."""

    endpoint: Url | None = Field(
        default=None,
        description="OTLP collector that takes spans over HTTP, such as `http://localhost:4318`. "
        "None: no spans; a caller's `traceparent` goes on to the upstream all the same.",
    )
    sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the calls without a `traceparent` that is traced; a caller's own "
        "choice is kept. All: training calls are few, and each costs seconds.",
    )
    headers: SecretHeaders | None = Field(
        default=None,
        description="Headers for the collector, `name=value` with commas between and values "
        "percent-encoded, as in `OTEL_EXPORTER_OTLP_HEADERS`. Secret: they hold its key.",
    )


SECTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "server": ServerSettings,
    "upstream": UpstreamSettings,
    "circuit_breaker": CircuitBreakerSettings,
    "batching": BatchingSettings,
    "sdk": SdkSettings,
    "calls": CallsSettings,
    "journal": JournalSettings,
    "admission": AdmissionSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
    "tracing": TracingSettings,
}

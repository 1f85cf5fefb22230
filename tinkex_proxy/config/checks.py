"""What no single field can see: settings that contradict each other, or are likely a mistake."""

import importlib.util
import ipaddress
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tinkex_proxy.config.load import Settings

__all__ = ["find_contradictions", "find_warnings"]

_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})
# `sample_max_concurrent_requests`, where the upstream says nothing else.
SAMPLES_OF_ONE_SDK: Final = 2000
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# What sends spans. That `opentelemetry` is there says nothing: its API comes with other packages.
EXPORTER: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "requests")


def find_contradictions(settings: Settings) -> list[str]:
    """Settings that cannot all be meant; the proxy does not start with them."""
    return [
        *_self_loop(settings),
        *_unreachable(settings),
        *_never_slow(settings),
        *_never_taken_on(settings),
        *_no_exporter(settings),
    ]


def find_warnings(settings: Settings) -> list[str]:
    """Settings that may be meant and are worth a second look."""
    return [
        *_exposure(settings),
        *_pointless(settings),
        *_never_growing(settings),
        *_too_few(settings),
        *_open_traces(settings),
    ]


def _self_loop(settings: Settings) -> Iterator[str]:
    server, upstream = settings.server, urlsplit(settings.upstream.base_url)
    host = (upstream.hostname or "").rstrip(".")
    port = upstream.port or _DEFAULT_PORTS[upstream.scheme]
    ours = {server.host.lower(), *server.allowed_hosts}
    here = host in ours or (_is_here(host) and _is_here(server.host))
    if server.uds is None and port == server.port and here:
        yield (
            f"upstream.base_url {settings.upstream.base_url} is this proxy's own listener: it "
            "would call itself. TINKER_BASE_URL points an SDK at the proxy, upstream.base_url "
            "points the proxy at a Tinker server"
        )


def _unreachable(settings: Settings) -> Iterator[str]:
    batching, calls, upstream = settings.batching, settings.calls, settings.upstream
    window_s = batching.window_ms / 1000
    if calls.default_timeout_s is not None and window_s >= calls.default_timeout_s:
        yield (
            f"batching.window_ms ({batching.window_ms:g}) is not below calls.default_timeout_s "
            f"({calls.default_timeout_s:g} s): calls would expire while they wait for company"
        )
    if batching.idle_flush_ms > batching.window_ms:
        yield (
            f"batching.idle_flush_ms ({batching.idle_flush_ms:g}) exceeds batching.window_ms "
            f"({batching.window_ms:g}): the window always ends first"
        )
    too_large = [size for size in batching.preferred_sizes if size > batching.max_datums]
    if too_large:
        yield (
            f"batching.preferred_sizes {too_large} exceed batching.max_datums "
            f"({batching.max_datums}): no batch can reach them"
        )
    if upstream.connect_timeout_s > upstream.request_timeout_s:
        yield (
            f"upstream.connect_timeout_s ({upstream.connect_timeout_s:g}) exceeds "
            f"upstream.request_timeout_s ({upstream.request_timeout_s:g}): it can never pass"
        )


def _never_slow(settings: Settings) -> Iterator[str]:
    slow_ms, timeout_s = settings.circuit_breaker.slow_call_ms, settings.upstream.request_timeout_s
    if slow_ms is not None and slow_ms / 1000 >= timeout_s:
        yield (
            f"circuit_breaker.slow_call_ms ({slow_ms}) is not below upstream.request_timeout_s "
            f"({timeout_s:g} s): no call is ever slow, it fails first"
        )


def _never_taken_on(settings: Settings) -> Iterator[str]:
    admission, largest = settings.admission, settings.server.max_body_bytes
    if admission.max_bytes < largest:
        yield (
            f"admission.max_bytes ({admission.max_bytes}) is below server.max_body_bytes "
            f"({largest}): the largest bodies could come only while nothing else is held"
        )
    batching = settings.batching
    if batching.enabled and admission.max_lane_depth < batching.max_batch_size:
        yield (
            f"admission.max_lane_depth ({admission.max_lane_depth}) is below "
            f"batching.max_batch_size ({batching.max_batch_size}): so many calls never wait "
            "together"
        )


def _no_exporter(settings: Settings) -> Iterator[str]:
    if settings.tracing.endpoint is not None and not all(map(_is_there, EXPORTER)):
        yield (
            "tracing.endpoint is set, and what sends spans is not installed: "
            "pip install 'tinkex-proxy[otel]'"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is what it would be a part of
        return False


def _open_traces(settings: Settings) -> Iterator[str]:
    chosen = settings.tracing
    if chosen.endpoint is None and chosen.headers is not None:
        yield "tracing.headers is set and tracing.endpoint is not: nothing is sent with them"
    collector = urlsplit(chosen.endpoint or "")
    to_others = collector.scheme == "http" and not _is_here(collector.hostname or "")
    if to_others and chosen.headers is not None:
        yield (
            f"tracing.endpoint {chosen.endpoint} is plain http to another machine: "
            "tracing.headers travel unencrypted"
        )


def _too_few(settings: Settings) -> Iterator[str]:
    most = settings.admission.max_calls
    if most < SAMPLES_OF_ONE_SDK:
        yield (
            f"admission.max_calls ({most}) is below the {SAMPLES_OF_ONE_SDK} samples that one SDK "
            "has out at once: a rollout will be told to come again and again"
        )


def _exposure(settings: Settings) -> Iterator[str]:
    server, upstream = settings.server, urlsplit(settings.upstream.base_url)
    if server.uds is None and not _is_here(server.host, wildcard=False):
        yield (
            f"server.host {server.host} is not a loopback address: whoever can reach this port "
            "uses the proxy's key. Keep it behind a firewall or a private network"
        )
    to_others = upstream.scheme == "http" and not _is_here(upstream.hostname or "")
    if to_others and settings.upstream.api_key is not None:
        yield (
            f"upstream.base_url {settings.upstream.base_url} is plain http to another machine: "
            "the API key travels unencrypted"
        )


def _pointless(settings: Settings) -> Iterator[str]:
    if settings.batching.enabled and settings.batching.max_batch_size == 1:
        yield (
            "batching.enabled is true and batching.max_batch_size is 1: no call ever shares a "
            "request. Set batching.enabled to false, or allow more calls"
        )


def _never_growing(settings: Settings) -> Iterator[str]:
    chosen = settings.circuit_breaker
    if chosen.max_timeout_ms < chosen.timeout_ms:
        yield (
            f"circuit_breaker.max_timeout_ms ({chosen.max_timeout_ms}) is below "
            f"circuit_breaker.timeout_ms ({chosen.timeout_ms}): every time open is timeout_ms, and "
            "never grows. Raise max_timeout_ms to let it"
        )


def _is_here(host: str, *, wildcard: bool = True) -> bool:
    """Whether connecting to `host` stays on this machine; wildcards do, but listen to all."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES
    return address.is_loopback or (wildcard and address.is_unspecified)

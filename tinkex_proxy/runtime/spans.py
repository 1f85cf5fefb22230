"""What spans there are and what they say: events in, descriptions out.

    POST /v1/forward_backward            a caller's request, until its answer is out
    └─ forward_backward                  the call: its parts, until the answer is ready
       └─ batch                          the request that carries it and maybe others: links to all
          ├─ POST /api/v1/forward_backward    each time it is sent
          └─ POST /api/v1/retrieve_future     each poll for its result

Names and attributes of HTTP spans are those of OpenTelemetry's conventions that are stable; what is
ours begins with `tinkex.`. Bodies, headers and keys are in no event, so they are in no span.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.runtime.events import BatchEnded, CallTimed, Event, Exchange, Served
from tinkex_proxy.runtime.trace_context import TraceContext

__all__ = ["Attribute", "Kind", "Places", "SpanFacts", "facts_of"]

Attribute: TypeAlias = str | int | float | Sequence[str]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Kind(Enum):
    """Which side of which exchange a span is."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


class SpanFacts(msgspec.Struct, frozen=True):
    """One span.

    Attributes:
        name: from a closed set.
        kind: which side.
        context: its place; the span above it is `parent_id` there.
        began: when, on the proxy's clock.
        ended: when.
        attributes: what there is to say.
        links: spans of other traces, or of this one, that it serves too.
        moments: what happened within, and when.
        error: in a word what went wrong, or None.
    """

    name: str
    kind: Kind
    context: TraceContext
    began: float
    ended: float
    attributes: Mapping[str, Attribute]
    links: Sequence[TraceContext] = ()
    moments: Sequence[tuple[str, float]] = ()
    error: str | None = None


class Places(msgspec.Struct, frozen=True):
    """Where the two ends are, as spans name them.

    Attributes:
        upstream: base URL.
        host: what the proxy listens on; None on a Unix socket.
        port: its port.
    """

    upstream: str
    host: str | None = None
    port: int | None = None


def facts_of(event: Event, places: Places, now: float) -> SpanFacts | None:
    """The span that an event is the end of, if it is one that is recorded.

    Args:
        event: what was told.
        places: the two ends.
        now: the moment.
    """
    facts: SpanFacts | None = None
    match event:
        case Served():
            facts = _served(event, places)
        case CallTimed():
            facts = _call(event)
        case BatchEnded():
            facts = _batch(event)
        case Exchange():
            facts = _exchange(event, places, now)
        case _:
            pass
    return facts if facts is not None and facts.context.sampled else None


def _served(event: Served, places: Places) -> SpanFacts:
    said: dict[str, Attribute] = {
        "http.request.method": event.method,
        "http.route": event.route,
        "url.path": event.path,
        "url.scheme": "http",
    }
    if places.host is not None:
        said["server.address"] = places.host
    if places.port:
        said["server.port"] = places.port
    error = None
    if event.status is None:
        error = "caller_left"
    else:
        said["http.response.status_code"] = event.status
        if event.status >= 500:
            error = str(event.status)
    name = f"{event.method} {event.route}"
    return _facts(name, Kind.SERVER, event.trace, (event.began, event.ended), said, error=error)


def _call(event: CallTimed) -> SpanFacts | None:
    trace, line = event.whose.trace, event.timeline
    if trace is None:
        return None
    said: dict[str, Attribute] = {
        "tinkex.request_id": event.whose.request_id,
        "tinkex.key_id": event.whose.key_id,
        "tinkex.code": event.code,
    }
    if event.model_ids:
        said["tinkex.model_ids"] = event.model_ids
    for part, seconds in line.parts().items():
        said[f"tinkex.part.{part.value}_s"] = seconds
    if line.held is not None:
        said["tinkex.queue_state"] = line.held.state
        if line.held.reason is not None:
            said["tinkex.queue_state_reason"] = line.held.reason
    error = None if event.code == "ok" else event.code
    moments = [(stretch.part.value, stretch.since) for stretch in line.stretches()]
    times = (line.began, line.last)
    return _facts(event.operation, Kind.INTERNAL, trace, times, said, moments=moments, error=error)


def _batch(event: BatchEnded) -> SpanFacts:
    left = event.left
    said: dict[str, Attribute] = {
        "tinkex.model_ids": [left.model_id],
        "tinkex.seq_id": left.seq_id,
        "tinkex.flush_reason": left.reason,
        "tinkex.batch.requests": left.requests,
        "tinkex.batch.datums": left.datums,
        "tinkex.batch.waited_s": left.waited_s,
        "tinkex.code": event.code,
    }
    links = [call.trace for call in left.calls if call.trace is not None]
    error = None if event.code == "ok" else event.code
    times = (event.began, event.ended)
    return _facts("batch", Kind.INTERNAL, event.trace, times, said, links=links, error=error)


def _exchange(event: Exchange, places: Places, now: float) -> SpanFacts | None:
    if event.trace is None:
        return None
    upstream = urlsplit(places.upstream)
    said: dict[str, Attribute] = {
        "http.request.method": event.method,
        "server.address": upstream.hostname or "",
        "server.port": upstream.port or _DEFAULT_PORTS.get(upstream.scheme, 0),
        "url.full": places.upstream + event.path,
        "tinkex.operation": event.operation,
        "tinkex.outcome": event.outcome.value,
    }
    if event.status is not None:
        said["http.response.status_code"] = event.status
    name = f"{event.method} {event.path if event.route is None else event.route}"
    times = (now - event.duration_s, now)
    return _facts(name, Kind.CLIENT, event.trace, times, said, error=_trouble(event))


def _trouble(event: Exchange) -> str | None:
    """What went wrong with an exchange; that a result is not there yet is no trouble."""
    if event.status is None:
        return event.fault or "cancelled"
    not_yet = event.operation == Operation.POLL.value and event.status == 408
    return str(event.status) if event.status >= 400 and not not_yet else None


def _facts(  # noqa: PLR0913 - what a span is made of
    name: str,
    kind: Kind,
    context: TraceContext,
    times: tuple[float, float],
    attributes: dict[str, Attribute],
    *,
    links: Sequence[TraceContext] = (),
    moments: Sequence[tuple[str, float]] = (),
    error: str | None = None,
) -> SpanFacts:
    if error is not None:
        attributes["error.type"] = error
    began, ended = times
    return SpanFacts(name, kind, context, began, ended, attributes, links, moments, error)

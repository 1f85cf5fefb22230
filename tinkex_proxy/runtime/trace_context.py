"""W3C Trace Context: which trace something belongs to, as HTTP headers say it, and back.

Reading is strict, as the recommendation asks: a `traceparent` that is malformed, all zeros, of the
forbidden version ff or there twice is as good as none, and takes its `tracestate` with it; one of a
later version is read as far as version 00 goes. A malformed `tracestate` is dropped alone. What is
written is version 00 with the flags that are known.

A context is carried by hand from the call to the request that serves it. Several calls share one
request, and its result is waited for by a task of its own: the context of a task would be whichever
call happened to start it.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

__all__ = ["NAMES", "TraceContext", "context_of", "leading", "parse", "recorded"]

# The headers' names, in lower case.
NAMES: Final = ("traceparent", "tracestate")
SAMPLED: Final = 0x01
RANDOM: Final = 0x02
_KNOWN_FLAGS: Final = SAMPLED | RANDOM
# What has to be passed on at least; longer lists lose entries, the longest kind first.
MAX_STATE_CHARS: Final = 512
MAX_STATE_ENTRIES: Final = 32
_LONG_ENTRY_CHARS: Final = 128

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_STATE_KEY = re.compile(
    r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
)
_STATE_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


class TraceContext(msgspec.Struct, frozen=True):
    """One span's place in a trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 of them.
        flags: the recommendation's: 1 sampled, 2 random trace id.
        state: the `tracestate` that came along, passed on as it is.
        parent_id: the span above it, where that is known.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""
    parent_id: str | None = None

    @property
    def sampled(self) -> bool:
        """Whether whoever began the trace wants it recorded."""
        return bool(self.flags & SAMPLED)

    def child(self, span_id: str) -> "TraceContext":
        """The place of a span below this one."""
        return msgspec.structs.replace(self, span_id=span_id, parent_id=self.span_id)

    def headers(self) -> dict[str, str]:
        """As it goes out with a request."""
        parent = f"00-{self.trace_id}-{self.span_id}-{self.flags & _KNOWN_FLAGS:02x}"
        return {"traceparent": parent, **({"tracestate": self.state} if self.state else {})}


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Read both headers' values; None where the first says nothing that counts."""
    found = _PARENT.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    known = int(flags, 16) & _KNOWN_FLAGS
    return TraceContext(trace_id, span_id, known, _state(tracestate))


def context_of(headers: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    """The context that a request came with.

    Args:
        headers: names in lower case, and values; a `tracestate` may come in several.
    """
    if b"traceparent" not in dict(headers):  # as with most
        return None
    parents: list[str] = []
    states: list[str] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value.decode("latin-1"))
        elif name == b"tracestate":
            states.append(value.decode("latin-1"))
    return parse(parents[0], ",".join(states)) if len(parents) == 1 else None


def leading(contexts: Sequence[TraceContext | None]) -> TraceContext | None:
    """Whose trace a shared request joins: the first that is recorded, else the first at all."""
    there = [context for context in contexts if context is not None]
    return next((context for context in there if context.sampled), there[0] if there else None)


def recorded(context: TraceContext | None) -> str | None:
    """The id of a trace that is recorded: what leads to any other leads nowhere."""
    return context.trace_id if context is not None and context.sampled else None


def _state(tracestate: str) -> str:
    entries = [entry for part in tracestate.split(",") if (entry := part.strip(" \t"))]
    keys = [_key(entry) for entry in entries]
    if None in keys or len(set(keys)) < len(keys) or len(keys) > MAX_STATE_ENTRIES:
        return ""
    while len(text := ",".join(entries)) > MAX_STATE_CHARS:
        long = [at for at, entry in enumerate(entries) if len(entry) > _LONG_ENTRY_CHARS]
        del entries[long[-1] if long else -1]
    return text


def _key(entry: str) -> str | None:
    key, equals, value = entry.partition("=")
    good = equals and _STATE_KEY.fullmatch(key) and _STATE_VALUE.fullmatch(value)
    return key if good else None

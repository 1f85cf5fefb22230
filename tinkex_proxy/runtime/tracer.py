"""Which trace a call belongs to, and who begins one.

With tracing off a caller's context is only passed on: what goes to the upstream for it names a span
of its own below the caller's. With tracing on each of our spans has its place in between, and a
call without a context begins a trace, recorded or not by `ratio`; a caller's own choice is kept.

The spans themselves are made of events by `otel.py`, after the fact.
"""

import random
import secrets
from collections.abc import Callable, Iterable

from tinkex_proxy.runtime.trace_context import RANDOM, SAMPLED, TraceContext, context_of

__all__ = ["OFF", "Tracer", "outgoing"]


class Tracer:
    """Gives contexts.

    Args:
        on: whether spans are made.
        ratio: share of the traces begun here that is recorded.
        draw: gives a number from 0 up to 1.
    """

    def __init__(
        self, *, on: bool = False, ratio: float = 1.0, draw: Callable[[], float] = random.random
    ) -> None:
        self.on = on
        self._ratio = ratio
        self._draw = draw

    def arrived(self, headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
        """The place of a request that has come, or None where there is no trace."""
        theirs = context_of(headers)
        if theirs is not None or not self.on:
            return self.below(theirs)
        flags = RANDOM | (SAMPLED if self._draw() < self._ratio else 0)
        return TraceContext(secrets.token_hex(16), secrets.token_hex(8), flags)

    def below(self, context: TraceContext | None) -> TraceContext | None:
        """The place of a span below `context`; where no spans are made, that itself."""
        return outgoing(context) if self.on and context is not None else context


def outgoing(context: TraceContext) -> TraceContext:
    """The place of a request that goes out on behalf of `context`."""
    return context.child(secrets.token_hex(8))


OFF = Tracer()

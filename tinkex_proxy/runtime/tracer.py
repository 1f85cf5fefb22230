"""Which trace a call belongs to, and who begins one.

With tracing off a caller's context is only passed on as it came: what an upstream does for the call
is then directly below its caller, and no span is named that nobody sends. With tracing on each of
our spans has its place in between, and a call without a context begins a trace, recorded or not by
`ratio`; a caller's own choice is kept.

The spans themselves are made of events by `otel.py`, after the fact.
"""

import random
import secrets
from collections.abc import Callable, Sequence

from tinkex_proxy.runtime.trace_context import RANDOM, SAMPLED, TraceContext, context_of

__all__ = ["OFF", "Tracer"]


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

    def reconfigure(self, *, ratio: float) -> None:
        """Record this share of the traces that begin from now on."""
        self._ratio = ratio

    def arrived(
        self, headers: Sequence[tuple[bytes, bytes]], *, begins: bool = True
    ) -> TraceContext | None:
        """The place of a request that has come, or None where there is no trace.

        Args:
            headers: its headers, names in lower case.
            begins: whether it begins a trace where it comes without one.
        """
        theirs = context_of(headers)
        if theirs is not None or not (self.on and begins):
            return self.below(theirs)
        flags = RANDOM | (SAMPLED if self._draw() < self._ratio else 0)
        return TraceContext(secrets.token_hex(16), secrets.token_hex(8), flags)

    def below(self, context: TraceContext | None) -> TraceContext | None:
        """The place of a span, or a request, below `context`; with tracing off, that itself."""
        if context is None or not self.on:
            return context
        return context.child(secrets.token_hex(8))


OFF = Tracer()

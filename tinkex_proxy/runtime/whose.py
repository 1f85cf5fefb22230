"""Whose work something is: what log lines and spans about it say."""

from collections.abc import Sequence

import msgspec

from tinkex_proxy.runtime.trace_context import TraceContext

__all__ = ["NOBODY", "Behalf", "Whose"]


class Whose(msgspec.Struct, frozen=True):
    """A caller's call, by name.

    Attributes:
        request_id: as in `X-Request-Id` or an SDK's future; outlasts a restart where the call does.
        key_id: the public name of its API key.
        trace: its place in a trace, if it belongs to one.
    """

    request_id: str
    key_id: str
    trace: TraceContext | None = None


class Behalf(msgspec.Struct, frozen=True):
    """On whose behalf the upstream is asked.

    Attributes:
        calls: the callers' calls; none where it is the proxy's own business.
        trace: the span that it is done for: a call's own, or that of the batch they share.
    """

    calls: Sequence[Whose] = ()
    trace: TraceContext | None = None


NOBODY = Behalf()

"""Whose work something is: what log lines and spans about it say."""

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from tinkex_proxy.runtime.trace_context import TraceContext

__all__ = ["NOBODY", "Behalf", "Whose", "fresh_id"]


# Ids are made so many at a time: each time is a system call.
_AT_A_TIME: Final = 256
_BYTES: Final = 16
_made: list[str] = []


def fresh_id() -> str:
    """A request's id, which nobody can guess: 32 hexadecimal digits, as `secrets.token_hex`."""
    if not _made:
        digits = os.urandom(_BYTES * _AT_A_TIME).hex()
        each = 2 * _BYTES
        _made.extend(digits[at : at + each] for at in range(0, len(digits), each))
    return _made.pop()


if hasattr(os, "register_at_fork"):  # not on every platform
    os.register_at_fork(after_in_child=_made.clear)  # a child's are not to be ours


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

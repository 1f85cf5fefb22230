"""What an SDK's request is, by its method and path: worked out once for each path that comes."""

from functools import lru_cache
from typing import Final

import msgspec

from tinkex_proxy.api.asgi import SDK_ROUTE
from tinkex_proxy.api.http_metrics import SDK_CALLS
from tinkex_proxy.core.outcome import Operation

__all__ = ["Kind", "kind_of", "operation_of"]

_BASE: Final = "/api/v1/"
_POLLS: Final = frozenset({"retrieve_future", "retrieve_futures"})
# Refused, the SDK would ask for these at once and without end, or lose its models. They only wait.
_NEVER_SHED: Final = frozenset({Operation.POLL, Operation.HEARTBEAT})
# These are answered with a promise, or a word. All else may be long, and goes down as it comes.
_ANSWERED_SHORTLY: Final = frozenset({Operation.SUBMIT, Operation.HEARTBEAT})
# Paths that are remembered with what they are: callers can ask for any, of any length.
KINDS_KEPT: Final = 256
LONGEST_KEPT: Final = 256


class Kind(msgspec.Struct, frozen=True):
    """What a request is.

    Attributes:
        operation: how it is judged and refused.
        told: its operation in metrics and logs.
        name: its call, below `/api/v1/`.
        route: its path, from a set that callers cannot make grow.
        short: whether its answer is known to be.
        waits: whether it only waits for something, and is never shed.
    """

    operation: Operation
    told: str
    name: str
    route: str
    short: bool
    waits: bool


def kind_of(method: str, path: str) -> Kind:
    """What a request is; of a short path that is remembered."""
    return (_kept if len(path) <= LONGEST_KEPT else _kind)(method, path)


def operation_of(method: str, path: str) -> Operation:
    """How a request is judged and refused."""
    name = path.rpartition("/")[2]
    if name in _POLLS:
        return Operation.POLL
    if name == "session_heartbeat":
        return Operation.HEARTBEAT
    return Operation.SUBMIT if method == "POST" else Operation.QUERY


def _kind(method: str, path: str) -> Kind:
    operation, name = operation_of(method, path), path.removeprefix(_BASE)
    known = name in SDK_CALLS
    return Kind(
        operation,
        f"sdk_{operation.value}",
        name,
        path if known else SDK_ROUTE,
        known and operation in _ANSWERED_SHORTLY,
        operation in _NEVER_SHED,
    )


_kept = lru_cache(maxsize=KINDS_KEPT)(_kind)

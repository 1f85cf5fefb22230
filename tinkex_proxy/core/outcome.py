"""What an exchange with the upstream says about the upstream's health.

The law, as a table: an answer proves that the upstream is alive, whatever it thinks of the caller;
only 5xx, no connection, a reset and silence count against it. Three cases are neither: the caller
hung up first, we never sent, or the upstream asked us to slow down (429, 402), which feeds the
back-off and opens nothing.

A probe asks which bodies an upstream takes, and a 500 is one of the answers: it never counts.

HTTP 408 on `retrieve_future` is "not ready yet" ("a try_again pretending to be an HTTP error", says
the SDK's `api_future_impl.py`): a success on polls, and on any other call the upstream timing out.
"""

import enum

__all__ = ["Fault", "Operation", "Outcome", "of_fault", "of_status"]


class _Labelled(enum.Enum):
    """What stands in names: `label` is its value, which every call asks for several times.

    An enumeration's own `value` and hash are worked out in Python.
    """

    __hash__ = object.__hash__

    def __init__(self, label: str) -> None:
        self.label = label


class Outcome(_Labelled):
    """How an exchange counts in a circuit breaker."""

    SUCCESS = "success"
    FAILURE = "failure"
    THROTTLED = "throttled"
    NEUTRAL = "neutral"


class Operation(_Labelled):
    """Classes of upstream calls that are judged, retried and rejected alike."""

    SUBMIT = "submit"
    POLL = "poll"
    SESSION = "session"
    HEARTBEAT = "heartbeat"
    QUERY = "query"
    PROBE = "probe"


class Fault(enum.Enum):
    """Why no answer came."""

    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    NOT_SENT = "not_sent"


_FAULTS = {
    Fault.CONNECT: Outcome.FAILURE,
    Fault.RESET: Outcome.FAILURE,
    Fault.TIMEOUT: Outcome.FAILURE,
    Fault.CANCELLED: Outcome.NEUTRAL,
    Fault.NOT_SENT: Outcome.NEUTRAL,
}


def of_status(operation: Operation, status: int) -> Outcome:
    """Judge an HTTP status that the upstream answered to `operation`."""
    if operation is Operation.PROBE:
        return Outcome.NEUTRAL
    if status in {402, 429}:
        return Outcome.THROTTLED
    if status == 408 and operation is not Operation.POLL:
        return Outcome.FAILURE
    return Outcome.FAILURE if status >= 500 else Outcome.SUCCESS


def of_fault(fault: Fault) -> Outcome:
    """Judge an exchange that ended without an answer."""
    return _FAULTS[fault]

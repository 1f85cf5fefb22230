"""What happened, as frozen records; the hub (`hub.py`) tells them to who listens.

The records are msgspec's structures rather than dataclasses: one is made in a seventh of the time,
and its class, of which there are many, in a fiftieth.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.quantiles import Quantiles
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.whose import Whose

__all__ = [
    "FINE",
    "BatchEnded",
    "BatchLeft",
    "BreakerDropped",
    "CallCut",
    "CallEnded",
    "CallRecognised",
    "CallTimed",
    "Event",
    "Exchange",
    "JournalFailed",
    "JournalMended",
    "JournalWritten",
    "ModelsLost",
    "Note",
    "Relayed",
    "Repeated",
    "RequestEnded",
    "Served",
    "Shed",
    "SnapshotTaken",
    "Trained",
    "Transition",
]


# Codes of calls that ended well, or that their callers took back: no failures.
FINE: Final = frozenset({"ok", "withdrawn"})


class Exchange(msgspec.Struct, frozen=True):
    """One request to the upstream ended, just now.

    Attributes:
        operation: what it was for.
        status: of its answer; None when none came.
        outcome: how the breaker judged it.
        duration_s: how long it took.
        method: its method.
        path: its path.
        trace: its own place in a trace, if it has one.
        fault: why no answer came.
        date: the `Date` of its answer.
        route: what stands for its path in names, where callers choose that.
    """

    operation: str
    status: int | None
    outcome: Outcome
    duration_s: float
    method: str = "POST"
    path: str = ""
    trace: TraceContext | None = None
    fault: str | None = None
    date: str | None = None
    route: str | None = None


class RequestEnded(msgspec.Struct, frozen=True):
    """An HTTP request has ended.

    Attributes:
        handler: the template of its route.
        method: its method.
        status: of its answer; None when its caller left without one.
        duration_s: how long it took.
        trace_id: the trace that it is part of, if that is recorded.
        wanted: whether a caller asked for something by it, and not only whether it is there yet.
    """

    handler: str
    method: str
    status: int | None
    duration_s: float
    trace_id: str | None = None
    wanted: bool = False


class BatchLeft(msgspec.Struct, frozen=True):
    """A batch went onto the wire."""

    model_id: str
    seq_id: int
    reason: str
    requests: int
    datums: int
    waited_s: float
    size_bytes: int = 0
    calls: Sequence[Whose] = ()


class BatchEnded(msgspec.Struct, frozen=True):
    """A batch that belongs to a trace came to its result, or to `code`, just now."""

    left: BatchLeft
    code: str
    trace: TraceContext
    began: float
    ended: float


class Served(msgspec.Struct, frozen=True):
    """A caller's HTTP request that belongs to a trace was answered; `status` None: not answered."""

    method: str
    route: str
    path: str
    status: int | None
    trace: TraceContext
    began: float
    ended: float


class Transition(msgspec.Struct, frozen=True):
    """A circuit breaker moved; `calls` are those whose request moved it, if one did."""

    breaker: str
    before: State
    after: State
    cause: str
    calls: Sequence[Whose] = ()


class BreakerDropped(msgspec.Struct, frozen=True):
    """A circuit breaker is no more: its key gave way to another."""

    breaker: str


class CallEnded(msgspec.Struct, frozen=True):
    """A caller's call ended.

    Attributes:
        operation: what was asked.
        code: `ok`, or the code of its problem.
        duration_s: how long it took.
        trace_id: the trace that it is part of, if that is recorded.
    """

    operation: str
    code: str
    duration_s: float
    trace_id: str | None = None


class CallRecognised(msgspec.Struct, frozen=True):
    """A call was the repetition of an earlier one, and has its answer."""

    operation: str


class CallCut(msgspec.Struct, frozen=True):
    """A call was too large for one submit and goes in several."""

    parts: int


class Trained(msgspec.Struct, frozen=True):
    """A `forward_backward` of one caller has its answer; the loss is the sum over its datums."""

    model_id: str
    loss: float
    datums: int = 1


class SnapshotTaken(msgspec.Struct, frozen=True):
    """It was time for a snapshot of the metrics.

    Attributes:
        metrics: all of them, as `GET /metrics/snapshot` shows them.
        requests: how many requests of callers were answered since the last one.
        failures: how many of those with anything but a 2xx.
        recent_ms: how long those of the last minutes took, in milliseconds.
    """

    metrics: Mapping[str, object]
    requests: int
    failures: int
    recent_ms: Quantiles


class CallTimed(msgspec.Struct, frozen=True):
    """A call came to its answer, and where its time went.

    Told of calls that were taken on: plain calls, an SDK's from its submit to its result, and what
    is relayed.
    """

    operation: str
    code: str
    timeline: Timeline
    whose: Whose
    model_ids: tuple[str, ...] = ()


class Relayed(msgspec.Struct, frozen=True):
    """A small call was relayed and answered: in one record what is told of others in three.

    They are `CallEnded` and `CallTimed`, both with the code `ok`, and `RequestEnded`.

    Attributes:
        operation: its operation in metrics and logs.
        handler: the template of its route, if its request is counted.
        status: of its answer.
        whose: its name.
        began: the moment when it came.
        left: when it went to the upstream.
        answered: when the answer went to its caller.
        ended: when it was over.
    """

    operation: str
    handler: str | None
    status: int
    whose: Whose
    began: float
    left: float
    answered: float
    ended: float


class ModelsLost(msgspec.Struct, frozen=True):
    """An upstream session ended, and its models with it."""

    session_id: str
    models: int
    reason: str
    key_id: str | None = None


class Shed(msgspec.Struct, frozen=True):
    """A call was turned away before anything was done about it; `reason` is the bound."""

    reason: str


class JournalWritten(msgspec.Struct, frozen=True):
    """A group of records was written."""

    records: int
    duration_s: float


class JournalFailed(msgspec.Struct, frozen=True):
    """The journal cannot be written; what happens from here on may not be known after a crash."""

    reason: str


class JournalMended(msgspec.Struct, frozen=True):
    """The journal has been written again, with all that was missing."""


class Repeated(msgspec.Struct, frozen=True):
    """A request goes again, or (`sent` False) would have if there were budget for it."""

    operation: str
    reason: str
    sent: bool
    calls: Sequence[Whose] = ()


class Note(msgspec.Struct, frozen=True):
    """Something worth one log line that no metric counts; `error` adds its stack trace.

    `calls` are those that it is about, `fields` what else there is to say.
    """

    level: str
    message: str
    error: BaseException | None = None
    calls: Sequence[Whose] = ()
    fields: Mapping[str, object] = msgspec.field(default_factory=dict)


Event = (
    Exchange
    | BatchLeft
    | BatchEnded
    | Served
    | Transition
    | BreakerDropped
    | CallEnded
    | CallRecognised
    | CallCut
    | Trained
    | SnapshotTaken
    | CallTimed
    | ModelsLost
    | Relayed
    | Repeated
    | RequestEnded
    | Shed
    | JournalWritten
    | JournalFailed
    | JournalMended
    | Note
)

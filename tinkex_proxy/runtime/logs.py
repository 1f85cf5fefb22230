"""Log lines: one a decision, JSON or console, on standard error.

Nothing secret reaches this file: events carry key ids and model ids, never keys or bodies.

What belongs to calls names them: `request_id` (`request_ids` where several share it), `key_id`,
`trace_id`. At `info` there is a line for each decision that is not every call's: a session, a
repetition, a trip, that calls are shed. Each call's own (that its batch left, and why; that it was
refused; that it ended, and where its time went) is at `debug`: a rollout makes thousands of samples
a second. A line that is not written costs next to nothing, so that the level can be changed where
it is needed, when it is needed.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Final

import structlog

from tinkex_proxy.core.retry import Kind
from tinkex_proxy.runtime.events import (
    BatchLeft,
    CallTimed,
    JournalFailed,
    JournalMended,
    ModelsLost,
    Note,
    Repeated,
    SnapshotTaken,
    Transition,
)
from tinkex_proxy.runtime.hub import ByKind, Hub
from tinkex_proxy.runtime.whose import Whose

__all__ = ["LEVELS", "LogListener", "Logs", "configure_logs"]

LEVELS: Final = ("debug", "info", "warning", "error")
# Knows the level; asking structlog for it takes as long as making a line ready.
_GATE: Final = logging.getLogger("tinkex_proxy")


def configure_logs(level: str, form: str) -> None:
    """Set up structlog and route the standard library's records (uvicorn's) through it.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `json`, `console`, or `auto` (console on a terminal).
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    # Formatted here, before a console renderer can: that one would show every frame's variables,
    # a request's headers and keys among them.
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    _GATE.setLevel(number)


class Logs:
    """How the log is written, and the way to change that while it is.

    Args:
        level: least severe line that is written, as `configure_logs` was told.
        form: how lines are written.
        hub: told of changes.
    """

    def __init__(self, level: str, form: str, hub: Hub) -> None:
        self.level = level
        self._form = form
        self._hub = hub

    def reconfigure(self, *, level: str | None = None, form: str | None = None) -> None:
        """Write from this level on, or in this form, from the next line on."""
        self.level, self._form = level or self.level, form or self._form
        configure_logs(self.level, self._form)

    def turn(self, level: str) -> None:
        """Write from this level on, one of `LEVELS`; says so in the log."""
        before = self.level
        self.reconfigure(level=level)
        said = {"before": before, "after": level}
        self._hub.tell(Note("warning", "the log level was changed", fields=said))


class LogListener(ByKind):
    """Writes events as log lines."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("tinkex_proxy")
        super().__init__(
            {
                BatchLeft: self._left,
                CallTimed: self._ended,
                JournalFailed: self._journal_failed,
                JournalMended: self._journal_mended,
                ModelsLost: self._lost,
                Note: self._noted,
                Repeated: self._repeated,
                SnapshotTaken: self._log_snapshot,
                Transition: self._moved,
            }
        )

    def _moved(self, event: Transition) -> None:
        self._log.warning(
            "circuit breaker moved",
            breaker=event.breaker,
            before=event.before.value,
            after=event.after.value,
            cause=event.cause,
            **_names(event.calls),
        )

    def _lost(self, event: ModelsLost) -> None:
        self._log.error(
            "upstream session ended",
            session_id=event.session_id,
            key_id=event.key_id,
            models_lost=event.models,
            reason=event.reason,
        )

    def _journal_failed(self, event: JournalFailed) -> None:
        self._log.error("the journal cannot be written", reason=event.reason)

    def _journal_mended(self, _: JournalMended) -> None:
        self._log.warning("the journal is written again, nothing is missing")

    def _noted(self, event: Note) -> None:
        level = logging.getLevelNamesMapping()[event.level.upper()]
        named = {**event.fields, **_names(event.calls)}
        self._log.log(level, event.message, exc_info=event.error, **named)

    def _log_snapshot(self, taken: SnapshotTaken) -> None:
        recent = taken.recent_ms
        shown = {"p50_ms": recent.p50, "p95_ms": recent.p95, "p99_ms": recent.p99}
        self._log.log(
            logging.INFO if taken.requests else logging.DEBUG,
            "metrics",
            requests=taken.requests,
            failures=taken.failures,
            **{name: None if ms is None else round(ms, 3) for name, ms in shown.items()},
        )

    def _left(self, event: BatchLeft) -> None:
        """A flush, and why."""
        if not _GATE.isEnabledFor(logging.DEBUG):
            return
        self._log.debug(
            "batch left",
            model_id=event.model_id,
            seq_id=event.seq_id,
            reason=event.reason,
            requests=event.requests,
            datums=event.datums,
            waited_ms=_ms(event.waited_s),
            **_names(event.calls),
        )

    def _ended(self, event: CallTimed) -> None:
        """The access line of a call."""
        if not _GATE.isEnabledFor(logging.DEBUG):
            return
        line = event.timeline
        held = {}
        if line.held is not None:
            held = {"queue_state": line.held.state, "queue_state_reason": line.held.reason}
        self._log.debug(
            "call",
            operation=event.operation,
            code=event.code,
            duration_ms=_ms(line.whole_s),
            parts_ms={part.value: _ms(s) for part, s in line.parts().items() if s},
            model_ids=list(event.model_ids),
            **held,
            **_names((event.whose,)),
        )

    def _repeated(self, event: Repeated) -> None:
        """A request goes again; polls do so by the hundred where an upstream is away."""
        said = "sent again" if event.sent else "not sent again: the retry budget is spent"
        level = logging.DEBUG if event.operation == Kind.POLL.value else logging.INFO
        if _GATE.isEnabledFor(level):
            fields = {"operation": event.operation, "reason": event.reason}
            self._log.log(level, said, **fields, **_names(event.calls))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _names(calls: Sequence[Whose]) -> dict[str, object]:
    """Whose something is."""
    traces = [call.trace.trace_id for call in calls if call.trace is not None]
    if not calls:
        return {}
    if len(calls) > 1:
        ids = [call.request_id for call in calls]
        named: dict[str, object] = {"request_ids": ids, "key_id": calls[0].key_id}
        return {**named, "trace_ids": traces} if traces else named
    named = {"request_id": calls[0].request_id, "key_id": calls[0].key_id}
    return {**named, "trace_id": traces[0]} if traces else named

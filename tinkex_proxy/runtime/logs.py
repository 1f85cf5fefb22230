"""Log lines: one a decision, JSON or console, on standard error.

Nothing secret reaches this file: events carry key ids and model ids, never keys or bodies.
"""

import logging
import sys

import structlog

from tinkex_proxy.runtime.events import (
    BatchLeft,
    Event,
    JournalFailed,
    JournalMended,
    ModelsLost,
    Note,
    SnapshotTaken,
    Transition,
)

__all__ = ["LogListener", "configure_logs"]


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


class LogListener:
    """Writes events as log lines."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("tinkex_proxy")

    def on_event(self, event: Event) -> None:
        """Write one record, if it is worth a line."""
        match event:
            case Transition():
                self._log.warning(
                    "circuit breaker moved",
                    breaker=event.breaker,
                    before=event.before.value,
                    after=event.after.value,
                    cause=event.cause,
                )
            case BatchLeft():
                self._log.debug(
                    "batch left",
                    model_id=event.model_id,
                    seq_id=event.seq_id,
                    reason=event.reason,
                    requests=event.requests,
                    datums=event.datums,
                    waited_ms=round(event.waited_s * 1000, 3),
                )
            case ModelsLost():
                self._log.error(
                    "upstream session ended",
                    session_id=event.session_id,
                    models_lost=event.models,
                    reason=event.reason,
                )
            case SnapshotTaken():
                self._log_snapshot(event)
            case JournalFailed():
                self._log.error("the journal cannot be written", reason=event.reason)
            case JournalMended():
                self._log.warning("the journal is written again, nothing is missing")
            case Note():
                level = logging.getLevelNamesMapping()[event.level.upper()]
                self._log.log(level, event.message, exc_info=event.error)
            case _:
                pass

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

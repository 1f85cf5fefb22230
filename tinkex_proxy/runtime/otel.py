"""Spans to an OTLP collector, by the OpenTelemetry SDK; needs the extra `otel`.

A span is made when what it is of has ended, from the event that tells of it. Its ids are ours: they
went out with requests long before. A thread of the SDK sends spans in groups; a call only puts one
into its queue. What does not fit there, and what the collector does not take, is dropped and
counted, and said once for each time of trouble; nothing waits for it.

The SDK's own variables (`OTEL_...`) do not count where a setting of ours says otherwise, and
`HTTP_PROXY` not at all.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from typing_extensions import override

from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Event, Note
from tinkex_proxy.runtime.spans import Kind, Places, SpanFacts, facts_of
from tinkex_proxy.runtime.trace_context import TraceContext

__all__ = ["SpanExport", "open_exporter"]

# Spans that wait to be sent, some 2 KB each: four seconds of a thousand spans a second.
MAX_WAITING: Final = 4096
MAX_GROUP: Final = 512
# How long spans wait for company, and the collector may take, repetitions included.
INTERVAL_S: Final = 1.0
TIMEOUT_S: Final = 5.0
# How long the end waits for what is still there.
CLOSE_S: Final = 3.0
_PATH: Final = "/v1/traces"
_KINDS: Final = {
    Kind.SERVER: api.SpanKind.SERVER,
    Kind.CLIENT: api.SpanKind.CLIENT,
    Kind.INTERNAL: api.SpanKind.INTERNAL,
}


def open_exporter(endpoint: str, headers: Mapping[str, str]) -> SpanExporter:
    """What sends to a collector.

    Args:
        endpoint: its base URL, as in `OTEL_EXPORTER_OTLP_ENDPOINT`, or that of its traces.
        headers: go with every request.
    """
    # Loading these tries out a socket, which nobody needs who sends nothing.
    import requests  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    url = endpoint if endpoint.endswith(_PATH) else endpoint + _PATH
    session = requests.Session()
    session.trust_env = False
    return OTLPSpanExporter(
        url,
        headers=dict(headers),
        timeout=TIMEOUT_S,
        compression=Compression.NoCompression,
        session=session,
    )


class _Ids(IdGenerator):
    """Gives a span the id that it has already."""

    def __init__(self) -> None:
        self.context = TraceContext("", "")

    @override
    def generate_trace_id(self) -> int:
        return int(self.context.trace_id, 16)

    @override
    def generate_span_id(self) -> int:
        return int(self.context.span_id, 16)


class _Counted(SpanExporter):
    """An exporter that counts; called from the SDK's thread, which alone writes the numbers."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.taken = 0
        self.failed = 0
        self.failing = False

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        # It has its own list of what may go wrong; what is not on it must not end the thread.
        with contextlib.suppress(Exception):
            result = self._inner.export(spans)
        self.failing = result is not SpanExportResult.SUCCESS
        self.failed += len(spans) if self.failing else 0
        return result

    @override
    def shutdown(self) -> None:
        self._inner.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)


class SpanExport:
    """Makes spans of events and has them sent.

    Args:
        exporter: sends them.
        places: the two ends of exchanges.
        clock: what events are measured by.
        wall_clock: gives the time of day in seconds, which spans have to have.
        resource: what is said of this process.

    Attributes:
        note: told a line for the log.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        places: Places,
        *,
        clock: Clock,
        wall_clock: Callable[[], float],
        resource: Mapping[str, str],
    ) -> None:
        # It would write a line for every group that fails; what matters of that is said here.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._places = places
        self._clock = clock
        self._wall_clock = wall_clock
        self.note: Callable[[Note], None] = lambda _: None
        self._ids = _Ids()
        self._counted = _Counted(exporter)
        self._put = 0
        self._crowded_out = 0
        self._said = False
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # decided where the trace began
            resource=Resource(dict(resource)),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        processor = BatchSpanProcessor(
            self._counted,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=INTERVAL_S * 1000,
            max_export_batch_size=MAX_GROUP,
            export_timeout_millis=TIMEOUT_S * 1000,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("tinkex_proxy")

    def on_event(self, event: Event) -> None:
        """Make a span of one record, if it is the end of one."""
        now = self._clock.now()
        facts = facts_of(event, self._places, now)
        if facts is None:
            return
        self._speak()
        if self._put - self._counted.taken >= MAX_WAITING:
            self._crowded_out += 1
            return
        self._put += 1
        self._make(facts, self._wall_clock() - now)

    def counts(self) -> Iterable[tuple[str, float]]:
        """Spans by what became of them."""
        taken, failed = self._counted.taken, self._counted.failed
        return [("exported", taken - failed), ("dropped", failed + self._crowded_out)]

    async def close(self) -> None:
        """Send what is still there, for a moment; then let go."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def finish() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody has waited for it so long
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=finish, name="last spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await done.wait()

    def _speak(self) -> None:
        """Say that the collector takes nothing, or that it does again, once each time."""
        if self._counted.failing == self._said:
            return
        self._said = self._counted.failing
        dropped = dict(self.counts())["dropped"]
        if self._said:
            self.note(Note("warning", "traces cannot be sent; spans are dropped until they can"))
        else:
            self.note(Note("warning", f"traces are sent again; {dropped:g} spans were dropped"))

    def _make(self, facts: SpanFacts, offset_s: float) -> None:
        """One span; `offset_s` brings the proxy's clock to the time of day."""

        def moment(seconds: float) -> int:
            return int((seconds + offset_s) * 1e9)

        context = self._ids.context = facts.context
        above = api.INVALID_SPAN
        if context.parent_id is not None:
            remote = facts.kind is Kind.SERVER
            above = api.NonRecordingSpan(_place(context, context.parent_id, remote=remote))
        span = self._tracer.start_span(
            facts.name,
            context=api.set_span_in_context(above),
            kind=_KINDS[facts.kind],
            attributes=facts.attributes,
            links=[api.Link(_place(link, link.span_id)) for link in facts.links],
            start_time=moment(facts.began),
        )
        for name, at in facts.moments:
            span.add_event(name, timestamp=moment(at))
        if facts.error is not None:
            span.set_status(api.StatusCode.ERROR, facts.error)
        span.end(moment(facts.ended))


def _place(context: TraceContext, span_id: str, *, remote: bool = False) -> api.SpanContext:
    return api.SpanContext(
        int(context.trace_id, 16),
        int(span_id, 16),
        is_remote=remote,
        trace_flags=api.TraceFlags(context.flags),
        trace_state=api.TraceState.from_header([context.state]) if context.state else None,
    )

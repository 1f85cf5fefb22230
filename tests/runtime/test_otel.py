"""Sending spans: what a real collector takes, and what becomes of those that it does not take."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime import otel
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Exchange, Note, Repeated, Served
from tinkex_proxy.runtime.otel import SpanExport, open_exporter
from tinkex_proxy.runtime.spans import Places
from tinkex_proxy.runtime.trace_context import TraceContext

HERE = TraceContext("a" * 32, "b" * 16, 3, "x=y", "c" * 16)


def event(context: TraceContext = HERE, status: int = 200) -> Served:
    return Served("POST", "/v1/sample", "/v1/sample", status, context, 1.0, 3.5)


class Slow(SpanExporter):
    """Takes spans when it is let, and does with them what it is told."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.began = threading.Event()
        self.spans: list[ReadableSpan] = []
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.began.set()
        self.let.wait(30)
        if isinstance(self.result, Exception):
            raise self.result
        self.spans += spans
        return self.result

    def shutdown(self) -> None:
        self.let.set()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def export_with(notes) -> Callable[[SpanExporter], SpanExport]:
    made: list[SpanExport] = []

    def make(exporter: SpanExporter) -> SpanExport:
        export = SpanExport(
            exporter,
            Places("http://up"),
            clock=ManualClock(10.0),
            wall_clock=lambda: 1_700_000_010.0,
            resource={"service.name": "tinkex_proxy"},
        )

        def note(told: Note) -> None:
            notes.append(told.message)

        export.note = note
        made.append(export)
        return export

    yield make
    for export in made:
        export._counted._inner.shutdown()
        export._provider.shutdown()


def test_a_span_arrives_as_it_was_told_dated_by_the_wall_clock(export_with, collector) -> None:
    headers = {"authorization": "Bearer collector-key"}
    export = export_with(open_exporter(collector.url, headers))
    export.on_event(event(status=503))
    export.on_event(event(TraceContext("d" * 32, "e" * 16, 1)))
    export._provider.force_flush()
    taken = collector.taken()
    span, root = taken["spans"]
    assert (span["trace_id"], span["span_id"]) == ("a" * 32, "b" * 16)
    assert (span["parent_span_id"], span["trace_state"]) == ("c" * 16, "x=y")
    assert span["start_ns"] == 1_700_000_001_000_000_000
    assert span["end_ns"] == 1_700_000_003_500_000_000
    assert span["status"] == {"code": "STATUS_CODE_ERROR", "message": "503"}
    assert span["resource"] == {"service.name": "tinkex_proxy"}
    assert (root["trace_id"], root["span_id"], root["parent_span_id"]) == ("d" * 32, "e" * 16, "")
    assert taken["headers"][0]["authorization"] == "Bearer collector-key"
    assert list(export.counts()) == [("exported", 2), ("dropped", 0)]


def test_the_url_of_the_traces_may_be_given_whole(export_with, collector) -> None:
    export = export_with(open_exporter(collector.url + "/v1/traces", {}))
    export.on_event(event())
    export._provider.force_flush()
    assert len(collector.spans()) == 1


def test_what_is_no_span_or_not_to_be_recorded_is_not_sent(export_with) -> None:
    export = export_with(Slow())
    export.on_event(Repeated("sample", "lost", sent=True))
    export.on_event(event(TraceContext("a" * 32, "b" * 16, 0)))
    export.on_event(Exchange("submit", 200, Outcome.SUCCESS, 1.0))
    assert export._put == 0


def test_a_collector_that_does_not_answer_holds_nobody_up(export_with, monkeypatch) -> None:
    """What does not fit is dropped and counted; the queue of the SDK never decides."""
    monkeypatch.setattr(otel, "MAX_WAITING", 600)
    slow = Slow()
    export = export_with(slow)
    for _ in range(512):
        export.on_event(event())
    assert slow.began.wait(30)  # a group of 512 is with the collector, which does not answer
    for _ in range(700):
        export.on_event(event())
    assert list(export.counts()) == [("exported", 512), ("dropped", 100)]
    slow.let.set()
    export._provider.force_flush()
    assert list(export.counts()) == [("exported", 1112), ("dropped", 100)]
    assert len(slow.spans) == 1112


@pytest.mark.parametrize("trouble", [SpanExportResult.FAILURE, ValueError("it broke")])
def test_what_is_not_taken_is_dropped_and_said_once_each_time(export_with, notes, trouble) -> None:
    slow = Slow()
    slow.let.set()
    slow.result = trouble
    export = export_with(slow)
    for _ in range(3):
        export.on_event(event())
        export._provider.force_flush()
    assert notes == ["traces cannot be sent; spans are dropped until they can"]
    slow.result = SpanExportResult.SUCCESS
    for _ in range(3):
        export.on_event(event())
        export._provider.force_flush()
    assert notes[1:] == ["traces are sent again; 3 spans were dropped"]
    assert list(export.counts()) == [("exported", 3), ("dropped", 3)]


def test_a_real_collector_that_refuses_costs_only_its_spans(
    export_with, collector, monkeypatch
) -> None:
    monkeypatch.setattr(otel, "TIMEOUT_S", 0.5)
    export = export_with(open_exporter(collector.url, {}))
    collector.turn("refuse")
    export.on_event(event())
    export._provider.force_flush()
    collector.turn("take")
    export.on_event(event())
    export._provider.force_flush()
    assert list(export.counts()) == [("exported", 1), ("dropped", 1)]
    assert len(collector.spans()) == 1


async def test_the_end_sends_what_is_still_there(export_with, collector) -> None:
    export = export_with(open_exporter(collector.url, {}))
    export.on_event(event())
    await export.close()
    assert len(collector.spans()) == 1


async def test_the_end_does_not_wait_for_ever(export_with, monkeypatch) -> None:
    monkeypatch.setattr(otel, "CLOSE_S", 0.01)
    slow = Slow()
    export = export_with(slow)
    export.on_event(event())
    await asyncio.wait_for(export.close(), 20)
    assert not slow.spans

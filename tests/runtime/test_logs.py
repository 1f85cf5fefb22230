import logging

import msgspec
import pytest
import structlog

from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.quantiles import Quantiles
from tinkex_proxy.core.timeline import Held, Part, Timeline
from tinkex_proxy.runtime.events import (
    BatchLeft,
    CallTimed,
    Exchange,
    JournalFailed,
    JournalMended,
    JournalWritten,
    ModelsLost,
    Note,
    Repeated,
    SnapshotTaken,
    Transition,
)
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.logs import LogListener, Logs, configure_logs
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.whose import Whose

CANARY = "tml-canary"


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("tinkex_proxy").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines_of(capsys) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]


def test_one_json_line_a_decision(capsys) -> None:
    configure_logs("debug", "json")
    listener = LogListener()
    for event in (
        Transition("b", State.CLOSED, State.OPEN, "answered 503"),
        BatchLeft("m", 3, "linger", 4, 9, 0.0051),
        ModelsLost("s", 3, "gone"),
        Note("error", "hello", ValueError("because")),
        Exchange("poll", 200, Outcome.SUCCESS, 0.1),
    ):
        listener.on_event(event)
    lines = lines_of(capsys)
    assert [line["event"] for line in lines] == [
        "circuit breaker moved",
        "batch left",
        "upstream session ended",
        "hello",
    ]
    assert (lines[0]["level"], lines[0]["after"]) == ("warning", "open")
    assert lines[1]["waited_ms"] == 5.1
    assert "ValueError: because" in lines[3]["exception"]
    assert all("timestamp" in line for line in lines)


def test_the_journals_failures_are_loud_and_its_writes_silent(capsys) -> None:
    configure_logs("debug", "json")
    listener = LogListener()
    for event in (JournalWritten(3, 0.001), JournalFailed("disk is full"), JournalMended()):
        listener.on_event(event)
    failed, mended = lines_of(capsys)
    assert (failed["event"], failed["level"]) == ("the journal cannot be written", "error")
    assert failed["reason"] == "disk is full"
    assert (mended["event"], mended["level"]) == (
        "the journal is written again, nothing is missing",
        "warning",
    )


def test_the_level_is_obeyed_and_other_libraries_speak_through_us(capsys) -> None:
    configure_logs("info", "json")
    LogListener().on_event(BatchLeft("m", 3, "linger", 4, 9, 0.005))
    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn")
    (line,) = lines_of(capsys)
    assert (line["event"], line["level"]) == ("from uvicorn", "warning")


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_come_with_their_trace_and_without_their_variables(capsys, form) -> None:
    """Frames of a request hold its headers: a trace that shows variables shows keys."""
    configure_logs("info", form)

    def bug() -> None:
        headers = {"x-api-key": CANARY}
        raise ValueError(len(headers))

    try:
        bug()
    except ValueError as error:
        logging.getLogger("uvicorn.error").exception("in the application")
        LogListener().on_event(Note("error", "in a call", error))
    said = capsys.readouterr().err
    assert said.count("ValueError: 1") == 2
    assert CANARY not in said


@pytest.mark.parametrize("form", ["console", "auto"])
def test_console_lines_are_for_people(capsys, form) -> None:
    configure_logs("info", form)
    LogListener().on_event(Note("warning", "look here"))
    assert "look here" in capsys.readouterr().err


def test_a_snapshot_is_a_line_where_there_were_requests(capsys) -> None:
    """A proxy at rest is silent, but at level debug."""
    configure_logs("info", "json")
    listener = LogListener()
    recent = Quantiles(3, 23.3, 10.0, 40.0, p50=20.0, p95=40.00049, p99=40.0)
    listener.on_event(SnapshotTaken({}, 3, 1, recent))
    listener.on_event(SnapshotTaken({}, 0, 0, Quantiles(0)))
    (line,) = lines_of(capsys)
    del line["timestamp"]
    assert line == {
        "event": "metrics",
        "level": "info",
        "requests": 3,
        "failures": 1,
        "p50_ms": 20.0,
        "p95_ms": 40.0,
        "p99_ms": 40.0,
    }
    configure_logs("debug", "json")
    LogListener().on_event(SnapshotTaken({}, 0, 0, Quantiles(0)))
    (line,) = lines_of(capsys)
    assert (line["level"], line["p99_ms"]) == ("debug", None)


MINE = Whose("r1", "k1", TraceContext("a" * 32, "b" * 16, 1))
THEIRS = Whose("r2", "k1")


def test_what_belongs_to_calls_names_them(capsys) -> None:
    configure_logs("debug", "json")
    listener = LogListener()
    for event in (
        BatchLeft("m", 3, "linger", 1, 1, 0.0, calls=(MINE,)),
        BatchLeft("m", 3, "linger", 2, 2, 0.0, calls=(MINE, THEIRS)),
        BatchLeft("m", 3, "linger", 2, 2, 0.0, calls=(THEIRS, THEIRS)),
        Note("error", "failed", None, (THEIRS,)),
        Note("info", "refused", fields={"request_id": "r3", "code": "overloaded"}),
        Transition("b", State.CLOSED, State.OPEN, "answered 503", (MINE,)),
    ):
        listener.on_event(event)
    alone, shared, untraced, failed, refused, tripped = lines_of(capsys)
    assert (alone["request_id"], alone["key_id"], alone["trace_id"]) == ("r1", "k1", "a" * 32)
    assert (shared["request_ids"], shared["key_id"]) == (["r1", "r2"], "k1")
    assert shared["trace_ids"] == ["a" * 32]
    assert "trace_ids" not in untraced
    assert (failed["request_id"], "trace_id" in failed) == ("r2", False)
    assert (refused["request_id"], refused["code"]) == ("r3", "overloaded")
    assert (tripped["event"], tripped["request_id"]) == ("circuit breaker moved", "r1")


def test_a_call_has_one_line_with_its_parts_at_debug(capsys) -> None:
    line = Timeline(1.0, Part.QUEUE)
    line.enter(Part.COMPUTE, 1.5)
    line.end(3.0)
    line.held = Held("paused_capacity", "full")
    ended = CallTimed("sample", "ok", line, MINE, ("m",))
    configure_logs("info", "json")
    LogListener().on_event(ended)
    assert lines_of(capsys) == []
    configure_logs("debug", "json")
    LogListener().on_event(ended)
    (said,) = lines_of(capsys)
    assert said.pop("timestamp")
    assert said == {
        "event": "call",
        "level": "debug",
        "operation": "sample",
        "code": "ok",
        "duration_ms": 2000.0,
        "parts_ms": {"queue": 500.0, "compute": 1500.0},
        "queue_state": "paused_capacity",
        "queue_state_reason": "full",
        "model_ids": ["m"],
        "request_id": "r1",
        "key_id": "k1",
        "trace_id": "a" * 32,
    }


def test_repetitions_are_told_and_those_of_polls_only_at_debug(capsys) -> None:
    configure_logs("info", "json")
    listener = LogListener()
    listener.on_event(Repeated("training", "lost", sent=True, calls=(MINE,)))
    listener.on_event(Repeated("sample", "fault", sent=False))
    listener.on_event(Repeated("poll", "fault", sent=True))
    again, spent = lines_of(capsys)
    assert (again["event"], again["reason"], again["request_id"]) == ("sent again", "lost", "r1")
    assert spent["event"].startswith("not sent again")


def test_the_level_of_a_listener_that_is_at_work_can_change(capsys) -> None:
    """As on SIGHUP: nobody has to make the listener again."""
    configure_logs("warning", "json")
    listener = LogListener()
    for level in ("warning", "debug", "info"):
        configure_logs(level, "json")
        listener.on_event(BatchLeft("m", 3, level, 1, 1, 0.0))
    assert [line["reason"] for line in lines_of(capsys)] == ["debug"]


class Unreadable(Timeline):
    """Nothing of it may be worked out."""

    def parts(self):
        raise AssertionError("for a line that is not written")


def test_a_line_that_is_not_written_is_not_made_ready(capsys) -> None:
    """Every call has its own at debug; at info they are not to cost anything."""
    configure_logs("info", "json")
    LogListener().on_event(CallTimed("sample", "ok", Unreadable(0.0), MINE))
    assert lines_of(capsys) == []


def test_the_level_can_be_turned_up_and_down_and_says_so(capsys) -> None:
    configure_logs("info", "json")
    listener = LogListener()
    logs = Logs("info", "json", Hub([listener], on_broken=lambda _: None))
    for level in ("debug", "warning"):
        logs.turn(level)
        listener.on_event(Note("debug", level))
    assert logs.level == "warning"
    said = [(line["event"], line.get("before"), line.get("after")) for line in lines_of(capsys)]
    changed = "the log level was changed"
    assert said == [
        (changed, "info", "debug"),
        ("debug", None, None),
        (changed, "debug", "warning"),
    ]


def test_a_reload_of_the_form_leaves_the_level_that_an_operator_chose(capsys) -> None:
    configure_logs("info", "json")
    logs = Logs("info", "json", Hub([], on_broken=lambda _: None))
    logs.turn("debug")
    logs.reconfigure(form="console")
    LogListener().on_event(Note("debug", "still here"))
    assert "still here" in capsys.readouterr().err

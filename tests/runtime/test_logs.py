import logging

import msgspec
import pytest
import structlog

from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.quantiles import Quantiles
from tinkex_proxy.runtime.events import (
    BatchLeft,
    Exchange,
    JournalFailed,
    JournalMended,
    JournalWritten,
    ModelsLost,
    Note,
    SnapshotTaken,
    Transition,
)
from tinkex_proxy.runtime.logs import LogListener, configure_logs

CANARY = "tml-canary"


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
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

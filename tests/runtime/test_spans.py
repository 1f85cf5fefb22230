"""Which events are spans, what they are called and what they say, without any library for it."""

import msgspec
import pytest

from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.timeline import Held, Part, Timeline
from tinkex_proxy.runtime.events import (
    BatchEnded,
    BatchLeft,
    CallEnded,
    CallTimed,
    Exchange,
    Served,
)
from tinkex_proxy.runtime.spans import Kind, Places, facts_of
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.whose import Whose

PLACES = Places("https://up.example/tinker", "127.0.0.1", 8465)
HERE = TraceContext("a" * 32, "b" * 16, 1, "", "c" * 16)
OTHER = TraceContext("d" * 32, "e" * 16, 1)
SILENT = TraceContext("a" * 32, "b" * 16, 0)
WHOSE = Whose("r1", "k1", HERE)


def test_a_request_served_is_a_server_span_by_the_conventions() -> None:
    event = Served("POST", "/v1/models/{model_id}", "/v1/models/m", 200, HERE, 1.0, 3.0)
    facts = facts_of(event, PLACES, 9.0)
    assert (facts.name, facts.kind) == ("POST /v1/models/{model_id}", Kind.SERVER)
    assert (facts.context, facts.began, facts.ended) == (HERE, 1.0, 3.0)
    assert facts.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{model_id}",
        "url.path": "/v1/models/m",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": 8465,
        "http.response.status_code": 200,
    }
    assert facts.error is None


@pytest.mark.parametrize(("status", "error"), [(499, None), (503, "503"), (None, "caller_left")])
def test_a_server_error_is_one_and_a_callers_is_not(status, error) -> None:
    event = Served("GET", "/v1/models", "/v1/models", status, HERE, 1.0, 3.0)
    facts = facts_of(event, Places("http://u"), 9.0)
    assert facts.error == facts.attributes.get("error.type") == error
    assert "server.address" not in facts.attributes
    assert ("http.response.status_code" in facts.attributes) is (status is not None)


def test_a_call_says_its_parts_and_what_the_upstream_said() -> None:
    line = Timeline(1.0, Part.QUEUE)
    line.enter(Part.COMPUTE, 2.0)
    line.end(4.0)
    line.held = Held("paused_capacity", "full")
    facts = facts_of(CallTimed("forward", "ok", line, WHOSE, ("m",)), PLACES, 9.0)
    assert (facts.name, facts.kind) == ("forward", Kind.INTERNAL)
    assert (facts.began, facts.ended) == (1.0, 4.0)
    assert facts.moments == [("queue", 1.0), ("compute", 2.0)]
    said = facts.attributes
    assert sum(said[f"tinkex.part.{part.value}_s"] for part in Part) == 3.0
    assert said["tinkex.part.compute_s"] == 2.0
    assert (said["tinkex.request_id"], said["tinkex.key_id"]) == ("r1", "k1")
    assert said["tinkex.model_ids"] == ("m",)
    assert (said["tinkex.queue_state"], said["tinkex.queue_state_reason"]) == (
        "paused_capacity",
        "full",
    )


def test_a_call_that_failed_says_with_which_code() -> None:
    line = Timeline(1.0)
    line.held = Held("paused_capacity")
    facts = facts_of(CallTimed("forward", "model_gone", line, WHOSE), PLACES, 9.0)
    assert facts.error == facts.attributes["error.type"] == "model_gone"
    assert "tinkex.model_ids" not in facts.attributes
    assert "tinkex.queue_state_reason" not in facts.attributes


def test_a_batch_links_to_all_its_callers() -> None:
    calls = (WHOSE, Whose("r2", "k1", OTHER), Whose("r3", "k1"))
    left = BatchLeft("m", 3, "linger", 3, 9, 0.5, calls=calls)
    facts = facts_of(BatchEnded(left, "ok", HERE, 1.0, 2.0), PLACES, 9.0)
    assert (facts.name, facts.kind, facts.links) == ("batch", Kind.INTERNAL, [HERE, OTHER])
    assert facts.attributes["tinkex.flush_reason"] == "linger"
    assert facts.attributes["tinkex.batch.datums"] == 9
    assert facts_of(BatchEnded(left, "upstream_fault", HERE, 1, 2), PLACES, 9).error


def exchange(status, operation="submit", *, fault=None, trace=HERE) -> Exchange:
    path = "/api/v1/optim_step"
    return Exchange(operation, status, Outcome.SUCCESS, 0.5, "POST", path, trace, fault)


def test_a_request_upstream_is_a_client_span_by_the_conventions() -> None:
    facts = facts_of(exchange(200), PLACES, 9.0)
    assert (facts.name, facts.kind) == ("POST /api/v1/optim_step", Kind.CLIENT)
    assert (facts.began, facts.ended) == (8.5, 9.0)
    assert facts.attributes == {
        "http.request.method": "POST",
        "server.address": "up.example",
        "server.port": 443,
        "url.full": "https://up.example/tinker/api/v1/optim_step",
        "http.response.status_code": 200,
        "tinkex.operation": "submit",
        "tinkex.outcome": "success",
    }
    assert facts.error is None


def test_a_path_that_a_caller_chose_names_no_span() -> None:
    """Names are a closed set: a collector keeps an index of them."""
    event = msgspec.structs.replace(
        exchange(200), path="/api/v1/weird/17", route="/api/v1/{path:path}"
    )
    facts = facts_of(event, PLACES, 9.0)
    assert facts.name == "POST /api/v1/{path:path}"
    assert facts.attributes["url.full"].endswith("/api/v1/weird/17")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (exchange(500), "500"),
        (exchange(404), "404"),
        (exchange(408), "408"),
        (exchange(408, "poll"), None),
        (exchange(None, fault="reset"), "reset"),
        (exchange(None), "cancelled"),
    ],
)
def test_what_went_wrong_upstream_is_said_in_a_word(event, error) -> None:
    assert facts_of(event, PLACES, 9.0).error == error


def test_what_belongs_to_no_trace_or_is_not_to_be_recorded_is_no_span() -> None:
    line = Timeline(1.0)
    quiet = [
        CallEnded("forward", "ok", 1.0),
        CallTimed("forward", "ok", line, Whose("r", "k")),
        CallTimed("forward", "ok", line, Whose("r", "k", SILENT)),
        exchange(200, trace=None),
        exchange(200, trace=SILENT),
    ]
    assert [facts_of(event, PLACES, 9.0) for event in quiet] == [None] * len(quiet)

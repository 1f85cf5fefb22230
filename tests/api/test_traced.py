"""Traces from end to end: what the upstream is told, and the spans that a real collector takes."""

import asyncio
import re

import pytest

from tests.api.driving import datum, stalled, step, train
from tests.api.sdk_calls import message, result, send
from tinkex_proxy.core.timeline import Part

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def parent(trace: str = TRACE, span: str = SPAN, flags: str = "01") -> str:
    return f"00-{trace}-{span}-{flags}"


@pytest.fixture
async def traced(start, upstream, collector):
    """A proxy that sends its spans to a collector."""
    return await start(await upstream(), tracing={"endpoint": collector.url})


async def spans_of(proxy, collector) -> list[dict[str, object]]:
    """All spans there are, when all are sent."""
    (export,) = [x for x in proxy.proxy.services.hub._listeners if hasattr(x, "counts")]
    await asyncio.to_thread(export._provider.force_flush)
    spans = collector.spans()
    assert dict(export.counts()) == {"exported": len(spans), "dropped": 0}
    for span in spans:
        span["attributes"] = {
            a["key"]: next(iter(a["value"].values())) for a in span.get("attributes", [])
        }
        span["status"] = span.get("status", {}).get("code", "")
    return spans


def one(spans, name: str) -> dict[str, object]:
    found = [span for span in spans if span["name"] == name]
    assert len(found) == 1, [span["name"] for span in spans]
    return found[0]


def inside(inner, outer) -> bool:
    return outer["start_ns"] <= inner["start_ns"] <= inner["end_ns"] <= outer["end_ns"]


async def test_a_callers_trace_goes_through_to_the_upstream_and_back(traced, collector) -> None:
    model_id = await traced.create()
    answer = await train(traced, model_id, [datum(1)], traceparent=parent(), tracestate="a=b")
    assert answer.status_code == 200
    spans = await spans_of(traced, collector)
    mine = [span for span in spans if span["trace_id"] == TRACE]
    served = one(mine, "POST /v1/forward_backward")
    call, batch = one(mine, "forward_backward"), one(mine, "batch")
    submit = one(mine, "POST /api/v1/forward_backward")
    poll = one(mine, "POST /api/v1/retrieve_future")
    assert len(mine) == 5
    assert served["parent_span_id"] == SPAN
    assert call["parent_span_id"] == served["span_id"]
    assert batch["parent_span_id"] == call["span_id"]
    assert submit["parent_span_id"] == poll["parent_span_id"] == batch["span_id"]
    assert batch["links"] == [[TRACE, call["span_id"]]]
    kinds = [span["kind"].removeprefix("SPAN_KIND_") for span in (served, call, submit, poll)]
    assert kinds == ["SERVER", "INTERNAL", "CLIENT", "CLIENT"]
    assert inside(call, served)
    assert inside(batch, call)
    assert inside(submit, batch)
    assert inside(poll, batch)
    assert submit["end_ns"] <= poll["start_ns"]
    assert all(span["trace_state"] == "a=b" for span in mine)
    assert all(span["status"] == "" for span in mine)
    assert served["attributes"]["http.response.status_code"] == "200"
    assert submit["attributes"]["http.response.status_code"] == "200"
    assert served["resource"]["service.name"] == "tinkex_proxy"


async def test_the_parts_of_the_span_are_those_of_the_header(traced, collector) -> None:
    model_id = await traced.create()
    answer = await train(traced, model_id, [datum(1)])
    call = one(await spans_of(traced, collector), "forward_backward")
    header = dict(re.findall(r"([a-z-]+);dur=([\d.]+)", answer.headers["server-timing"]))
    for part in Part:
        seconds = float(call["attributes"][f"tinkex.part.{part.value}_s"])
        assert seconds * 1000 == pytest.approx(float(header[part.value]), abs=0.001)
    assert call["attributes"]["tinkex.request_id"] == answer.headers["x-request-id"]
    took_ms = (call["end_ns"] - call["start_ns"]) / 1e6
    assert took_ms == pytest.approx(float(header["total"]), abs=0.01)
    names = [event["name"] for event in call["events"]]
    assert names[0] == "proxy"
    assert set(names) <= {part.value for part in Part}


async def test_a_shared_request_links_to_the_spans_of_all_its_callers(traced, collector) -> None:
    model_id = await traced.create()
    release = stalled(traced, model_id)
    ahead = asyncio.create_task(train(traced, model_id, [datum(0)], traceparent=parent("1" * 32)))
    lane = traced.proxy.services.accounts.of_default().model(model_id).driver.lane
    while lane.on_wire is None:
        await asyncio.sleep(0)
    flags = {"2" * 32: "00", "3" * 32: "01", "4" * 32: "01"}
    sharing = [
        asyncio.create_task(train(traced, model_id, [datum(1)], traceparent=parent(t, flags=f)))
        for t, f in flags.items()
    ]
    while lane.depth < 3:
        await asyncio.sleep(0)
    release.set()
    answers = await asyncio.gather(ahead, *sharing)
    assert [a.json()["batch"]["requests"] for a in answers] == [1, 3, 3, 3]
    spans = await spans_of(traced, collector)
    assert not [span for span in spans if span["trace_id"] == "2" * 32], "not to be recorded"
    (shared,) = [span for span in spans if span["name"] == "batch" and len(span["links"]) > 1]
    calls = {s["trace_id"]: s for s in spans if s["name"] == "forward_backward"}
    assert shared["trace_id"] == "3" * 32, "the first that is recorded"
    assert shared["parent_span_id"] == calls["3" * 32]["span_id"]
    linked = dict(shared["links"])
    assert list(linked) == ["2" * 32, "3" * 32, "4" * 32]
    assert linked["4" * 32] == calls["4" * 32]["span_id"]
    assert shared["attributes"]["tinkex.batch.requests"] == "3"


async def test_what_fails_is_an_error_where_it_failed(traced, collector) -> None:
    model_id = await traced.create()
    bad = {"model_id": model_id, "data": [datum(1)], "loss_fn": "ppo"}  # which needs more
    answer = await traced.post("/v1/forward_backward", bad, traceparent=parent())
    assert 400 <= answer.status_code < 500
    mine = [s for s in await spans_of(traced, collector) if s["trace_id"] == TRACE]
    call, served = one(mine, "forward_backward"), one(mine, "POST /v1/forward_backward")
    assert call["status"] == "STATUS_CODE_ERROR"
    assert call["attributes"]["error.type"] == answer.json()["code"]
    assert served["status"] == ""
    assert served["attributes"]["http.response.status_code"] == str(answer.status_code)


async def test_an_sdks_submit_future_and_polls_are_one_trace(traced, collector) -> None:
    model_id = await traced.create()
    headers = {"traceparent": parent()}
    answer = await result(traced, await send(traced, message(model_id, 1, 1), **headers))
    assert answer.status_code == 200
    mine = [s for s in await spans_of(traced, collector) if s["trace_id"] == TRACE]
    kind = "SPAN_KIND_SERVER"
    (served,) = [span for span in mine if span["kind"] == kind]
    assert served["name"] == "POST /api/v1/forward_backward"
    call, batch = one(mine, "sdk_forward_backward"), one(mine, "batch")
    assert call["parent_span_id"] == served["span_id"]
    assert batch["links"] == [[TRACE, call["span_id"]]]


async def test_what_is_relayed_has_its_span_below_ours(start, recorder, collector) -> None:
    sections = {"sdk": {"mode": "transparent"}, "tracing": {"endpoint": collector.url}}
    proxy = await start(recorder.url, **sections)
    await proxy.post("/api/v1/anything", {"a": 1}, traceparent=parent(), tracestate="a=b")
    while len(mine := await spans_of(proxy, collector)) < 3:  # told when the answer is out
        await asyncio.sleep(0)
    kinds = {span["kind"].removeprefix("SPAN_KIND_"): span for span in mine}
    served, call, sent = kinds["SERVER"], kinds["INTERNAL"], kinds["CLIENT"]
    assert served["name"] == sent["name"] == "POST /api/v1/{path:path}"
    assert call["name"] == "sdk_submit"
    assert sent["attributes"]["url.full"] == f"{recorder.url}/api/v1/anything"
    assert (served["parent_span_id"], call["parent_span_id"]) == (SPAN, served["span_id"])
    assert sent["parent_span_id"] == call["span_id"]
    headers = heard(recorder)
    assert headers["traceparent"] == [f"00-{TRACE}-{sent['span_id']}-01"]
    assert headers["tracestate"] == ["a=b"]


def heard(recorder) -> dict[str, list[str]]:
    """Headers of the last call that reached the upstream."""
    seen: dict[str, list[str]] = {}
    head, _ = recorder.requests[-1]
    for line in head.decode().split("\r\n")[1:-2]:
        name, _, value = line.partition(": ")
        seen.setdefault(name.lower(), []).append(value)
    return seen


async def test_without_tracing_what_is_relayed_keeps_its_context_as_it_came(
    passing, recorder
) -> None:
    odd = "cc-" + parent()[3:] + "-later"
    await passing.post("/api/v1/anything", {"a": 1}, traceparent=odd, tracestate="x")
    headers = heard(recorder)
    assert (headers["traceparent"], headers["tracestate"]) == ([odd], ["x"])


async def test_without_tracing_the_upstream_still_hears_of_the_callers_own_place(
    start, upstream
) -> None:
    proxy = await start(await upstream())
    model_id = await proxy.create()
    transport = proxy.proxy.services.accounts.of_default().upstream._transport
    sent, original = [], transport.send

    async def send_noted(request):
        sent.append((request.path, request.headers.get("traceparent")))
        return await original(request)

    transport.send = send_noted
    await train(proxy, model_id, [datum(1)])
    assert {trace for _, trace in sent} == {None}
    sent.clear()
    await train(proxy, model_id, [datum(1)], traceparent=parent(flags="00"))
    traces = [trace for _, trace in sent]
    assert traces == [parent(flags="00")] * 2


async def test_samples_and_creations_are_in_their_callers_trace(traced, collector) -> None:
    made = await traced.post(
        "/v1/models", {"base_model": "sandbox/tiny-1"}, traceparent=parent("5" * 32)
    )
    assert made.status_code == 200
    body = {
        "base_model": "sandbox/tiny-1",
        "prompt": [1],
        "num_samples": 1,
        "sampling_params": {"max_tokens": 2},
    }
    await traced.post("/v1/sample", body, traceparent=parent("6" * 32))
    spans = await spans_of(traced, collector)
    for trace, name, path in (
        ("5" * 32, "create_model", "POST /api/v1/create_model"),
        ("6" * 32, "sample", "POST /api/v1/asample"),
    ):
        mine = [span for span in spans if span["trace_id"] == trace]
        call = one(mine, name)
        assert one(mine, path)["parent_span_id"] == call["span_id"]
        assert one(mine, "POST /api/v1/retrieve_future")["parent_span_id"] == call["span_id"]


async def test_what_only_waits_begins_no_trace_of_its_own(traced, collector) -> None:
    """An SDK polls each future every few seconds: a trace each would bury those of its calls."""
    model_id = await traced.create()
    await result(traced, await send(traced, message(model_id, 1, 1)))
    await traced.post("/api/v1/session_heartbeat", {"session_id": "s"})
    promised = await train(traced, model_id, [datum(1)], prefer="respond-async")
    await traced.client.get(promised.headers["location"] + "?wait=20")
    spans = await spans_of(traced, collector)
    begun = {span["name"] for span in spans if not span["parent_span_id"]}
    assert begun == {
        "POST /v1/models",
        "POST /api/v1/forward_backward",
        "POST /v1/forward_backward",
    }


async def test_who_watches_the_proxy_is_not_traced(traced, collector) -> None:
    for path in ("/metrics", "/health/live", "/lanes"):
        await traced.client.get(path, headers={"traceparent": parent()})
    assert await spans_of(traced, collector) == []


async def test_a_caller_that_hangs_up_is_a_request_without_an_answer(traced, collector) -> None:
    model_id = await traced.create()
    release = stalled(traced, model_id)
    leaving = asyncio.create_task(train(traced, model_id, [datum(1)], traceparent=parent()))
    lane = traced.proxy.services.accounts.of_default().model(model_id).driver.lane
    while lane.on_wire is None:
        await asyncio.sleep(0)
    leaving.cancel()
    while True:
        mine = [s for s in await spans_of(traced, collector) if s["trace_id"] == TRACE]
        if mine:
            break
    release.set()
    served = one(mine, "POST /v1/forward_backward")
    assert served["attributes"]["error.type"] == "caller_left"
    await step(traced, model_id)

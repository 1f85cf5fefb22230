"""The header's form, and that its parts sum to its total for every kind of call, over sockets."""

import asyncio
import re

import pytest

from tests.api.driving import datum, step, train
from tests.api.sdk_calls import message, result, send
from tinkex_proxy.api.server_timing import server_timing
from tinkex_proxy.core.timeline import Held, Part, Timeline
from tinkex_proxy.runtime.events import CallTimed, Event


def read(header: str) -> dict[str, float]:
    """The parts of a header that is whole and in order, and whose parts sum to its total."""
    entries = re.findall(r'([a-z-]+);dur=(\d+\.\d{3})(?:;desc="[ -~]*?")?(?:, |$)', header)
    assert [name for name, _ in entries] == [*(part.value for part in Part), "total"]
    parts = {name: float(said) for name, said in entries}
    total = parts.pop("total")
    assert abs(sum(parts.values()) - total) < 0.01, "milliseconds; each is rounded"
    return {**parts, "total": total}


def test_every_part_is_named_and_the_total_is_theirs() -> None:
    line = Timeline(1.0)
    line.spent(Part.COMPUTE, 1.25)
    line.held = Held("paused_rate_limit")
    line.spent(Part.UPSTREAM_QUEUE, 2.0)
    assert server_timing(line) == (
        "proxy;dur=0.000, queue;dur=0.000, linger;dur=0.000, journal;dur=0.000, "
        'upload;dur=0.000, upstream-queue;dur=750.000;desc="paused_rate_limit", '
        "compute;dur=250.000, download;dur=0.000, total;dur=1000.000"
    )


def test_what_an_upstream_says_cannot_break_the_header() -> None:
    line = Timeline(0.0)
    line.held = Held("paused", 'a"b\\c\r\nset-cookie: x\u00e9' + "x" * 500)
    header = server_timing(line)
    assert 'desc="paused: a?b?c??set-cookie: x?xxx' in header
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 600
    read(header)


async def test_the_parts_of_every_plain_call_sum_to_its_whole(proxy) -> None:
    """And none takes longer than its caller saw."""
    model_id = await proxy.create()
    body = {"model_id": model_id, "data": [datum(1)]}
    sampling = {"num_samples": 1, "prompt": [1, 2], "sampling_params": {"max_tokens": 2}}
    answers = [
        await proxy.post("/v1/models", {"base_model": "sandbox/tiny-1"}),
        await train(proxy, model_id, [datum(1)]),
        await train(proxy, model_id, [datum(n) for n in range(1100)]),  # in two pieces
        await proxy.post("/v1/forward", body),
        await step(proxy, model_id),
        await proxy.post("/v1/forward_backward_batch", {"requests": [body, body, {}]}),
        await proxy.post("/v1/sample", {"model_id": model_id, **sampling}),
        await proxy.post("/v1/sample", {"base_model": "sandbox/tiny-1", **sampling}),
        await proxy.post("/v1/save_weights", {"model_id": model_id, "path": "a"}),
        await proxy.client.delete(f"/v1/models/{model_id}"),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        parts = read(answer.headers["server-timing"])
        assert 0 < parts["total"] < answer.elapsed.total_seconds() * 1000
        assert parts["upload"] > 0
        assert parts["proxy"] > 0


async def test_concurrent_calls_that_share_a_request_each_sum_up(proxy) -> None:
    model_id = await proxy.create()
    answers = await asyncio.gather(*(train(proxy, model_id, [datum(n)]) for n in range(20)))
    for answer in answers:
        read(answer.headers["server-timing"])


async def test_a_call_that_failed_tells_its_time_too(proxy) -> None:
    answer = await train(proxy, "nobody", [datum(1)])
    assert answer.status_code == 404
    assert read(answer.headers["server-timing"])["upload"] == 0


async def test_a_promised_call_tells_the_time_to_its_answer(proxy) -> None:
    model_id = await proxy.create()
    promised = await train(proxy, model_id, [datum(1)], prefer="respond-async")
    assert "server-timing" not in promised.headers
    answer = await proxy.client.get(promised.headers["location"] + "?wait=20")
    assert answer.status_code == 200
    assert read(answer.headers["server-timing"])["upload"] > 0


async def test_an_sdks_result_tells_the_time_since_its_submit(proxy) -> None:
    model_id = await proxy.create()
    answer = await result(proxy, await send(proxy, message(model_id, 1, 1)))
    assert answer.status_code == 200
    parts = read(answer.headers["server-timing"])
    assert parts["upload"] > 0
    assert parts["total"] > parts["upload"]


@pytest.mark.parametrize("path", ["get_server_capabilities", "asample", "retrieve_future"])
async def test_what_is_relayed_tells_the_time_until_its_head_left(proxy, path: str) -> None:
    """Streamed or not; of the download of a streamed one nothing is known by then."""
    method = "GET" if path.startswith("get") else "POST"
    body = None if method == "GET" else {"request_id": "gone"}
    answer = await proxy.client.request(method, f"/api/v1/{path}", json=body)
    parts = read(answer.headers["server-timing"])
    assert parts["upload"] + parts["compute"] > 0
    assert parts["download"] == 0


async def test_series_say_where_calls_of_each_kind_spent_their_time(proxy) -> None:
    model_id = await proxy.create()
    answer = await train(proxy, model_id, [datum(1)])
    parts = read(answer.headers["server-timing"])
    text = (await proxy.client.get("/metrics")).text
    for part in ("proxy", "upload", "compute"):
        name = f'call_part_seconds_sum{{operation="forward_backward",part="{part}"}}'
        seconds = re.search(rf"{re.escape(name)} (\S+)", text)
        assert seconds is not None
        assert float(seconds[1]) * 1000 == pytest.approx(parts[part], abs=0.001)
    own = re.search(r'overhead_seconds_sum{operation="forward_backward"} (\S+)', text)
    assert own is not None
    theirs = parts["upload"] + parts["upstream-queue"] + parts["compute"] + parts["download"]
    assert float(own[1]) * 1000 == pytest.approx(parts["total"] - theirs, abs=0.01)


@pytest.fixture
def told(proxy) -> list[CallTimed]:
    """Every call whose time was told."""
    calls: list[CallTimed] = []

    class Listener:
        def on_event(self, event: Event) -> None:
            if isinstance(event, CallTimed):
                calls.append(event)

    proxy.proxy.services.hub._listeners += (Listener(),)
    return calls


async def test_each_call_is_told_once_with_its_names(proxy, told) -> None:
    model_id = await proxy.create()
    answer = await train(proxy, model_id, [datum(1)])
    submitted = await send(proxy, message(model_id, 1, 1))
    await result(proxy, submitted)
    names = [(call.operation, call.code, call.model_ids) for call in told]
    assert names == [
        ("create_model", "ok", (model_id,)),
        ("forward_backward", "ok", (model_id,)),
        ("sdk_forward_backward", "ok", (model_id,)),
    ]
    ids = [call.whose.request_id for call in told[1:]]
    assert ids == [answer.headers["x-request-id"], submitted.json()["request_id"]]
    key_ids = {account.key_id for account in proxy.proxy.services.accounts}
    assert {call.whose.key_id for call in told} == key_ids


async def test_a_relayed_call_is_the_taking_and_the_coming_back(proxy, told) -> None:
    # A small one that is plain tells of itself otherwise (test_sdk_small.py).
    twice, asked = [("x-twice", "a"), ("x-twice", "b")], {"model_id": "nobody"}
    await proxy.client.post("/api/v1/get_info", json=asked, headers=twice)
    await proxy.client.get("/api/v1/get_server_capabilities")
    await proxy.post("/api/v1/retrieve_future", {"request_id": "0"})
    while len(told) < 3:  # the last is told when its answer is out
        await asyncio.sleep(0)
    parts = [{p.value for p, s in call.timeline.parts().items() if s} for call in told]
    assert [call.operation for call in told] == ["sdk_submit", "sdk_query", "sdk_poll"]
    assert parts[0] == {"proxy", "upload"}, "a short one is there whole"
    assert parts[1] >= {"compute", "download"}
    assert parts[2] >= {"compute", "download"}
    for call in told:
        assert sum(call.timeline.parts().values()) == pytest.approx(call.timeline.whole_s)


async def test_an_sdks_call_that_failed_or_was_taken_back_is_told_as_that(proxy, told) -> None:
    model_id = await proxy.create()
    refused = await send(proxy, message(model_id, 1))
    assert refused.status_code == 422
    early = await send(proxy, message(model_id, 9, 1))
    await proxy.client.delete(f"/v1/models/{model_id}")
    answer = await result(proxy, early, accept="application/json")
    assert "error" in answer.json()
    (call,) = [call for call in told if call.operation == "sdk_forward_backward"]
    assert call.code == "model_gone"
    assert read(answer.headers["server-timing"])["upload"] == 0

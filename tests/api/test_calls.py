"""What all plain calls share, over real sockets."""

import asyncio

import pytest

from tests.api.driving import datum, stalled, step, train
from tinkex_proxy.core.timeline import Part


async def test_the_same_idempotency_key_gets_the_first_answer(proxy) -> None:
    model_id = await proxy.create()
    first, again = await asyncio.gather(
        *(train(proxy, model_id, [datum(1)], Idempotency_Key="k1") for _ in range(2))
    )
    later = await train(proxy, model_id, [datum(1)], Idempotency_Key="k1")
    assert first.json() == again.json() == later.json()
    assert later.headers["x-tinkex-repeats"] in {
        first.headers["x-request-id"],
        again.headers["x-request-id"],
    }
    lane = (await proxy.client.get("/lanes")).json()["lanes"][0]
    assert lane["calls"] == 1
    hits = 'tinkex_proxy_dedup_hits_total{operation="forward_backward"} 2.0'
    assert hits in (await proxy.client.get("/metrics")).text
    other = await train(proxy, model_id, [datum(2)], Idempotency_Key="k1")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


async def test_a_deadline_before_the_call_leaves_takes_it_back(proxy) -> None:
    """Nothing was sent, so nothing counts: the lane's numbers have not moved."""
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    ahead = asyncio.create_task(step(proxy, model_id))
    lane = proxy.proxy.services.accounts.of_default().model(model_id).driver.lane
    while lane.on_wire is None:
        await asyncio.sleep(0)
    late = await train(proxy, model_id, [datum(1)], X_Request_Timeout="0.05")
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert "nothing was sent" in late.json()["detail"]
    release.set()
    assert (await ahead).status_code == 200
    assert (lane.depth, lane.next_seq) == (0, 2)


async def test_a_deadline_after_the_call_left_leaves_the_answer_at_its_future(proxy) -> None:
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    late = await train(proxy, model_id, [datum(1)], X_Request_Timeout="0.5")
    problem = late.json()
    assert (late.status_code, problem["code"]) == (504, "deadline_exceeded")
    release.set()
    answer = await proxy.client.get(f"/v1/futures/{problem['request_id']}", params={"wait": 20})
    assert answer.status_code == 200, answer.text
    assert answer.json()["loss"] > 0


async def hang_up_after(proxy, path: str, body: bytes, until) -> None:
    """Send a request on a socket of our own, wait until something holds, and hang up."""
    host, port = proxy.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    while not until():
        await asyncio.sleep(0)
    writer.transport.abort()
    await asyncio.sleep(0)


async def test_a_caller_that_hangs_up_in_time_is_taken_out(start, upstream) -> None:
    proxy = await start(await upstream(), batching={"window_ms": 60_000, "idle_flush_ms": 60_000})
    model_id = await proxy.create()
    lane = proxy.proxy.services.accounts.of_default().model(model_id).driver.lane
    body = b'{"model_id": "%s", "data": [{"tokens": [1, 2], "targets": [2, 3]}]}'
    await hang_up_after(
        proxy, "/v1/forward_backward", body % model_id.encode(), lambda: lane.depth == 1
    )
    while lane.depth or proxy.proxy.services.ledger.running:
        await asyncio.sleep(0)
    assert (lane.next_seq, lane.owed) == (1, 0)


async def test_a_caller_that_hangs_up_later_leaves_a_call_that_counts(start, upstream) -> None:
    proxy = await start(await upstream(tick_s=0.2))
    model_id = await proxy.create()
    lane = proxy.proxy.services.accounts.of_default().model(model_id).driver.lane
    body = b'{"model_id": "%s", "data": [{"tokens": [1, 2], "targets": [2, 3]}]}'
    await hang_up_after(
        proxy, "/v1/forward_backward", body % model_id.encode(), lambda: lane.owed == 1
    )
    assert (await step(proxy, model_id)).status_code == 200
    assert lane.next_seq == 3


async def test_each_key_has_its_own_session_lanes_and_breaker(proxy) -> None:
    mine = await proxy.create()
    theirs = await proxy.client.get("/v1/models", headers={"x-api-key": "tml-theirs"})
    assert theirs.json() == {"models": []}
    stolen = await proxy.post(
        "/v1/optim_step", {"model_id": mine}, Authorization="Bearer tml-theirs"
    )
    assert (stolen.status_code, stolen.json()["code"]) == (404, "model_not_found")
    breakers = (await proxy.client.get("/breakers")).json()["breakers"]
    assert len({b["id"] for b in breakers}) == len({b["key_id"] for b in breakers}) == 2


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X_Request_Timeout": "soon"}, "X-Request-Timeout"),
        ({"X_Request_Timeout": "-1"}, "X-Request-Timeout"),
        ({"X_Tinkex_Coalesce": "maybe"}, "X-Tinkex-Coalesce"),
        ({"Idempotency_Key": "k" * 256}, "Idempotency-Key"),
    ],
)
async def test_bad_headers_get_clear_errors(proxy, headers, said) -> None:
    answer = await train(proxy, "m", [datum(1)], **headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_large_names_limit_and_size(start, upstream, announced) -> None:
    proxy = await start(await upstream(), server={"max_body_bytes": 2000})

    async def pieces():
        for _ in range(3):
            yield b" " * 1000

    content = b" " * 2500 if announced else pieces()
    answer = await proxy.client.post("/v1/forward_backward", content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "2000" in answer.json()["detail"]


async def test_while_draining_new_calls_are_turned_away(proxy) -> None:
    model_id = await proxy.create()
    await proxy.proxy.drain()
    answer = await train(proxy, model_id, [datum(1)])
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert (await proxy.client.get("/health/ready")).json()["reason"] == "draining"
    assert (await proxy.client.get("/health/live")).status_code == 200


async def test_time_is_accounted_for(proxy) -> None:
    model_id = await proxy.create()
    answer = await train(proxy, model_id, [datum(1)])
    parts = [part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")]
    assert parts == [*(part.value for part in Part), "total"]


def pace_of(proxy):
    return proxy.proxy.services.accounts.of_default().upstream.pace


def held_back(proxy) -> None:
    """The upstream has asked this key to slow down, for longer than any caller here waits."""
    pace_of(proxy).heard(proxy.proxy.services.clock.now(), 429, wait_s=60)


async def late(proxy, path: str, body: object, **more: str) -> None:
    """A call whose caller's time is over before its turn has come."""
    answer = await proxy.post(path, body, X_Request_Timeout="0.05", **more)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert "nothing was sent" in answer.json()["detail"]


async def test_a_deadline_while_the_key_is_held_back_takes_training_calls_back(proxy) -> None:
    """They stand in their lane and the lane stands in the key's line: nothing has left."""
    model_id = await proxy.create()
    lane = proxy.proxy.services.accounts.of_default().model(model_id).driver.lane
    held_back(proxy)
    fb = {"model_id": model_id, "data": [datum(1)]}
    await late(proxy, "/v1/forward_backward", fb)
    await late(proxy, "/v1/optim_step", {"model_id": model_id})
    await late(proxy, "/v1/forward_backward_batch", {"requests": [fb, fb]})
    await late(proxy, "/v1/optim_step_batch", {"requests": [{"model_id": model_id}] * 2})
    assert (lane.depth, lane.next_seq, lane.on_wire) == (0, 1, None)
    assert pace_of(proxy).snapshot()["submits_out"] == 0


@pytest.mark.parametrize("of", [{"base_model": "sandbox/tiny-1"}, {"model_id": None}])
async def test_a_deadline_while_the_key_is_held_back_takes_samples_back(proxy, of) -> None:
    """Out of the key's line too, so that nobody's turn is taken by who is gone."""
    model_id = await proxy.create()
    body = {"prompt": [3], "sampling_params": {"max_tokens": 1}, **of}
    body = {**body, "model_id": model_id} if "model_id" in of else body
    assert (await proxy.post("/v1/sample", body)).status_code == 200
    held_back(proxy)
    await asyncio.gather(*(late(proxy, "/v1/sample", body) for _ in range(3)))
    while proxy.proxy.services.ledger.running:
        await asyncio.sleep(0)
    shown = pace_of(proxy).snapshot()
    assert (shown["submits_out"], shown["submits_waiting"]) == (0, 0)


async def test_of_a_batch_what_has_not_left_is_taken_back(start, upstream) -> None:
    """The first item is on the wire and counts; the others' deadline has passed."""
    proxy = await start(await upstream(), batching={"max_batch_size": 1})
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    fb = {"model_id": model_id, "data": [datum(1)]}
    answer = await proxy.post(
        "/v1/forward_backward_batch", {"requests": [fb, fb, fb]}, X_Request_Timeout="0.5"
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (504, "deadline_exceeded")
    release.set()
    kept = await proxy.client.get(f"/v1/futures/{problem['request_id']}", params={"wait": 20})
    told = [item.get("error", {}).get("code") for item in kept.json()["results"]]
    assert told == [None, "deadline_exceeded", "deadline_exceeded"]
    assert (await step(proxy, model_id)).status_code == 200
    lane = (await proxy.client.get("/lanes")).json()["lanes"][0]
    assert (lane["requests"], lane["next_seq"]) == (2, 3)


async def test_while_a_lane_waits_for_its_turn_its_batch_still_grows(proxy) -> None:
    """Four calls come while another submit is the only one that may be out, and leave as one."""
    model_id = await proxy.create()
    pace = pace_of(proxy)
    pace.heard(proxy.proxy.services.clock.now(), 429, wait_s=0.001)
    while (other := pace.at_once()) is None:
        await asyncio.sleep(0)
    calls = [asyncio.create_task(train(proxy, model_id, [datum(n)])) for n in range(4)]
    lane = proxy.proxy.services.accounts.of_default().model(model_id).driver.lane
    while lane.depth < len(calls):
        await asyncio.sleep(0)
    pace.ended(other, 200, wait_s=None)
    answers = await asyncio.gather(*calls)
    assert {answer.json()["batch"]["requests"] for answer in answers} == {4}

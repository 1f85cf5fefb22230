"""What all plain calls share, over real sockets."""

import asyncio

import pytest

from tests.api.driving import datum, stalled, step, train


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


async def test_a_deadline_after_the_call_left_leaves_the_answer_at_its_future(
    start, upstream
) -> None:
    proxy = await start(await upstream(tick_s=0.4))
    model_id = await proxy.create()
    late = await train(proxy, model_id, [datum(1)], X_Request_Timeout="0.1")
    problem = late.json()
    assert (late.status_code, problem["code"]) == (504, "deadline_exceeded")
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
    assert parts == ["queue", "linger", "upload", "upstream-queue", "compute"]

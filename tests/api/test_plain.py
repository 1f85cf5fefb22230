"""`/v1` over real sockets: this proxy in front of the sandbox."""

import asyncio
import socket

import pytest

SHORT = {"tokens": [5, 8, 11, 14], "targets": [8, 11, 14, 17], "weights": [1, 1, 1, 1]}


def datum(n: int) -> dict[str, list[int]]:
    tokens = [(n * 7 + j * 3) % 200 + 2 for j in range(9)]
    return {"tokens": tokens[:-1], "targets": tokens[1:]}


async def train(proxy, model_id: str, data: list[object], **headers: str):
    body = {"model_id": model_id, "data": data}
    return await proxy.post("/v1/forward_backward", body, **headers)


async def step(proxy, model_id: str, rate: float = 0.05):
    body = {"model_id": model_id, "adam_params": {"learning_rate": rate}}
    return await proxy.post("/v1/optim_step", body)


async def test_a_model_trains_samples_saves_and_loads_through_plain_calls(proxy) -> None:
    model_id = await proxy.create()
    data = [datum(n) for n in range(4)]
    losses = []
    for _ in range(8):
        answer = (await train(proxy, model_id, data)).json()
        losses.append(answer["loss"])
        assert (await step(proxy, model_id)).status_code == 200
    assert losses[-1] < losses[0]
    assert len(answer["loss_fn_outputs"]) == 4
    assert answer["loss_fn_outputs"][0]["logprobs"]["shape"] == [8]
    saved = (await proxy.post("/v1/save_weights", {"model_id": model_id, "name": "ck"})).json()
    assert saved["path"].startswith("tinker://")
    before = (await proxy.post("/v1/forward", {"model_id": model_id, "data": data})).json()
    other = await proxy.create(seed=9)
    load = {"model_id": other, "path": saved["path"], "optimizer": True}
    assert (await proxy.post("/v1/load_weights", load)).status_code == 200
    after = (await proxy.post("/v1/forward", {"model_id": other, "data": data})).json()
    assert after["loss"] == before["loss"]
    wanted = {
        "model_id": model_id,
        "prompt": [5, 8],
        "sampling_params": {"max_tokens": 4, "seed": 1},
    }
    sampled = (await proxy.post("/v1/sample", {**wanted, "num_samples": 2})).json()
    assert [len(s["tokens"]) <= 4 for s in sampled["sequences"]] == [True, True]
    assert len(sampled["sequences"][0]["logprobs"]) == len(sampled["sequences"][0]["tokens"])
    path = {"model_id": model_id, "name": "for-sampling"}
    exported = (await proxy.post("/v1/save_weights_for_sampler", path)).json()["path"]
    again = {"model_path": exported, "prompt": [5, 8], "sampling_params": wanted["sampling_params"]}
    resampled = (await proxy.post("/v1/sample", again)).json()
    assert resampled["sequences"][0] == sampled["sequences"][0]
    listed = (await proxy.client.get("/v1/models")).json()["models"]
    assert {m["model_id"] for m in listed} == {model_id, other}
    gone = await proxy.client.delete(f"/v1/models/{model_id}")
    assert gone.json()["deleted"] is True
    assert (await train(proxy, model_id, data)).status_code == 404


async def test_concurrent_callers_share_a_request_and_each_gets_its_own(proxy) -> None:
    model_id = await proxy.create()
    alone = [
        (await train(proxy, model_id, [datum(n)], X_Tinkex_Coalesce="off")).json() for n in range(8)
    ]
    answers = await asyncio.gather(*(train(proxy, model_id, [datum(n)]) for n in range(8)))
    shared = [answer.json() for answer in answers]
    assert len({a["batch"]["id"] for a in shared}) < 8
    assert max(a["batch"]["requests"] for a in shared) > 1
    for one, ours in zip(alone, shared, strict=True):
        assert ours["loss"] == one["loss"]
        assert ours["loss_fn_outputs"] == one["loss_fn_outputs"]
        assert one["batch"]["requests"] == 1
    for header, answer in zip(answers, shared, strict=True):
        batch = answer["batch"]
        assert header.headers["x-tinkex-batch"] == (
            f"{batch['id']}; requests={batch['requests']}; datums={batch['datums']}; "
            f"index={batch['index']}"
        )
        if batch["requests"] > 1:
            assert answer["metrics"] == {"loss:sum": answer["loss"]}


async def test_coalesced_training_is_the_same_training(proxy) -> None:
    """Eight calls of one datum and one call of eight make the same step; seven do not."""
    results = []
    for groups in ([range(8)], [[n] for n in range(8)], [range(7)]):
        model_id = await proxy.create()
        await asyncio.gather(
            *(train(proxy, model_id, [datum(n) for n in group]) for group in groups)
        )
        await step(proxy, model_id)
        probe = {"model_id": model_id, "data": [datum(n) for n in range(8)]}
        results.append((await proxy.post("/v1/forward", probe)).json()["loss_fn_outputs"])
    assert results[0] == results[1]
    assert results[0] != results[2]


async def test_a_call_above_the_limits_is_sent_in_parts_and_answered_whole(start, upstream) -> None:
    proxy = await start(await upstream(), batching={"max_datums": 3})
    model_id = await proxy.create()
    data = [datum(n) for n in range(8)]
    answer = (await train(proxy, model_id, data)).json()
    single = [(await train(proxy, model_id, [d])).json() for d in data]
    assert answer["loss_fn_outputs"] == [s["loss_fn_outputs"][0] for s in single]
    assert answer["loss"] == pytest.approx(sum(s["loss"] for s in single))
    lane = (await proxy.client.get("/lanes")).json()["lanes"][0]
    assert lane["requests"] == 3 + 8


@pytest.mark.parametrize("flavours", ["json", "protobuf"])
async def test_either_generation_of_upstream_is_found_out_and_spoken(
    start, upstream, flavours
) -> None:
    proxy = await start(await upstream(flavours=flavours))
    model_id = await proxy.create()
    assert (await train(proxy, model_id, [datum(1)])).status_code == 200
    assert (await step(proxy, model_id)).status_code == 200
    body = {"base_model": "sandbox/tiny-1", "prompt": [3], "sampling_params": {"max_tokens": 2}}
    assert (await proxy.post("/v1/sample", body)).status_code == 200
    assert (await proxy.client.get("/version")).json()["upstream_flavours"] == [flavours]


async def test_a_batch_call_answers_each_item_in_order_and_loses_none(proxy) -> None:
    model_id = await proxy.create()
    good = {"model_id": model_id, "data": [datum(1)]}
    requests = [
        good,
        {"model_id": "nope", "data": [datum(1)]},
        {"model_id": model_id, "data": []},
        {"model_id": model_id, "data": [datum(2)], "loss_fn": "crossentropy"},
        good,
    ]
    answer = await proxy.post("/v1/forward_backward_batch", {"requests": requests})
    results = answer.json()["results"]
    assert [r["status"] for r in results] == ["ok", "error", "error", "error", "ok"]
    assert [r["error"]["code"] for r in results[1:4]] == [
        "model_not_found",
        "invalid_request",
        "invalid_request",
    ]
    assert results[0]["loss"] == results[4]["loss"]
    assert results[0]["batch"]["id"] == results[4]["batch"]["id"]
    steps = {"requests": [{"model_id": model_id}, {"model_id": "nope"}, {"model_id": model_id}]}
    results = (await proxy.post("/v1/optim_step_batch", steps)).json()["results"]
    assert [r["status"] for r in results] == ["ok", "error", "ok"]


async def test_one_bad_call_does_not_spoil_its_batch(start, upstream) -> None:
    """What only the upstream can refuse is found by asking in halves; the others succeed."""
    proxy = await start(await upstream(), batching={"window_ms": 50, "idle_flush_ms": 50})
    model_id = await proxy.create()
    bad = {"model_input": {"chunks": [{"type": "encoded_text", "tokens": [10**6]}]}}
    bad["loss_fn_inputs"] = {
        "target_tokens": {"data": [1], "dtype": "int64", "shape": [1]},
        "weights": {"data": [1.0], "dtype": "float32", "shape": [1]},
    }
    answers = await asyncio.gather(
        *(train(proxy, model_id, [bad if n == 2 else datum(n)]) for n in range(5))
    )
    codes = [a.status_code for a in answers]
    assert codes == [200, 200, 422, 200, 200], [a.text[:300] for a in answers]
    assert answers[2].json()["code"] in {"upstream_refused", "upstream_failed"}


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


async def test_respond_async_and_the_future(proxy) -> None:
    model_id = await proxy.create()
    accepted = await train(proxy, model_id, [datum(1)], Prefer="respond-async")
    assert accepted.status_code == 202
    location = accepted.headers["location"]
    assert location == f"/v1/futures/{accepted.json()['future_id']}"
    answer = await proxy.client.get(location, params={"wait": 20})
    assert answer.status_code == 200
    assert answer.json()["loss"] > 0
    assert (await proxy.client.get(location)).json() == answer.json()
    assert (await proxy.client.get(location, params={"wait": "soon"})).status_code == 422
    stranger = await proxy.client.get(location, headers={"x-api-key": "tml-other"})
    assert (stranger.status_code, stranger.json()["code"]) == (404, "future_not_found")


def stalled(proxy, model_id: str) -> asyncio.Event:
    """Keep the submits of one model on the wire until the event is set."""
    submitter = proxy.proxy.services.accounts.of_default().tools.submitter
    original, release = submitter.submit, asyncio.Event()

    async def submit(ask):
        if model_id.encode() in ask.body:
            await release.wait()
        return await original(ask)

    submitter.submit = submit
    return release


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


async def test_a_bad_key_is_told_plainly(start, upstream) -> None:
    proxy = await start(await upstream(api_keys=frozenset({"tml-right"})))
    for headers in ({}, {"X_API_Key": "tml-wrong"}):
        answer = await proxy.post("/v1/models", {"base_model": "sandbox/tiny-1"}, **headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "api_key_refused")
    body = {"base_model": "sandbox/tiny-1"}
    right = await proxy.post("/v1/models", body, X_API_Key="tml-right")
    assert right.status_code == 200


async def test_no_upstream_is_told_plainly_and_the_breaker_opens(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = await start(f"http://127.0.0.1:{port}")
    answer = await proxy.post("/v1/models", {"base_model": "x"})
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unreachable")
    assert answer.json()["retryable"] is True
    answer = await proxy.post("/v1/models", {"base_model": "x"})
    assert answer.json()["code"] in {"upstream_unreachable", "circuit_open"}
    answer = await proxy.post("/v1/models", {"base_model": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "circuit_open")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    (breaker,) = (await proxy.client.get("/breakers")).json()["breakers"]
    assert (breaker["state"], breaker["consecutive_failures"] >= 5) == ("open", True)
    ready = await proxy.client.get("/health/ready")
    assert ready.status_code == 503
    assert "does not answer" in ready.json()["reason"] or "open" in ready.json()["reason"]


async def test_models_of_an_ended_session_say_so_and_a_new_one_works(start, upstream) -> None:
    proxy = await start(await upstream())
    model_id = await proxy.create()
    account = proxy.proxy.services.accounts.of_default()
    account.session.lost(account.session.current, "its heartbeat was answered 410")
    dead = await train(proxy, model_id, [datum(1)])
    assert (dead.status_code, dead.json()["code"]) == (410, "model_gone")
    assert "load the weights you saved" in dead.json()["detail"]
    fresh = await proxy.create()
    assert (await train(proxy, fresh, [datum(1)])).status_code == 200


BAD_BODIES = [
    (b'{"model_id": "m", "data": [}', 400, "invalid_json", "byte"),
    (b"", 400, "invalid_json", ""),
    (b'{"model_id": 5, "data": []}', 422, "invalid_request", "model_id"),
    (b'{"model_id": "m", "data": []}', 422, "invalid_request", "data"),
    (b'{"model_id": "m"}', 422, "invalid_request", "data"),
    (
        b'{"model_id": "m", "data": [{"tokens": [1], "targets": [1, 2]}]}',
        422,
        "invalid_request",
        "0",
    ),
    (
        b'{"model_id": "m", "data": [{"tokens": [99999999999], "targets": [1]}]}',
        422,
        "invalid_request",
        "int32",
    ),
    (
        b'{"model_id": "m", "data": [{"tokens": ["a"], "targets": [1]}]}',
        422,
        "invalid_request",
        "tokens",
    ),
    (
        b'{"model_id": "m", "data": [{"tokens": [1], "targets": [1]}], "loss_fn": "nope"}',
        422,
        "invalid_request",
        "cross_entropy",
    ),
    (
        b'{"model_id": "m", "data": [{"tokens": [1], "targets": [1]}], "los_fn": "x"}',
        422,
        "invalid_request",
        "loss_fn",
    ),
]


@pytest.mark.parametrize(("body", "status", "code", "said"), BAD_BODIES)
async def test_bad_bodies_get_clear_errors(proxy, body, status, code, said) -> None:
    answer = await proxy.post("/v1/forward_backward", body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert said in problem["detail"] + problem.get("pointer", "")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == problem["request_id"]


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


async def test_what_does_not_exist_is_a_problem_too(proxy) -> None:
    missing = await proxy.client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "route_not_found")
    wrong = await proxy.client.get("/v1/forward_backward")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"]


async def test_while_draining_new_calls_are_turned_away(proxy) -> None:
    model_id = await proxy.create()
    await proxy.proxy.drain()
    answer = await train(proxy, model_id, [datum(1)])
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert (await proxy.client.get("/health/ready")).json()["reason"] == "draining"
    assert (await proxy.client.get("/health/live")).status_code == 200


async def test_a_slow_model_does_not_delay_another(start, upstream) -> None:
    """Lanes are independent: one lane's submit hangs, the other trains on."""
    proxy = await start(await upstream())
    slow, quick = await proxy.create(), await proxy.create()
    release = stalled(proxy, slow)
    stuck = asyncio.create_task(train(proxy, slow, [datum(1)]))
    for _ in range(3):
        assert (await train(proxy, quick, [datum(1)])).status_code == 200
    assert not stuck.done()
    release.set()
    assert (await stuck).status_code == 200


async def test_time_is_accounted_for(proxy) -> None:
    model_id = await proxy.create()
    answer = await train(proxy, model_id, [datum(1)])
    parts = [part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")]
    assert parts == ["queue", "linger", "upload", "upstream-queue", "compute"]


async def test_capabilities_and_one_model(proxy) -> None:
    offered = (await proxy.client.get("/v1/capabilities")).json()["models"]
    assert "sandbox/tiny-1" in [model["model_name"] for model in offered]
    model_id = await proxy.create(metadata={"run": "7"})
    shown = (await proxy.client.get(f"/v1/models/{model_id}")).json()
    assert (shown["metadata"], shown["lane"]["next_seq"]) == ({"run": "7"}, 1)

"""`/v1` over real sockets: this proxy in front of the sandbox."""

import asyncio
import socket

import pytest

from tests.api.driving import datum, stalled, step, train


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


async def test_what_does_not_exist_is_a_problem_too(proxy) -> None:
    missing = await proxy.client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "route_not_found")
    wrong = await proxy.client.get("/v1/forward_backward")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"]


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


async def test_capabilities_and_one_model(proxy) -> None:
    offered = (await proxy.client.get("/v1/capabilities")).json()["models"]
    assert "sandbox/tiny-1" in [model["model_name"] for model in offered]
    model_id = await proxy.create(metadata={"run": "7"})
    shown = (await proxy.client.get(f"/v1/models/{model_id}")).json()
    assert (shown["metadata"], shown["lane"]["next_seq"]) == ({"run": "7"}, 1)

"""Lane mode: SDK calls and plain calls to one model share its lane."""

import asyncio
import json

import pytest
import zstandard

from tests.api.driving import datum, stalled, train
from tests.api.driving import step as plain_step
from tests.api.sdk_calls import (
    PROTOBUF,
    json_message,
    lane_of,
    logprobs,
    message,
    output,
    result,
    send,
    step,
)
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.wire.sdk import json_answer


async def made_by_sdk(proxy, **headers: str) -> str:
    """Create a model as an SDK does: in a session of its own."""
    session = await proxy.post(
        "/api/v1/create_session",
        {"tags": [], "sdk_version": "0.38.0", "type": "create_session"},
        **headers,
    )
    body = {
        "session_id": session.json()["session_id"],
        "model_seq_id": 0,
        "base_model": "sandbox/tiny-1",
        "lora_config": {"rank": 8, "seed": 1},
        "type": "create_model",
    }
    made = await proxy.post("/api/v1/create_model", body, **headers)
    done = await result(proxy, made, accept="application/json")
    return done.json()["model_id"]


async def test_a_shell_and_a_notebook_train_one_model_in_one_order(proxy) -> None:
    """SDK and plain calls alternate; each sees what all before it did."""
    model_id = await made_by_sdk(proxy)
    control = await proxy.create()
    first = await result(proxy, await send(proxy, message(model_id, 1, 1, 2)))
    assert (await plain_step(proxy, model_id)).status_code == 200
    second = await train(proxy, model_id, [datum(1), datum(2)])
    stepped = await result(proxy, await step(proxy, model_id, 2), accept="application/json")
    third = await result(proxy, await send(proxy, message(model_id, 3, 1, 2)))

    seen = []
    for turn in range(3):
        trained = await train(proxy, control, [datum(1), datum(2)])
        seen.append(trained.json())
        if turn < 2:
            await plain_step(proxy, control)
    assert second.json()["loss_fn_outputs"] == seen[1]["loss_fn_outputs"]
    assert stepped.json()["metrics"]["grad_norm"] > 0
    for answer, told in ((first, seen[0]), (third, seen[2])):
        as_json = json.loads(json_answer(answer.content))
        assert as_json["loss_fn_outputs"] == told["loss_fn_outputs"]
    lane = lane_of(proxy, model_id)
    assert (lane["next_seq"], lane["calls"], lane["requests"]) == (6, 5, 5)


async def test_a_model_made_by_plain_calls_is_trained_by_an_sdk(proxy) -> None:
    model_id = await proxy.create()
    answer = await result(proxy, await send(proxy, message(model_id, 1, 1)))
    assert len(logprobs(answer)) == 1


async def test_pieces_that_come_first_wait_for_the_first_and_are_answered_at_once(proxy) -> None:
    """As the SDK sends them: the first piece is sent when the others have been answered."""
    model_id = await proxy.create()
    later = [await send(proxy, message(model_id, n, n)) for n in (2, 3)]
    optim = await step(proxy, model_id, 4)
    lane = lane_of(proxy, model_id)
    assert (lane["held_back"], lane["depth"], lane["next_seq"]) == (3, 0, 1)
    first = await send(proxy, message(model_id, 1, 1))
    answers = [await result(proxy, sent) for sent in (first, *later)]
    assert [len(logprobs(answer)) for answer in answers] == [1, 1, 1]
    assert (await result(proxy, optim)).json()["metrics"]["grad_norm"] > 0
    lane = lane_of(proxy, model_id)
    assert (lane["held_back"], lane["next_seq"]) == (0, 5)


async def test_a_repetition_is_the_first_call(proxy) -> None:
    """While it runs and after it has ended: same request_id, one submit, one gradient."""
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    body = message(model_id, 1, 1)
    one = asyncio.ensure_future(send(proxy, body))
    two = asyncio.ensure_future(send(proxy, body))
    while lane_of(proxy, model_id)["on_wire_seq"] is None:
        await asyncio.sleep(0)
    release.set()
    first, second = await one, await two
    await result(proxy, first)
    third = await send(proxy, body)
    ids = {answer.json()["request_id"] for answer in (first, second, third)}
    assert len(ids) == 1
    assert lane_of(proxy, model_id)["requests"] == 1


async def test_a_number_used_for_another_body_is_a_conflict_unless_callers_are_named(proxy) -> None:
    """Several processes on one model each count from 1."""
    model_id = await proxy.create()
    await result(proxy, await send(proxy, message(model_id, 1, 1)))
    refused = await send(proxy, message(model_id, 1, 2))
    assert refused.status_code == 409
    assert "X-Tinkex-Caller" in refused.json()["detail"]
    named = await send(proxy, message(model_id, 1, 2), x_tinkex_caller="worker-2")
    assert len(logprobs(await result(proxy, named))) == 1
    assert lane_of(proxy, model_id)["next_seq"] == 3


async def test_a_number_whose_answer_is_no_longer_kept_is_a_conflict(start, upstream) -> None:
    proxy = await start(await upstream(), calls={"max_kept_answers": 1})
    model_id = await proxy.create()
    first = await send(proxy, message(model_id, 1, 1))
    await result(proxy, first)
    await result(proxy, await send(proxy, message(model_id, 2, 1)))
    again = await send(proxy, message(model_id, 1, 1))
    assert again.status_code == 409
    assert "no longer kept" in again.json()["detail"]
    gone = await proxy.post("/api/v1/retrieve_future", first.json())
    assert gone.status_code == 410


async def test_what_the_upstream_refuses_at_submit_it_refuses_in_its_own_words(proxy) -> None:
    """And the number is free again, for the same call or a better one."""
    model_id = await proxy.create()
    bad = {"model_id": model_id, "seq_id": 1, "path": "tinker://nowhere", "optimizer": True}
    refused = await send(proxy, bad, "load_weights")
    assert refused.status_code == 404
    assert refused.json()["detail"] == "No weights at tinker://nowhere"
    again = await send(proxy, bad, "load_weights")
    assert again.status_code == 404
    answer = await result(proxy, await send(proxy, message(model_id, 1, 1)))
    assert len(logprobs(answer)) == 1
    assert lane_of(proxy, model_id)["next_seq"] == 2


async def test_who_hangs_up_before_his_call_left_takes_it_out(proxy) -> None:
    """Its number can come again, and what came in between has gone its way."""
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    ahead = asyncio.ensure_future(send(proxy, message(model_id, 1, 1)))
    while lane_of(proxy, model_id).get("on_wire_seq") is None:
        await asyncio.sleep(0)
    leaving = asyncio.ensure_future(send(proxy, message(model_id, 2, 2)))
    while lane_of(proxy, model_id)["depth"] == 0:
        await asyncio.sleep(0)
    leaving.cancel()
    while lane_of(proxy, model_id)["depth"] == 1:
        await asyncio.sleep(0)
    release.set()
    await result(proxy, await ahead)
    again = await result(proxy, await send(proxy, message(model_id, 2, 3)))
    assert len(logprobs(again)) == 1
    assert lane_of(proxy, model_id)["requests"] == 2


async def test_callers_who_ask_for_it_share_a_request_and_get_their_own(proxy) -> None:
    """Two SDKs and a plain call: own outputs, own loss, one upstream request, one gradient."""
    model_id, control = await proxy.create(), await proxy.create()
    release = stalled(proxy, model_id)
    ahead = asyncio.ensure_future(step(proxy, model_id, 1, x_tinkex_caller="a"))
    while lane_of(proxy, model_id).get("on_wire_seq") is None:
        await asyncio.sleep(0)
    named = [
        asyncio.ensure_future(
            send(
                proxy,
                message(model_id, seq, *numbers),
                x_tinkex_caller=name,
                x_tinkex_coalesce="on",
            )
        )
        for name, seq, numbers in (("a", 2, (1, 2)), ("b", 1, (3,)))
    ]
    plain = asyncio.ensure_future(train(proxy, model_id, [datum(4)]))
    while lane_of(proxy, model_id)["depth"] < 3:
        await asyncio.sleep(0)
    release.set()
    await ahead
    answers = [await result(proxy, await sent) for sent in named]
    batches = [answer.headers["x-tinkex-batch"] for answer in answers]
    assert sorted(batch.partition("; ")[2] for batch in batches) == [
        "requests=3; datums=4; index=0",
        "requests=3; datums=4; index=1",
    ]
    assert (await plain).json()["batch"]["requests"] == 3

    await plain_step(proxy, control)
    alone = await result(proxy, await send(proxy, message(control, 1, 1, 2, 3, 4)))
    assert [one for answer in answers for one in logprobs(answer)] == logprobs(alone)[:3]
    own = [output(answer).metrics["loss:sum"] for answer in answers]
    whole = output(alone).metrics["loss:sum"]
    assert sum(own) + (await plain).json()["loss"] == pytest.approx(whole, rel=1e-6)
    assert list(output(answers[0]).metrics) == ["loss:sum"]
    norms = [
        (await plain_step(proxy, m)).json()["metrics"]["grad_norm"] for m in (model_id, control)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)


async def test_without_asking_sdk_calls_share_with_nobody(proxy) -> None:
    model_id = await proxy.create()
    sent = await asyncio.gather(
        *(send(proxy, message(model_id, 1, n), x_tinkex_caller=str(n)) for n in range(4))
    )
    answers = [await result(proxy, one) for one in sent]
    assert all("requests=1;" in answer.headers["x-tinkex-batch"] for answer in answers)


async def test_a_model_we_have_not_seen_being_made_is_relayed_with_its_callers_numbers(
    start, upstream
) -> None:
    """After a restart of the proxy, say: its SDK goes on as if there were no proxy."""
    url = await upstream()
    before = await start(url)
    model_id = await made_by_sdk(before)
    await result(before, await send(before, message(model_id, 1, 1)))
    proxy = await start(url)
    sent = await send(proxy, message(model_id, 2, 1))
    assert not sent.json()["request_id"].startswith("tinkex-")
    assert len(logprobs(await result(proxy, sent))) == 1
    assert (await send(proxy, message(model_id, 1, 1))).json()["request_id"].isdigit()
    assert lane_of(proxy, model_id) == {}


@pytest.mark.parametrize("flavours", ["both", "json", "protobuf"])
async def test_an_sdk_of_the_json_generation_is_served_whatever_the_upstream_speaks(
    start, upstream, flavours
) -> None:
    proxy = await start(await upstream(flavours=flavours))
    model_id = await proxy.create()
    sent = await send(proxy, json_message(model_id, 1, 1, 2))
    answer = await result(proxy, sent, accept="application/json")
    told = await train(proxy, model_id, [datum(1), datum(2)])
    assert [len(values) for values in logprobs(answer)] == [8, 8]
    assert answer.json()["loss_fn_outputs"] == told.json()["loss_fn_outputs"]
    scored = json_message(model_id, 2, 1)
    scored["forward_input"] = scored.pop("forward_backward_input")
    forward = await send(proxy, scored, "forward")
    assert len(logprobs(await result(proxy, forward, accept="application/json"))) == 1


@pytest.mark.parametrize("flavours", ["json", "protobuf"])
async def test_json_callers_share_too(start, upstream, flavours) -> None:
    proxy = await start(await upstream(flavours=flavours), sdk={"coalesce": True})
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    ahead = asyncio.ensure_future(plain_step(proxy, model_id))
    while lane_of(proxy, model_id).get("on_wire_seq") is None:
        await asyncio.sleep(0)
    sent = [
        asyncio.ensure_future(send(proxy, json_message(model_id, 1, n), x_tinkex_caller=str(n)))
        for n in (1, 2)
    ]
    while lane_of(proxy, model_id)["depth"] < 2:
        await asyncio.sleep(0)
    release.set()
    await ahead
    answers = [await result(proxy, await one, accept="application/json") for one in sent]
    assert all("requests=2;" in answer.headers["x-tinkex-batch"] for answer in answers)
    scored = await proxy.post("/v1/forward", {"model_id": model_id, "data": [datum(1), datum(2)]})
    both = [one["logprobs"]["data"] for one in scored.json()["loss_fn_outputs"]]
    assert [values for answer in answers for values in logprobs(answer)] == both
    assert answers[0].json()["metrics"]["loss:sum"] == pytest.approx(-sum(both[0]), rel=1e-5)


async def test_compressed_bodies_join_the_lane(proxy) -> None:
    model_id = await proxy.create()
    packed = zstandard.ZstdCompressor().compress(message(model_id, 1, 1))
    sent = await send(proxy, packed, content_encoding="zstd")
    assert len(logprobs(await result(proxy, sent))) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"\xff\xff", {"content_type": PROTOBUF}, 422, "not a protobuf ForwardBackwardRequest"),
        (b"{", {"content_type": "application/json"}, 400, "not JSON"),
        (b"{}", {"content_type": "application/json"}, 422, "model_id"),
        (b'{"model_id":"m","seq_id":1}', {"content_type": "application/json"}, 422, "neither"),
        (message("m", 1), {"content_type": PROTOBUF}, 422, "no data"),
        (b"x", {"content_type": PROTOBUF, "content_encoding": "zstd"}, 422, "not zstd"),
        (b"x", {"content_type": PROTOBUF, "content_encoding": "br"}, 422, "'br'"),
        (message("m", 1, 1), {"x_tinkex_coalesce": "maybe"}, 422, "say on or off"),
    ],
)
async def test_what_cannot_be_read_is_refused_in_the_upstreams_shape(
    proxy, body, headers, status, said
) -> None:
    answer = await send(proxy, body, **headers)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


async def test_who_was_refused_by_us_is_not_waited_for(proxy) -> None:
    """The SDK goes on with the next number, and a better call may still use the old one."""
    model_id = await proxy.create()
    assert (await send(proxy, message(model_id, 1))).status_code == 422
    next_one = await result(proxy, await send(proxy, message(model_id, 2, 1)))
    assert len(logprobs(next_one)) == 1
    better = await result(proxy, await send(proxy, message(model_id, 1, 1)))
    assert len(logprobs(better)) == 1


async def test_while_we_shut_down_results_are_still_delivered(proxy) -> None:
    """New submits are refused in a way that is worth repeating; polls and heartbeats go on."""
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 1, 1))
    await proxy.proxy.drain()
    assert len(logprobs(await result(proxy, sent))) == 1
    refused = await send(proxy, message(model_id, 2, 1))
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    beat = await proxy.post("/api/v1/session_heartbeat", {"session_id": "nobody"})
    assert beat.status_code != 503


async def test_an_open_breaker_takes_nothing_on_but_keeps_what_was(start, upstream) -> None:
    """What waits for an earlier number survives; the earlier one is told when to come back."""
    proxy = await start(await upstream(), circuit_breaker={"timeout_ms": 200})
    model_id = await proxy.create()
    waits = await send(proxy, message(model_id, 2, 2))
    breaker = proxy.proxy.services.accounts.of(None).upstream.breaker
    for _ in range(5):
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "503")
    refused = await send(proxy, message(model_id, 1, 1))
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert (await send(proxy, message(model_id, 2, 2))).json() == waits.json()
    while (first := await send(proxy, message(model_id, 1, 1))).status_code == 503:
        await asyncio.sleep(0)
    assert len(logprobs(await result(proxy, first))) == 1
    assert len(logprobs(await result(proxy, waits))) == 1


async def test_unloading_ends_the_model_for_all(proxy) -> None:
    model_id = await proxy.create()
    done = await result(
        proxy, await send(proxy, {"model_id": model_id, "seq_id": 1}, "unload_model")
    )
    assert done.status_code == 200
    assert (await train(proxy, model_id, [datum(1)])).status_code == 410


async def test_a_call_without_a_number_goes_when_it_comes(proxy) -> None:
    """Old clients may leave seq_id out; nothing can be recognised as a repetition then."""
    model_id = await proxy.create()
    body = {"model_id": model_id, "adam_params": {"learning_rate": 0.1}, "type": "optim_step"}
    first, second = await send(proxy, body, "optim_step"), await send(proxy, body, "optim_step")
    assert first.json()["request_id"] != second.json()["request_id"]
    assert lane_of(proxy, model_id)["calls"] == 2

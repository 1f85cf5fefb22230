"""Large bodies are decoded in a thread, and nobody overtakes them meanwhile."""

import asyncio
import threading
from contextlib import contextmanager

import msgspec
import pytest

from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES

SMALL = {"tokens": [1, 2, 3], "targets": [2, 3, 4]}
TOKENS = 2000
LARGE = [{"tokens": [7] * TOKENS, "targets": [7] * TOKENS, "weights": [0.123456] * TOKENS}] * (
    LARGE_BODY_BYTES // (13 * TOKENS) + 1
)


@contextmanager
def thread_kept_busy(proxy):
    """Nothing that was handed to the thread is done before the block's end."""
    go_on = threading.Event()
    thread = proxy.proxy.services.aside._thread
    thread.submit(go_on.wait, 20)
    try:
        yield thread._work_queue
    finally:
        go_on.set()


async def handed_over(queue, jobs: int = 1) -> None:
    async with asyncio.timeout(20):
        while queue.qsize() < jobs:
            await asyncio.sleep(0)


async def test_a_large_body_is_read_and_answered_beside_the_event_loop(proxy) -> None:
    """While the thread is at it, others are served; a small one never goes there."""
    model_id, other = await proxy.create(), await proxy.create()
    body = {"model_id": model_id, "data": LARGE}
    assert len(msgspec.json.encode(body)) >= LARGE_BODY_BYTES
    with thread_kept_busy(proxy) as queue:
        large = asyncio.create_task(proxy.post("/v1/forward", body))
        await handed_over(queue)
        assert (await proxy.client.get("/health/live")).status_code == 200
        assert (await proxy.client.get(f"/v1/models/{other}")).status_code == 200
        assert not large.done()
    answer = await large
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["loss_fn_outputs"]) == len(LARGE)
    with thread_kept_busy(proxy):
        small = await proxy.post("/v1/forward_backward", {"model_id": other, "data": [SMALL]})
    assert small.status_code == 200


@pytest.mark.parametrize("path", ["forward_backward", "forward_backward_batch"])
async def test_what_comes_after_a_promise_stays_behind_it(proxy, path) -> None:
    """The caller has its 202 before the body is decoded, and goes on at once."""
    model_id = await proxy.create()
    one = {"model_id": model_id, "data": LARGE}
    body = one if path == "forward_backward" else {"requests": [{"model_id": 7}, one]}
    with thread_kept_busy(proxy) as queue:
        promised = await proxy.post(f"/v1/{path}", body, prefer="respond-async")
        assert promised.status_code == 202
        await handed_over(queue)
        step = asyncio.create_task(proxy.post("/v1/optim_step", {"model_id": model_id}))
        steps = asyncio.create_task(
            proxy.post("/v1/optim_step_batch", {"requests": [{"model_id": model_id}]})
        )
        last = asyncio.create_task(
            proxy.post("/v1/forward_backward", {"model_id": model_id, "data": [SMALL]})
        )
        async with asyncio.timeout(20):
            while proxy.proxy.services.ledger.running < 4:
                await asyncio.sleep(0)
        lane = (await proxy.client.get(f"/v1/models/{model_id}")).json()["lane"]
        assert lane["depth"] == 0, "nothing has overtaken it"
    assert [(await done).status_code for done in (step, steps, last)] == [200, 200, 200]
    answer = await proxy.client.get(promised.headers["location"], params={"wait": 20})
    result = answer.json()
    if path == "forward_backward_batch":
        refused, result = result["results"]
        assert (refused["status"], result["status"]) == ("error", "ok")
    assert result["batch"]["id"] == f"{model_id}#1"
    assert (await last).json()["batch"]["id"] == f"{model_id}#4"


async def test_a_sample_of_the_present_weights_waits_for_them(proxy) -> None:
    model_id = await proxy.create()
    with thread_kept_busy(proxy) as queue:
        body = {"model_id": model_id, "data": LARGE}
        await proxy.post("/v1/forward_backward", body, prefer="respond-async")
        await handed_over(queue)
        wanted = {"model_id": model_id, "prompt": [1, 2], "sampling_params": {"max_tokens": 1}}
        sampling = asyncio.create_task(proxy.post("/v1/sample", wanted))
        async with asyncio.timeout(20):
            while proxy.proxy.services.ledger.running < 2:
                await asyncio.sleep(0)
        assert proxy.proxy.services.accounts.of(None).models[model_id].depth == 0
    assert (await sampling).status_code == 200


async def test_a_call_that_is_no_good_holds_up_nobody(proxy) -> None:
    """Whether it is refused in the thread, or its caller leaves before it is read."""
    model_id = await proxy.create()
    body = {"model_id": model_id, "data": [*LARGE, {"tokens": [1], "targets": ["x"]}]}
    refused = await proxy.post("/v1/forward_backward", body)
    assert refused.status_code == 422
    assert f"/data/{len(LARGE)}/targets/0" in refused.json()["detail"]
    with thread_kept_busy(proxy) as queue:
        body = {"model_id": model_id, "data": LARGE}
        late = await proxy.post("/v1/forward_backward", body, x_request_timeout="0.05")
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert "nothing was sent" in late.json()["detail"]
        step = await proxy.post("/v1/optim_step", {"model_id": model_id})
        assert step.status_code == 200, "it waits for nobody"
        assert queue.qsize() <= 1


async def test_an_idempotency_key_tells_large_bodies_apart(proxy) -> None:
    model_id = await proxy.create()
    body = {"model_id": model_id, "data": LARGE}
    answers = [await proxy.post("/v1/forward", body, idempotency_key="k") for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["x-tinkex-repeats"] == answers[0].headers["x-request-id"]
    body["data"] = [*LARGE, SMALL]
    assert (await proxy.post("/v1/forward", body, idempotency_key="k")).status_code == 409


async def test_an_sdks_large_body_is_opened_beside_the_event_loop(proxy) -> None:
    """Its calls have numbers, so their order is not for the turns to keep."""
    model_id = await proxy.create()
    tokens = {"chunks": [{"type": "encoded_text", "tokens": [7] * TOKENS}]}
    inputs = {
        "target_tokens": {"data": [7] * TOKENS, "dtype": "int64"},
        "weights": {"data": [0.123456] * TOKENS, "dtype": "float32"},
    }
    datum = {"model_input": tokens, "loss_fn_inputs": inputs}
    inner = {"data": [datum] * len(LARGE), "loss_fn": "cross_entropy"}
    body = {"model_id": model_id, "seq_id": 1, "forward_backward_input": inner}
    with thread_kept_busy(proxy) as queue:
        submit = asyncio.create_task(proxy.post("/api/v1/forward_backward", body))
        await handed_over(queue)
        assert (await proxy.client.get("/health/live")).status_code == 200
        assert not submit.done()
    promised = await submit
    assert promised.status_code == 200, promised.text
    asked = {"request_id": promised.json()["request_id"]}
    result = await proxy.post("/api/v1/retrieve_future", asked)
    assert len(result.json()["loss_fn_outputs"]) == len(LARGE)


async def test_a_large_answer_is_read_beside_the_event_loop(proxy, monkeypatch) -> None:
    """The thread sees the body, the pieces, the upstream's answer and the caller's."""
    seen = []
    aside = proxy.proxy.services.aside
    submit = aside._thread.submit

    def noted(work, *args):
        seen.append(getattr(work, "func", work).__name__)
        return submit(work, *args)

    monkeypatch.setattr(aside._thread, "submit", noted)
    model_id = await proxy.create()
    answer = await proxy.post("/v1/forward", {"model_id": model_id, "data": LARGE})
    assert answer.status_code == 200
    assert seen == ["decode_training", "_works", "read", "_answer", "encode_answer"]


async def test_a_large_body_under_a_key_keeps_its_place_while_its_digest_is_taken(proxy) -> None:
    """The key is looked up under the digest, which is made in the thread too."""
    model_id = await proxy.create()
    body = {"model_id": model_id, "data": LARGE}
    with thread_kept_busy(proxy) as queue:
        large = asyncio.create_task(proxy.post("/v1/forward_backward", body, idempotency_key="k"))
        await handed_over(queue)
        small = asyncio.create_task(
            proxy.post("/v1/forward_backward", {"model_id": model_id, "data": [SMALL]})
        )
        async with asyncio.timeout(20):
            while proxy.proxy.services.ledger.running < 1:
                await asyncio.sleep(0)
        assert proxy.proxy.services.accounts.of(None).models[model_id].depth == 0
    assert (await large).json()["batch"]["id"] == f"{model_id}#1"
    assert (await small).status_code == 200
    again = await proxy.post("/v1/forward_backward", body, idempotency_key="k")
    assert again.content == (await large).content
    other = await proxy.post(
        "/v1/forward_backward", {**body, "data": LARGE[1:]}, idempotency_key="k"
    )
    assert other.status_code == 409
    assert len(proxy.proxy.services.accounts.of(None).turns) == 0, "nobody waits for those"


@pytest.mark.parametrize("named", ["model_id", "base_model"])
async def test_a_large_sample_under_a_key_waits_neither_for_itself_nor_do_others_for_it(
    proxy, named
) -> None:
    """It has a place while its digest is taken, and the weights it wants are an order behind it."""
    model_id = await proxy.create()
    tokens = [1] * (LARGE_BODY_BYTES // 2)
    which = {named: model_id if named == "model_id" else "sandbox/tiny-1"}
    wanted = {**which, "prompt": tokens, "sampling_params": {"max_tokens": 1}}
    turns = proxy.proxy.services.accounts.of(None).turns
    sent = []
    upstream = proxy.proxy.services.accounts.of(None).tools.submitter
    submit = upstream.submit

    async def submitted(ask):
        sent.append((ask.path, len(turns)))
        return await submit(ask)

    upstream.submit = submitted
    async with asyncio.timeout(20):
        await proxy.post("/v1/sample", wanted, idempotency_key="k")
    assert ("/api/v1/asample", 0) in sent

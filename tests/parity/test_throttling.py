"""Who is held back when the upstream asks for it: the rows RL, BS and SD of docs/parity.md."""

import asyncio

import httpx
import msgspec
import pytest

from tinkex_proxy.assembly import build
from tinkex_proxy.config import Settings
from tinkex_proxy.runtime import trainer
from tinkex_proxy.runtime.sampling import sample
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.wire import plain


async def test_many_first_calls_of_a_key_make_one_account() -> None:
    """RL-01, RL-02: one breaker for a key, however its callers write it and how many come."""
    app = build(Settings.load({"upstream.base_url": "http://127.0.0.1:1"})).app
    inner = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=inner, base_url="http://localhost") as client:
        ways = [{"x-api-key": "tml-a"}, {"authorization": "Bearer tml-a"}] * 10
        asked = (client.get("/v1/models", headers=headers) for headers in ways)
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        await client.get("/v1/models", headers={"x-api-key": "tml-b"})
        breakers = (await client.get("/breakers")).json()["breakers"]
    assert len(breakers) == 2


async def test_nothing_of_a_lane_overtakes_what_is_throttled(
    account, service, scripted, reply
) -> None:
    """RL-03, BS-01: the lane waits as long as it was told, sends that request, and goes on."""
    service.instead["optim_step"] = [reply(429, retry_after_ms="120")]
    steps = [plain.OptimStep(model_id="m")] * 3
    await asyncio.gather(*(trainer.optim_step(account, step, Ticket()) for step in steps))
    sent = [msgspec.json.decode(request.body)["seq_id"] for request in service.requests]
    assert sent == [1, 1, 2, 3]
    (slept,) = scripted.clock.slept
    assert 0.12 <= slept <= 0.12 + 0.25


@pytest.mark.parametrize("tokens", [10, 40_000])
@pytest.mark.parametrize("told_ms", [500, None])
async def test_a_throttled_sample_waits_as_told_whatever_its_size(
    account, service, scripted, reply, tokens, told_ms
) -> None:
    """SD-03: `retry-after-ms` counts, and a second where there is none."""
    headers = {} if told_ms is None else {"retry_after_ms": str(told_ms)}
    least = (told_ms or 1000) / 1000
    service.instead["asample"] = [reply(429, **headers)]
    body = {"base_model": "b", "prompt": [1] * tokens, "sampling_params": {"max_tokens": 1}}
    wanted = plain.decode_sample(msgspec.json.encode(body))
    answer = await sample(account, wanted, Ticket())
    assert answer.sequences[0].tokens == [1]
    (slept,) = scripted.clock.slept
    assert least <= slept <= least + 0.25

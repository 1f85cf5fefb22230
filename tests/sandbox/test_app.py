"""The application as a whole."""

import asyncio
import logging

import pytest
from starlette.testclient import TestClient
from threadpoolctl import threadpool_info

from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options


async def test_it_says_when_it_starts_that_it_is_a_sandbox(start, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="tinkex_proxy.sandbox"):
        await start(models=("sandbox/a", "sandbox/b"))
    assert "sandbox" in caplog.text
    assert "sandbox/a, sandbox/b" in caplog.text
    assert "not a service" in caplog.text


async def test_two_in_one_process_share_nothing(start) -> None:
    one, other = await start(), await start()
    await one.model()
    assert (await one.get("/api/v1/sessions")).json()["sessions"] != []
    assert (await other.get("/api/v1/sessions")).json()["sessions"] == []


@pytest.mark.parametrize("flavours", ["both", "json"])
async def test_the_same_calls_give_the_same_numbers(start, training, flavours: str) -> None:
    async def run(**options: object) -> list[object]:
        sandbox = await start(flavours=flavours, **options)
        model_id = await sandbox.model()
        results = [await sandbox.call("forward_backward", training(model_id, 1))]
        results.append(await sandbox.call("optim_step", {"model_id": model_id, "seq_id": 2}))
        results.append((await sandbox.inspect(model_id))["weights_digest"])
        sample = {"prompt": {"chunks": [{"tokens": [1]}]}, "sampling_params": {"max_tokens": 5}}
        results.append(await sandbox.call("asample", {**sample, "base_model": "sandbox/tiny-1"}))
        return results

    assert await run() == await run()
    assert (await run(seed=1))[0] != (await run(seed=2))[0]


async def test_chunks_of_a_call_may_come_first_one_last(sandbox, training) -> None:
    """As the SDK sends them: the others' submits are answered before the first is sent."""
    model_id = await sandbox.model()
    ids = [
        await sandbox.submit("forward_backward", training(model_id, seq_id)) for seq_id in (2, 3)
    ]
    stepped = await sandbox.submit("optim_step", {"model_id": model_id, "seq_id": 4})
    assert (await sandbox.inspect(model_id))["waiting"] == [2, 3, 4]
    ids.append(await sandbox.submit("forward_backward", training(model_id, 1)))
    polls = await asyncio.gather(*(sandbox.poll(request_id) for request_id in (*ids, stepped)))
    assert [poll.status_code for poll in polls] == [200] * 4
    seen = await sandbox.inspect(model_id)
    assert (seen["steps"], seen["datums_since_step"], seen["next_seq"]) == (1, 0, 5)


def test_its_arithmetic_shares_no_step_among_processors() -> None:
    """While it serves; whoever else calculates in this process has what it had."""

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    app = create_app(Options())
    before = threads()
    with TestClient(app):
        assert set(threads()) == {1}
    assert threads() == before

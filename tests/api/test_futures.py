"""Answers that are fetched later."""

import asyncio

from tests.api.driving import datum, stalled, train


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


async def test_a_wait_that_is_over_says_pending_and_a_hang_up_changes_nothing(proxy) -> None:
    """Whoever waits for a future only looks: leaving does not take the call back."""
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    accepted = await train(proxy, model_id, [datum(1)], Prefer="respond-async")
    location = accepted.headers["location"]
    for wait in (0, 0.01):
        pending = await proxy.client.get(location, params={"wait": wait})
        assert (pending.status_code, pending.json()["status"]) == (202, "pending")
        assert pending.headers["location"] == location
    entry = proxy.proxy.services.ledger.find("none", accepted.json()["future_id"])
    watching = asyncio.create_task(proxy.client.get(location, params={"wait": 60}))
    while not entry.waiters:
        await asyncio.sleep(0)
    watching.cancel()
    while entry.waiters:
        await asyncio.sleep(0)
    assert not entry.task.done()
    release.set()
    answer = await proxy.client.get(location, params={"wait": 20})
    assert answer.json()["loss"] > 0

"""Answers that are fetched later."""

from tests.api.driving import datum, train


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

import asyncio
import json

import pytest

from tinkex_proxy.runtime.series import SNAPSHOT

DATUM = {"tokens": [1, 2], "targets": [2, 3]}


async def test_a_run_is_shown_under_its_names(proxy) -> None:
    model_id = await proxy.create()
    for _ in range(2):
        body = {"model_id": model_id, "data": [DATUM]}
        loss = (await proxy.post("/v1/forward_backward", body)).json()["loss"]
    assert (await proxy.post("/v1/forward", body)).status_code == 200
    assert (await proxy.post("/v1/optim_step", {"model_id": "nope"})).status_code == 404
    shown = (await proxy.client.get("/metrics/snapshot")).json()
    assert shown["counters"] == {
        "tinkex.requests.total": 5,
        "tinkex.requests.success": 4,
        "tinkex.requests.failure": 1,
    }
    assert shown["gauges"] == {"tinkex.circuit_breaker.state": 0, "tinkex.active_sessions": 1}
    durations = shown["histograms"]["tinkex.request.duration_ms"]
    assert durations["count"] == 5
    assert 0 < durations["min"] <= durations["p50"] <= durations["p99"] <= durations["max"]
    assert shown["histograms"]["tinkex.batch.size"]["count"] == 3
    losses = shown["summaries"]["tinkex.training.loss_total"]
    assert losses["count"] == 2, "a forward trains nothing"
    assert losses["series"][model_id]["last"] == loss


async def test_the_losses_of_an_sdk_are_shown_too(proxy) -> None:
    model_id = await proxy.create()
    chunk = {"type": "encoded_text", "tokens": [1, 2]}
    tensors = {
        "target_tokens": {"data": [2, 3], "dtype": "int64", "shape": [2]},
        "weights": {"data": [1.0, 1.0], "dtype": "float32", "shape": [2]},
    }
    data = [{"model_input": {"chunks": [chunk]}, "loss_fn_inputs": tensors}]
    wanted = {"data": data, "loss_fn": "cross_entropy"}
    for name, field in (
        ("forward", "forward_input"),
        ("forward_backward", "forward_backward_input"),
    ):
        body = {"model_id": model_id, "seq_id": 1 if name == "forward" else 2, field: wanted}
        future = (await proxy.post(f"/api/v1/{name}", body)).json()
        poll = {"request_id": future["request_id"]}
        result = (await proxy.post("/api/v1/retrieve_future", poll)).json()
    shown = (await proxy.client.get("/metrics/snapshot/tinkex.training.loss_total")).json()
    assert (shown["count"], shown["last"]) == (1, result["metrics"]["loss:sum"])
    assert list(shown["series"]) == [model_id]


@pytest.mark.parametrize("name", SNAPSHOT)
async def test_each_name_can_be_asked_for(proxy, name: str) -> None:
    answer = await proxy.client.get(f"/metrics/snapshot/{name}")
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["type"]) == (name, SNAPSHOT[name].kind)


@pytest.mark.parametrize(("method", "path"), [("GET", "snapshot"), ("POST", "reset")])
async def test_a_name_that_is_not_there_is_told(proxy, method: str, path: str) -> None:
    answer = await proxy.client.request(method, f"/metrics/{path}/nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")
    assert "GET /metrics/snapshot lists them" in answer.json()["detail"]


async def test_one_or_all_are_reset(proxy) -> None:
    await proxy.client.get("/v1/models")
    name = "tinkex.requests.total"
    assert (await proxy.post(f"/metrics/reset/{name}")).json() == {"reset": [name]}
    counters = (await proxy.client.get("/metrics/snapshot")).json()["counters"]
    assert (counters[name], counters["tinkex.requests.success"]) == (0, 1)
    scraped = 'http_requests_total{handler="/v1/models",method="GET",status="2xx"} 1.0'
    assert set((await proxy.post("/metrics/reset")).json()["reset"]) == set(SNAPSHOT)
    shown = (await proxy.client.get("/metrics/snapshot")).json()
    assert set(shown["counters"].values()) == {0}
    assert shown["histograms"]["tinkex.request.duration_ms"]["count"] == 0
    assert scraped in (await proxy.client.get("/metrics")).text


async def test_the_state_of_the_breakers_is_one_number(proxy) -> None:
    await proxy.create()
    breaker = proxy.proxy.services.accounts.of_default().upstream.breaker

    async def shown() -> float:
        path = "/metrics/snapshot/tinkex.circuit_breaker.state"
        return (await proxy.client.get(path)).json()["value"]

    assert await shown() == 0
    await proxy.post(f"/breakers/{breaker.id}/open")
    assert await shown() == 1
    await proxy.post(f"/breakers/{breaker.id}/reset")
    assert await shown() == 0


async def test_who_follows_is_told_at_each_interval_until_the_end(start, upstream) -> None:
    proxy = await start(await upstream(), metrics={"snapshot_interval_ms": 20})
    async with proxy.client.stream("GET", "/metrics/events") as answer:
        lines = answer.aiter_lines()
        found: list[dict[str, object]] = []
        async for line in lines:
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
            if len(found) == 2:
                break
        assert found[0]["at"] < found[1]["at"]
        assert set(found[0]) == {"at", "counters", "gauges", "histograms", "summaries"}
        proxy.proxy.snapshots.close()
        async with asyncio.timeout(20):
            async for _ in lines:
                pass


async def test_a_foreign_page_can_reset_nothing(proxy) -> None:
    answer = await proxy.post("/metrics/reset", Origin="http://evil.example")
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


async def test_disabled_http_requests_count_nowhere_and_own_metrics_do(start, upstream) -> None:
    proxy = await start(await upstream(), metrics={"enabled": "false"})
    model_id = await proxy.create()
    await proxy.post("/v1/forward_backward", {"model_id": model_id, "data": [DATUM]})
    proxy.proxy.snapshot.increment("mine")
    shown = (await proxy.client.get("/metrics/snapshot")).json()
    assert shown["counters"].pop("mine") == 1
    assert set(shown["counters"].values()) == {0}
    assert shown["histograms"]["tinkex.request.duration_ms"]["count"] == 0
    assert shown["histograms"]["tinkex.batch.size"]["count"] == 1
    assert shown["summaries"]["tinkex.training.loss_total"]["count"] == 1
    assert (await proxy.client.get("/metrics")).status_code == 404

import asyncio
import socket

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tinkex_proxy.api import operations
from tinkex_proxy.api.http_metrics import METHODS
from tinkex_proxy.api.operations import Readiness
from tinkex_proxy.runtime.futures import QUEUE_STATES
from tinkex_proxy.runtime.series import SERIES

CANARY = "tml-canary-5d1f0c"


def test_what_keeps_us_from_being_ready() -> None:
    readiness = Readiness()
    assert readiness.obstacle() == "starting"
    readiness.started = True
    assert readiness.obstacle() == "the upstream has not been asked yet"
    readiness.reached = True
    assert readiness.obstacle() is None
    readiness.draining = True
    assert readiness.obstacle() == "draining"


async def test_health(proxy) -> None:
    for path in ("/health/live", "/health/startup"):
        answer = await proxy.client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert answer.headers["cache-control"] == "no-store"


def nowhere() -> str:
    """The URL of an upstream that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


async def test_an_upstream_that_is_down_at_the_start_is_named_and_not_fatal(start) -> None:
    proxy = await start(nowhere())
    ready = await proxy.client.get("/health/ready")
    while "not been asked" in ready.json()["reason"]:
        ready = await proxy.client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert "does not answer" in ready.json()["reason"]
    assert (await proxy.client.get("/health/live")).status_code == 200
    (breaker,) = (await proxy.client.get("/breakers")).json()["breakers"]
    assert breaker["counts"]["failure"] == 0


async def test_lanes_version_and_config(proxy) -> None:
    model_id = await proxy.create()
    (lane,) = (await proxy.client.get("/lanes")).json()["lanes"]
    assert (lane["model_id"], lane["state"], lane["depth"]) == (model_id, "alive", 0)
    version = (await proxy.client.get("/version")).json()
    assert (version["transport"], version["upstream_flavours"]) == ("http1", ["protobuf"])
    config = (await proxy.client.get("/config")).json()
    assert config["batching"]["max_batch_size"] == 10


async def test_a_proxy_at_rest_has_a_heartbeat_for_each_session_and_nothing_else(proxy) -> None:
    """A task that is left over would show in `tinkex_proxy_tasks`, which is read when asked for."""

    async def come_to(wanted: float) -> None:
        """An answer is sent before the last task has wound up; one that stays fails the test."""
        async with asyncio.timeout(20):
            while f"tinkex_proxy_tasks {wanted}" not in (await proxy.client.get("/metrics")).text:
                await asyncio.sleep(0)

    await come_to(0.0)
    model_id = await proxy.create()
    datum = {"tokens": [1, 2], "targets": [2, 3]}
    for path, body in [("forward_backward", {"data": [datum]}), ("optim_step", {})]:
        answer = await proxy.post(f"/v1/{path}", {"model_id": model_id, **body})
        assert answer.status_code == 200, answer.text
    await come_to(1.0)


OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


async def test_metrics_in_both_formats(proxy) -> None:
    await proxy.create()
    text = await proxy.client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    assert 'tinkex_proxy_calls_total{code="ok",operation="create_model"} 1.0' in text.text
    assert 'tinkex_proxy_circuit_breaker_state{breaker="' in text.text
    assert "tinkex_proxy_lanes 1.0" in text.text
    assert 'handler="/v1/models"' in text.text
    open_metrics = await proxy.client.get("/metrics", headers=OPEN_METRICS)
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


class Turning(Collector):
    """Families, and how many turns the event loop has had before each is read."""

    def __init__(self) -> None:
        self.turns: list[str] = []

    def collect(self):
        for name in ("one", "two", "three"):
            family = GaugeMetricFamily(name, "Help.", value=len(self.turns))
            asyncio.get_running_loop().call_soon(self.turns.append, name)
            yield family


@pytest.mark.parametrize("headers", [{}, OPEN_METRICS])
async def test_metrics_are_written_family_by_family_with_turns_of_the_event_loop_between(
    headers,
) -> None:
    """So that a scrape holds nobody up for long; what is written is the same."""
    registry = CollectorRegistry()
    Counter("made", "Help.", ("of",), registry=registry).labels("x").inc()
    app, router = FastAPI(), APIRouter()
    operations._metrics(router, registry)
    app.include_router(router)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost"
    ) as client:
        encode, _ = choose_encoder(headers.get("accept", ""))
        assert (await client.get("/metrics", headers=headers)).content == encode(registry)
        registry.register(turning := Turning())
        await asyncio.sleep(0)  # to be registered it is read
        before = len(turning.turns)
        text = (await client.get("/metrics", headers=headers)).text
    for turns, name in enumerate(("one", "two", "three"), before):
        assert f"\n{name} {turns}.0\n" in text


# What the text format, older than these two, calls them.
OLDER_KINDS = {"info": "gauge", "stateset": "gauge"}


@pytest.mark.parametrize(
    ("parse", "headers", "older"),
    [(text_string_to_metric_families, {}, True), (open_metrics_families, OPEN_METRICS, False)],
)
async def test_all_that_is_scraped_is_as_the_table_says(proxy, parse, headers, older) -> None:
    """Both formats can be read; every series is in the table, and every row is there."""
    model_id = await proxy.create()
    tokens = [1, 2]
    body = {"model_id": model_id, "data": [{"tokens": tokens, "targets": tokens}]}
    for _ in range(2):
        traced = {"traceparent": f"00-{'4b' * 16}-{'f0' * 8}-01", "Idempotency-Key": "k"}
        assert (await proxy.post("/v1/forward_backward", body, **traced)).status_code == 200
    text = (await proxy.client.get("/metrics", headers=headers)).text
    found = {}
    for family in parse(text):
        if family.name.endswith("_created") and family.name not in SERIES:
            continue
        name = family.name
        if family.type == "counter" or (family.type == "info" and not older):
            name += {"counter": "_total", "info": "_info"}[family.type]
        found[name], row = family, SERIES[name]
        assert family.type == (OLDER_KINDS.get(row.kind, row.kind) if older else row.kind)
        assert family.documentation == row.text
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(row.labels)
            assert "le" not in sample.labels or row.kind == "histogram"
    assert set(found) == set(SERIES)
    (skew,) = found["tinkex_proxy_upstream_clock_skew_seconds"].samples
    assert abs(skew.value) < 5, "the upstream is on this machine"
    assert ("trace_id" in text) is not older


async def scraped(proxy) -> dict[str, float]:
    """Every series by its name and labels."""
    text = (await proxy.client.get("/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def faults(url: str, *described: dict[str, object]) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.put("/sandbox/faults", json={"faults": described})
        assert answer.status_code == 200, answer.text


async def test_what_was_sent_again_is_shown(start, upstream) -> None:
    """Over sockets: a step that acted and was then answered 500, and a 503 to a poll."""
    url = await upstream()
    proxy = await start(url)
    model_id = await proxy.create()
    before = await scraped(proxy)
    await faults(
        url,
        {"kind": "error", "status": 500, "when": "after", "path": "training", "count": 1},
        {"kind": "error", "status": 503, "path": "polls", "count": 1},
    )
    assert (await proxy.post("/v1/optim_step", {"model_id": model_id})).status_code == 200
    after = await scraped(proxy)
    name = "tinkex_proxy_retries_total"
    assert after[f'{name}{{operation="training",reason="fault"}}'] == 1
    assert after[f'{name}{{operation="poll",reason="fault"}}'] == 1
    (key,) = (await proxy.client.get("/lanes")).json()["keys"]
    assert (key["retries"], key["retries_refused"]) == (2, 0)
    (remaining,) = [n for n in after if n.startswith("tinkex_proxy_retry_budget_remaining{")]
    assert after[remaining] <= 100 <= before[remaining]
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        model = (await client.get(f"/sandbox/models/{model_id}")).json()
    assert model["steps"] == 1


async def test_what_the_upstream_holds_back_is_shown(start, upstream) -> None:
    """A request that is paused, by its state; and a key that was told to slow down."""
    url = await upstream()
    proxy = await start(url)
    model_id = await proxy.create()
    await faults(url, {"kind": "paused", "state": "paused_capacity", "reason": "full"})
    step = asyncio.create_task(proxy.post("/v1/optim_step", {"model_id": model_id}))
    paused = 'tinkex_proxy_queue_state{state="paused_capacity"}'
    while not (shown := await scraped(proxy))[paused]:
        await asyncio.sleep(0)
    states = {name for name in shown if name.startswith("tinkex_proxy_queue_state{")}
    assert states == {f'tinkex_proxy_queue_state{{state="{s}"}}' for s in QUEUE_STATES}
    (key,) = (await proxy.client.get("/lanes")).json()["keys"]
    assert key["queue_states"]["paused_capacity"] == 1
    await faults(url)
    assert (await step).status_code == 200
    assert (await scraped(proxy))[paused] == 0
    refusal = {"kind": "error", "status": 429, "retry_after_s": 1, "count": 1}
    await faults(url, {**refusal, "path": "/api/v1/optim_step"})
    step = asyncio.create_task(proxy.post("/v1/optim_step", {"model_id": model_id}))
    left = "tinkex_proxy_held_back_remaining_seconds{"
    while not any(v for n, v in (await scraped(proxy)).items() if n.startswith(left)):
        await asyncio.sleep(0)
    assert (await step).status_code == 200
    total = "tinkex_proxy_held_back_seconds_total{"
    (held,) = [v for n, v in (await scraped(proxy)).items() if n.startswith(total)]
    assert held == pytest.approx(1)


async def series(proxy) -> int:
    """How many there are, but for the proxy's own question whether the upstream is there."""
    lines = (await proxy.client.get("/metrics")).text.splitlines()
    return sum(1 for line in lines if not line.startswith("#") and '"probe"' not in line)


async def test_junk_paths_make_no_new_series(proxy) -> None:
    async def junk(numbers: range) -> None:
        for n in numbers:
            await proxy.client.get(f"/junk/{n}")
            await proxy.client.get(f"/v1/models/junk{n}")
            await proxy.client.get(f"/v1/futures/junk{n}")

    await junk(range(3))
    before = await series(proxy)
    await junk(range(100, 160))
    assert await series(proxy) == before


async def test_junk_methods_make_no_new_series(proxy, routes) -> None:
    """Those that the parser knows share one label; those that it does not never come to us."""
    assert {method for _, method in routes} <= METHODS, "a method of ours would be called other"
    paths = ("/junk", "/health/live", "/v1/models")
    for path in paths:
        assert (await proxy.client.request("PROPFIND", path)).status_code in {404, 405}
    before = await series(proxy)
    for method in ("LOCK", "M-SEARCH", "OPTIONS", "PATCH", "PURGE", "TRACE", "BREW"):
        for path in paths:
            assert (await proxy.client.request(method, path)).status_code in {400, 404, 405}
    assert await series(proxy) == before


async def test_junk_keys_make_no_new_series(start, monkeypatch) -> None:
    """A caller may bring a new key with every call; the breakers of those before it are gone."""
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__MAX_KEYS", "2")
    proxy = await start(nowhere(), circuit_breaker={"failure_threshold": 1})

    async def junk(numbers: range) -> None:
        for n in numbers:
            answer = await proxy.client.get("/v1/capabilities", headers={"x-api-key": f"junk{n}"})
            assert answer.status_code == 503

    await junk(range(3))
    before = await series(proxy)
    await junk(range(100, 110))
    assert await series(proxy) == before
    assert len((await proxy.client.get("/breakers")).json()["breakers"]) == 2


async def test_no_key_is_shown_anywhere(start, upstream, capsys) -> None:
    """A marker key goes through everything; no output of ours holds it."""
    strict = await upstream(api_keys=frozenset({"tml-other"}))
    proxy = await start(strict)
    proxy.client.headers["x-api-key"] = CANARY
    outputs = [
        await proxy.post("/v1/models", {"base_model": "sandbox/tiny-1"}),
        await proxy.post("/v1/optim_step", {"model_id": "m"}, Idempotency_Key="k"),
        await proxy.client.get("/v1/futures/x"),
    ]
    paths = ("/breakers", "/lanes", "/config", "/version", "/metrics", "/health/ready")
    outputs += [await proxy.client.get(path) for path in paths]
    assert outputs[0].status_code == 401
    said = "".join(str(o.headers) + o.text for o in outputs)
    captured = capsys.readouterr()
    assert CANARY not in said + captured.out + captured.err

"""The traps of the instrumentator, each over a real socket."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry

from tests.api.conftest import listening
from tests.hostile import attack, keys_of, named_by_callers, series_of
from tinkex_proxy.api.http_metrics import SDK_CALLS, instrument
from tinkex_proxy.runtime.events import RequestEnded
from tinkex_proxy.runtime.metrics import Metrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Measured:
    """An app with every kind of route, and what was measured of it."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.registry = CollectorRegistry()
        self.requests: list[int] = []
        self.begun, self.over = asyncio.Event(), asyncio.Event()
        self._routes(self.app)
        metrics = Metrics(self.registry)

        def tell(event: RequestEnded) -> None:
            metrics.on_event(event)
            if event.wanted and event.status is not None:
                self.requests.append(event.status)

        instrument(self.app, self.registry, tell)

    def _routes(self, app: FastAPI) -> None:
        @app.get("/v1/models/{model_id}")
        async def model(model_id: str) -> str:
            return model_id

        @app.get("/v1/slow")
        async def slow() -> None:
            self.begun.set()
            await asyncio.Event().wait()

        @app.get("/v1/fault")
        async def fault() -> None:
            raise RuntimeError

        @app.get("/v1/events")
        async def events() -> StreamingResponse:
            async def told():
                yield b"one"
                await self.over.wait()

            return StreamingResponse(told())

        @app.api_route("/api/v1/{path:path}", methods=["GET", "POST"])
        async def sdk(path: str) -> str:
            return path

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def counted(self, handler: str, status: str, method: str = "GET") -> float | None:
        return self.value("http_requests_total", handler=handler, status=status, method=method)


@pytest.fixture
def measured() -> Measured:
    return Measured()


@pytest.fixture
async def client(measured: Measured):
    async with (
        listening(measured.app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as connected,
    ):
        yield connected


async def test_a_route_is_counted_by_its_template(measured, client) -> None:
    for name in ("a", "b"):
        assert (await client.get(f"/v1/models/{name}")).status_code == 200
    assert measured.counted("/v1/models/{model_id}", "2xx") == 2
    assert (await client.get("/nowhere/1")).status_code == 404
    assert measured.counted("none", "4xx") == 1
    assert measured.requests == [200, 200]


async def test_below_the_catch_all_the_sdks_calls_are_told_apart(measured, client) -> None:
    for path in ("asample", "client/config", "retrieve_future", "junk/1", "junk/2"):
        await client.post(f"/api/v1/{path}")
    for path in ("/api/v1/asample", "/api/v1/client/config", "/api/v1/retrieve_future"):
        assert measured.counted(path, "2xx", "POST") == 1
    assert measured.counted("/api/v1/{path:path}", "2xx", "POST") == 2
    assert len(measured.requests) == 4, "a poll is no request for something"


async def test_a_caller_who_leaves_is_no_fault_of_ours(measured) -> None:
    """As its server sees it: the handler is cancelled, or ends without an answer."""
    left = {"type": "http.disconnect"}

    async def receive() -> dict[str, object]:
        await measured.begun.wait()
        return left

    async def send(_: object) -> None:
        raise AssertionError("nobody is there to be answered")

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/slow",
        "raw_path": b"/v1/slow",
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("localhost", 80),
    }
    serving = asyncio.create_task(measured.app(scope, receive, send))
    await measured.begun.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert measured.counted("/v1/slow", "none") == 1
    assert measured.counted("/v1/slow", "5xx") is None
    assert measured.requests == []


async def test_a_fault_of_ours_is_one(measured, client) -> None:
    assert (await client.get("/v1/fault")).status_code == 500
    assert measured.counted("/v1/fault", "5xx") == 1


async def test_an_endless_answer_is_measured_to_its_beginning(measured, client) -> None:
    async with client.stream("GET", "/v1/events") as answer:
        assert await anext(answer.aiter_raw()) == b"one"
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < 0.05:
            await asyncio.sleep(0)
        measured.over.set()
    while measured.counted("/v1/events", "2xx") is None:
        await asyncio.sleep(0)
    took = measured.value("http_request_duration_seconds_sum", handler="/v1/events", method="GET")
    assert took < 0.05


@pytest.mark.parametrize(
    ("traceparent", "shown"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", True),
        (f"00-{TRACE}-00f067aa0ba902b7-00", False),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        ("junk", False),
    ],
)
async def test_a_trace_that_is_recorded_is_an_exemplar(
    measured, client, traceparent: str, shown: bool
) -> None:
    await client.get("/v1/models/a", headers={"traceparent": traceparent})
    samples = [s for family in measured.registry.collect() for s in family.samples]
    exemplars = [s.exemplar for s in samples if s.exemplar is not None]
    assert [e.labels for e in exemplars] == ([{"trace_id": TRACE}] if shown else [])


async def test_methods_that_nobody_takes_are_one(measured, client) -> None:
    for method in ("LOCK", "PURGE", "M-SEARCH", "PATCH"):
        await client.request(method, "/v1/models/a")
    samples = [s.labels for f in measured.registry.collect() for s in f.samples]
    assert {labels["method"] for labels in samples if "method" in labels} == {"other"}


async def test_hostile_requests_make_no_new_series(proxy) -> None:
    """Some thousands; tests/e2e/test_metrics.py makes a hundred thousand."""

    async def scraped() -> str:
        return (await proxy.client.get("/metrics")).text

    await attack(proxy.url, range(1000))
    before = await scraped()
    assert await attack(proxy.url, range(1000, 4000)) == 3000
    after = await scraped()
    assert named_by_callers(series_of(after)) == []
    # What the proxy did meanwhile may be new: a probe, a heartbeat, a call that was withdrawn.
    assert len(series_of(after) - series_of(before)) < 50
    assert len(keys_of(after)) <= 2 * 64, "the breaker and the key_id of upstream.max_keys keys"
    assert "tinkex_proxy_series_refused_total 0.0" in after


def test_what_a_caller_made_up_would_be_seen() -> None:
    series = ['a{handler="/v1/x17"}', 'a{model="m17"}', 'a{le="+Inf"}', 'a{key="tml-3"}']
    assert len(named_by_callers(series)) == 3


def test_the_calls_that_are_told_apart_are_few() -> None:
    assert len(SDK_CALLS) < 30

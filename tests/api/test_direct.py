"""Callers' calls past the framework: the same answers, measured the same."""

import httpx
import pytest

from tests.api.conftest import Running

SHOWN = {"x-api-key": "tml-direct"}


@pytest.fixture
async def framework(proxy: Running):
    """The framework's app itself, behind which every call stood before."""
    transport = httpx.ASGITransport(proxy.proxy.app._app._app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("HEAD", "/v1/models"),
        ("PUT", "/v1/models"),
        ("GET", "/v1/models/absent"),
        ("GET", "/v1/nothing"),
        ("POST", "/v1/forward_backward"),
        ("POST", "/v1/models/"),
        ("GET", "/api/v1/healthz"),
        ("DELETE", "/api/v1/healthz"),
        ("GET", "/api/v1/anything"),
        ("GET", "/health/live"),
    ],
)
async def test_every_answer_is_the_frameworks(proxy, framework, method: str, path: str) -> None:
    ours = await proxy.client.request(method, path, headers=SHOWN)
    theirs = await framework.request(method, path, headers=SHOWN)
    assert (ours.status_code, ours.content[:20]) == (theirs.status_code, theirs.content[:20])
    assert ours.headers.get("content-type") == theirs.headers.get("content-type")


async def test_every_fixed_path_of_a_caller_is_found(proxy, routes) -> None:
    direct = proxy.proxy.app._app
    fixed = {
        (method, path) for path, method in routes if path.startswith("/v1/") and "{" not in path
    }
    assert len(fixed) > 10
    assert fixed <= set(direct._found)
    assert ("POST", "/api/v1/asample") in direct._found


async def test_requests_are_counted_by_their_path(proxy) -> None:
    for _ in range(3):
        await proxy.client.get("/v1/models")
    await proxy.client.post("/api/v1/telemetry", json={})
    text = (await proxy.client.get("/metrics")).text
    assert 'http_requests_total{handler="/v1/models",method="GET",status="2xx"} 3.0' in text
    assert 'handler="/api/v1/telemetry"' in text

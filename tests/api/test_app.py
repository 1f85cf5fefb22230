import asyncio
import re


async def test_paths_and_methods_that_do_not_exist_are_problems(proxy) -> None:
    for method, path, status, code in (
        ("GET", "/nothing", 404, "route_not_found"),
        ("POST", "/health/live", 405, "method_not_allowed"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
    ):
        answer = await proxy.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_the_guard_stands_in_front_of_every_route(proxy, routes) -> None:
    """Whatever is added later, a foreign host or page reaches none of it."""
    assert len(routes) > 20
    for path, method in routes:
        here = re.sub(r"\{\w+\}", "x", path)
        foreign = await proxy.client.request(method, here, headers={"host": "evil.example"})
        assert foreign.status_code == 421, path
        origin = {"origin": "http://evil.example"}
        page = await proxy.client.request(method, here, headers=origin)
        assert page.status_code == 403, path


async def test_the_api_page_needs_no_other_host(proxy) -> None:
    """A sidecar may have no way out: every script and style of /docs is ours."""
    page = await proxy.client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert asset in page.text
        assert (await proxy.client.get(f"/static-offline-docs/{asset}")).status_code == 200


async def test_http_metrics_can_be_switched_off(start, upstream) -> None:
    proxy = await start(await upstream(), metrics={"enabled": False})
    assert (await proxy.client.get("/metrics")).status_code == 404
    assert (await proxy.client.get("/health/live")).status_code == 200


async def test_a_model_in_the_making_keeps_its_account(start, upstream, monkeypatch) -> None:
    """Room for one key: another key is told to wait, and does not cost the first its model."""
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__MAX_KEYS", "1")
    proxy = await start(await upstream(tick_s=0.2))
    making = asyncio.create_task(proxy.create())
    while not proxy.proxy.services.ledger.running:
        await asyncio.sleep(0)
    other = await proxy.client.get("/v1/models", headers={"x-api-key": "tml-other"})
    assert (other.status_code, other.json()["code"]) == (503, "too_many_keys")
    assert int(other.headers["retry-after"]) > 0
    assert (await proxy.client.get(f"/v1/models/{await making}")).status_code == 200


async def test_a_bug_of_ours_is_a_problem_without_its_story(proxy, monkeypatch, capsys) -> None:
    """The caller gets no stack trace; the log has it, and the breaker does not count it."""

    def bug() -> None:
        raise ZeroDivisionError("something private")

    account = proxy.proxy.services.accounts.of_default()
    monkeypatch.setattr(account.upstream.breaker, "check", bug)
    answer = await proxy.post("/v1/sample", {"base_model": "sandbox/tiny-1", "prompt": [1]})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "private" not in answer.text
    said = capsys.readouterr()
    assert "ZeroDivisionError: something private" in said.out + said.err
    text = (await proxy.client.get("/metrics")).text
    assert 'tinkex_proxy_calls_total{code="internal_error",operation="sample"} 1.0' in text

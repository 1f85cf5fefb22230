"""The short way of small plain calls: it does what the other one does, for what is plain."""

import asyncio
import json
from functools import partial

import pytest

from tests.api.driving import datum, paths_noted, stalled
from tests.api.test_calls import hang_up_after
from tests.api.test_sdk_small import TWICE, measured
from tinkex_proxy.api import plain_small
from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES

MODEL = {"base_model": "sandbox/tiny-1", "rank": 4}
SAMPLE = {"base_model": "sandbox/tiny-1", "prompt": [1, 2], "sampling_params": {"max_tokens": 2}}


@pytest.fixture
def shortly(monkeypatch) -> list[str]:
    """The paths of what went the short way."""
    return paths_noted(monkeypatch, plain_small.SmallPlainCalls, "_answer")


async def test_what_is_plain_goes_the_short_way(proxy, shortly) -> None:
    for headers in ({"x-api-key": "tml-mine"}, {}):
        answer = await proxy.client.post("/v1/sample", json=SAMPLE, headers=headers)
        assert (answer.status_code, len(answer.json()["sequences"])) == (200, 1)
    assert shortly == ["/v1/sample"] * 2
    assert len(proxy.proxy.services.accounts) == 2, "each key has its own account"


@pytest.mark.parametrize(
    "headers",
    [
        TWICE,
        [("authorization", "Bearer tml-mine")],
        [("idempotency-key", "k")],
        [("prefer", "respond-async")],
        [("x-request-timeout", "30")],
        [("x-tinkex-coalesce", "off")],
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
    ],
)
async def test_what_is_not_goes_the_other(proxy, shortly, headers) -> None:
    answer = await proxy.client.post("/v1/sample", json=SAMPLE, headers=headers)
    assert answer.status_code in {200, 202}
    assert shortly == []


async def test_with_a_deadline_for_all_calls_all_go_the_other(start, upstream, shortly) -> None:
    proxy = await start(await upstream(), calls={"default_timeout_s": 60})
    assert (await proxy.post("/v1/sample", SAMPLE)).status_code == 200
    assert shortly == []


async def test_what_is_large_or_does_not_say_how_large_it_is_goes_the_other(proxy, shortly) -> None:
    async def pieces():
        yield b"{"
        yield b"}"

    for body in (b" " * LARGE_BODY_BYTES, pieces()):
        answer = await proxy.client.post("/v1/sample", content=body)
        assert answer.status_code in {400, 422}
    assert shortly == []


async def trained(proxy) -> tuple[str, dict[str, object]]:
    model_id = await proxy.create()
    return "/v1/forward_backward", {"model_id": model_id, "data": [datum(1)]}


async def batched(proxy) -> tuple[str, dict[str, object]]:
    path, call = await trained(proxy)
    return f"{path}_batch", {"requests": [call, {"model_id": "none"}]}


async def asked(path: str, body: object, _: object) -> tuple[str, object]:
    return path, body


CALLS = {
    "sample": (partial(asked, "/v1/sample", SAMPLE), 200),
    "training": (trained, 200),
    "batch": (batched, 200),
    "no JSON": (partial(asked, "/v1/sample", b"{"), 400),
    "no call": (partial(asked, "/v1/forward_backward", {"model_id": 1}), 422),
    "no model": (partial(asked, "/v1/optim_step", {"model_id": "none"}), 404),
    "refused": (partial(asked, "/v1/sample", {**SAMPLE, "base_model": "none"}), None),
}


@pytest.mark.parametrize("name", CALLS)
async def test_both_ways_answer_and_tell_the_same(start, upstream, shortly, name) -> None:
    """Status, headers, body and metrics."""
    make, status = CALLS[name]
    url, seen = await upstream(), []
    for headers in ([], TWICE):
        proxy = await start(url)
        path, body = await make(proxy)
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        for _ in range(2):
            answer = await proxy.client.post(path, headers=headers, **sent)
            assert answer.status_code == (status or answer.status_code), answer.text
        own = {"date", "x-request-id", "content-length", "x-tinkex-batch"}
        told = {name: value for name, value in answer.headers.items() if name not in own}
        timing = [part.partition(";")[0] for part in told.pop("server-timing", "").split(", ")]
        said = answer.json()
        kinds = {name: type(value) for name, value in said.items()}
        services = proxy.proxy.services
        left = services.intake.usage, len(services.ledger), services.open.count
        metrics = measured((await proxy.client.get("/metrics")).text)
        seen.append((told, timing, kinds, said.get("detail"), *map(str, left), metrics))
    assert shortly.count(path) == 2
    for one, other in zip(*seen, strict=True):
        assert one == other


async def test_a_fault_of_ours_is_an_answer_and_is_told(proxy, shortly, monkeypatch) -> None:
    for error, code in ((RuntimeError("odd"), "internal_error"), (UpstreamFault("x"), None)):

        async def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("tinkex_proxy.runtime.sampling.sample", fails)
        answer = await proxy.post("/v1/sample", SAMPLE)
        assert answer.status_code == (500 if code else 502)
        assert answer.json()["code"] == (code or "upstream_fault")
    assert shortly == ["/v1/sample"] * 2


async def test_what_does_not_fit_is_shed_and_leaves_nothing(start, upstream, shortly) -> None:
    proxy = await start(await upstream(), admission={"max_calls": 1})
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    body = {"model_id": model_id, "data": [datum(1)]}
    first = asyncio.create_task(proxy.post("/v1/forward_backward", body))
    lane = proxy.proxy.services.accounts.of_default().model(model_id).driver.lane
    while lane.on_wire is None:
        await asyncio.sleep(0)
    shed = await proxy.post("/v1/sample", SAMPLE)
    assert (shed.status_code, shed.json()["code"]) == (503, "overloaded")
    assert shed.headers["retry-after"] == "1"
    release.set()
    assert (await first).status_code == 200
    assert proxy.proxy.services.intake.usage.calls == 0
    assert shortly[1:] == ["/v1/forward_backward", "/v1/sample"]


async def test_a_body_that_is_longer_than_it_may_be(start, upstream, shortly) -> None:
    proxy = await start(await upstream(), server={"max_body_bytes": 1024})
    answer = await proxy.client.post("/v1/sample", content=b" " * 2000)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert shortly == ["/v1/sample"]


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_caller_that_hangs_up_is_counted_as_one_who_left(proxy, shortly, cut_off) -> None:
    """Whose call has left for the upstream, so that it goes on and its answer is kept."""
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    services = proxy.proxy.services
    lane = services.accounts.of_default().model(model_id).driver.lane
    body = b'{"model_id": "%s", "data": [{"tokens": [1, 2], "targets": [2, 3]}]}'
    path = "/v1/forward_backward"
    await hang_up_after(proxy, path, body % model_id.encode(), lambda: lane.on_wire is not None)
    async with asyncio.timeout(20):
        while services.open.count:
            await asyncio.sleep(0)
    assert services.ledger.running == 1
    left = f'http_requests_total{{handler="{path}",method="POST",status="none"}} 1.0'
    assert left in (await proxy.client.get("/metrics")).text
    if cut_off:
        await proxy.proxy.cut_off()
    release.set()
    while services.ledger.running:
        await asyncio.sleep(0)
    assert (services.ledger.kept[0], services.intake.usage.calls) == (int(not cut_off), 0)
    text = (await proxy.client.get("/metrics")).text
    assert left in text, "once"
    code = "withdrawn" if cut_off else "ok"
    assert f'tinkex_proxy_calls_total{{code="{code}",operation="forward_backward"}} 1.0' in text


def raw(path: str, body: object, header: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n{header}"
    return head.encode() + b"\r\n" + content


@pytest.mark.parametrize("header", ["", "idempotency-key: k\r\n", "x-tinkex-coalesce: off\r\n"])
async def test_calls_go_in_the_order_in_which_they_came_whichever_way(
    proxy, shortly, header
) -> None:
    """The second one plain; both on connections of their own, read in one turn of the loop."""
    model_id = await proxy.create()
    driver = proxy.proxy.services.accounts.of_default().model(model_id).driver
    enqueue, works = driver.enqueue, []

    def noted(calls) -> None:
        works.extend(type(call.work).__name__ for call in calls)
        enqueue(calls)

    driver.enqueue = noted
    host, port = proxy.url.removeprefix("http://").split(":")
    streams = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    path, step = "/v1/optim_step", {"model_id": model_id}
    for reader, writer in streams:  # so that both are taken
        writer.write(raw("/v1/optim_step", {"model_id": "none"}))
        assert b"404" in await reader.readuntil(b"\r\n\r\n")
    first = raw("/v1/forward_backward", {"model_id": model_id, "data": [datum(1)]}, header)
    for (_, writer), request in zip(streams, (first, raw(path, step)), strict=True):
        writer.write(request)  # it goes at once
    while len(works) < 2:
        await asyncio.sleep(0.001)
    assert works == ["Training", "Order"]
    for reader, writer in streams:
        while b"200 OK" not in await reader.readuntil(b"\r\n\r\n"):
            pass
        writer.close()


@pytest.mark.parametrize("headers", [[], TWICE])
async def test_who_is_shed_takes_nobodys_place(start, upstream, headers) -> None:
    """Neither that of an idle key, whose session would go with its account."""
    proxy = await start(await upstream(), upstream={"max_keys": 2}, admission={"max_calls": 1})
    busy, idle, new = ({"x-api-key": f"tml-{name}"} for name in ("busy", "idle", "new"))
    made = await proxy.client.post("/v1/models", json=MODEL, headers=busy)
    await proxy.client.post("/v1/sample", json=SAMPLE, headers=idle)
    accounts = proxy.proxy.services.accounts
    model_id = made.json()["model_id"]
    release = stalled(proxy, model_id, "tml-busy")
    body = {"model_id": model_id, "data": [datum(1)]}
    first = asyncio.create_task(proxy.client.post("/v1/forward_backward", json=body, headers=busy))
    while accounts.of("tml-busy").model(model_id).driver.lane.on_wire is None:
        await asyncio.sleep(0)
    before = {each.key_id for each in accounts}
    for path in ("/v1/sample", "/api/v1/asample"):
        shed = await proxy.client.post(path, json=SAMPLE, headers=[*new.items(), *headers])
        assert shed.status_code in {429, 503}, shed.text
    assert {each.key_id for each in accounts} == before
    release.set()
    assert (await first).status_code == 200


async def test_our_end_cuts_it_off_and_its_caller_is_told(proxy, shortly) -> None:
    model_id = await proxy.create()
    stalled(proxy, model_id)
    services = proxy.proxy.services
    lane = services.accounts.of_default().model(model_id).driver.lane
    body = {"model_id": model_id, "data": [datum(1)]}
    call = asyncio.create_task(proxy.post("/v1/forward_backward", body))
    while lane.on_wire is None:
        await asyncio.sleep(0)
    await proxy.proxy.cut_off()
    answer = await call
    assert (answer.status_code, answer.json()["code"]) == (504, "outcome_unknown")
    assert (services.ledger.running, services.intake.usage.calls) == (0, 0)


async def test_an_answer_that_cannot_be_sent_is_a_fault_and_is_counted(
    proxy, monkeypatch, shortly
) -> None:
    monkeypatch.setattr("tinkex_proxy.api.calls.server_timing", lambda _: "a\r\nb")
    answer = await proxy.post("/v1/sample", SAMPLE)
    assert (answer.status_code, shortly) == (500, ["/v1/sample"])
    text = (await proxy.client.get("/metrics")).text
    assert 'http_requests_total{handler="/v1/sample",method="POST",status="5xx"} 1.0' in text

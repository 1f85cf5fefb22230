"""The short way of small calls: it does what the other one does, and is taken by what is plain."""

import asyncio
import logging

import pytest

from tests.api.driving import paths_noted
from tests.api.test_sdk import opened
from tinkex_proxy.api import sdk_small

ASAMPLE = "/api/v1/asample"
# A header that comes twice is looked at more closely, and means nothing.
TWICE = [("x-twice", "a"), ("x-twice", "b")]


@pytest.fixture
def shortly(monkeypatch) -> list[str]:
    """The paths of what went the short way."""
    return paths_noted(monkeypatch, sdk_small.SmallCalls, "_relay")


async def test_what_is_plain_goes_the_short_way(passing, recorder, shortly) -> None:
    """As the SDK sends it, with its key, or without."""
    for headers in ({"x-api-key": "tml-mine"}, {}):
        answer = await passing.client.post(ASAMPLE, json={"a": 1}, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"{}")
        timing = dict(each.split(";dur=") for each in answer.headers["server-timing"].split(", "))
        parts = {name: float(ms) for name, ms in timing.items()}
        assert parts["proxy"] + parts["upload"] == pytest.approx(parts.pop("total"), abs=0.002)
        assert len(parts) == 8
    assert shortly == [ASAMPLE] * 2
    assert [body for _, body in recorder.requests] == [b'{"a":1}'] * 2
    assert b"tml-mine" in recorder.requests[0][0]


@pytest.mark.parametrize(
    "headers",
    [
        TWICE,
        [("authorization", "Bearer tml-mine")],
        [("connection", "keep-alive, x-private")],
        [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")],
        [(b"x-api-key", "tml-\xe4".encode("latin-1"))],
    ],
)
async def test_what_is_not_goes_the_other(passing, shortly, headers) -> None:
    await passing.client.post(ASAMPLE, json={}, headers=headers)
    assert shortly == []


async def test_where_each_line_of_the_log_is_wanted_at_once_all_go_the_other(
    passing, shortly
) -> None:
    log = logging.getLogger("tinkex_proxy")
    before = log.level
    log.setLevel(logging.DEBUG)
    try:
        await passing.client.post(ASAMPLE, json={})
    finally:
        log.setLevel(before)
    assert shortly == []


async def test_what_joins_a_lane_goes_the_other_as_soon_as_there_are_lanes(
    start, recorder, shortly
) -> None:
    for mode in ("lane", "transparent"):
        proxy = await start(recorder.url, sdk={"mode": mode})
        for path in (ASAMPLE, "/api/v1/optim_step", "/api/v1/create_model"):
            await proxy.client.post(path, json={})
        await proxy.client.get("/api/v1/get_server_capabilities")
    assert shortly == [ASAMPLE, ASAMPLE, "/api/v1/optim_step", "/api/v1/create_model"]


async def test_a_body_that_has_not_come_whole_goes_the_other(passing, recorder, shortly) -> None:
    host, port = passing.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {ASAMPLE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n"
    writer.write(head.encode() + b"ab")
    await writer.drain()
    await asyncio.sleep(0)
    while passing.proxy.services.open.count == 0:
        await asyncio.sleep(0.001)
    writer.write(b"cd")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert (shortly, recorder.requests[0][1]) == ([], b"abcd")


def measured(text: str) -> dict[str, float]:
    """Counts of `/metrics`, without what is timed."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    counted = ("_total", "_count", "_calls")
    own = ("http_", "tinkex_proxy_")
    # Of an answer without a body the end comes a moment after its head, or with it; the proxy's own
    # probes come when their time has.
    timed = ("loop_lag", "held_back_seconds", 'part="download"', 'operation="probe"')
    return {
        name: float(value)
        for name, _, value in lines
        if name.startswith(own)
        and name.partition("{")[0].endswith(counted)
        and not any(each in name for each in timed)
    }


ANSWERS = {
    "good": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 200),
    "refused": (b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}", 429),
    "broken": (b"HTTP/1.1 500 Odd\r\ncontent-length: 2\r\n\r\n{}", 500),
    "empty": (b"HTTP/1.1 204 None\r\n\r\n", 204),
    "nonsense": (b"no HTTP at all\r\n\r\n", 429),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_both_ways_answer_and_tell_the_same(start, recorder, shortly, name) -> None:
    """Headers, metrics, what the breaker made of it, what the pages of operators show."""
    recorder.answer, status = ANSWERS[name]
    seen = []
    for headers in ([], TWICE):
        proxy = await start(recorder.url, sdk={"mode": "transparent"})
        for _ in range(3):
            answer = await proxy.client.post(ASAMPLE, json={"a": 1}, headers=headers)
            assert answer.status_code == status
        told = {k: v for k, v in answer.headers.items() if k not in {"date", "x-request-id"}}
        timing = [part.partition(";")[0] for part in told.pop("server-timing").split(", ")]
        metrics = measured((await proxy.client.get("/metrics")).text)
        (breaker,) = (await proxy.client.get("/breakers")).json()["breakers"]
        shown = proxy.proxy.services.intake.usage, breaker["counts"], breaker["last_error"]
        for spread in ("retry-after", "retry-after-ms"):  # at random, where it is ours
            told.pop(spread, None)
        seen.append((answer.content, told, timing, *map(str, shown), metrics))
    assert shortly == [ASAMPLE] * 3
    *others, metrics = zip(*seen, strict=True)
    for one, other in others:
        assert one == other
    assert set(metrics[0].items()) ^ set(metrics[1].items()) == set()


async def test_a_caller_that_hangs_up_ends_its_request(passing, recorder, shortly) -> None:
    recorder.before_answering.clear()
    host, port = passing.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {ASAMPLE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    )
    while not recorder.requests:
        await asyncio.sleep(0.001)
    writer.close()
    async with asyncio.timeout(5):
        await recorder.hung_up.wait()
    while passing.proxy.services.open.count:
        await asyncio.sleep(0.001)
    assert shortly == [ASAMPLE]
    text = (await passing.client.get("/metrics")).text
    assert 'tinkex_proxy_calls_total{code="withdrawn",operation="sdk_submit"} 1.0' in text
    assert passing.proxy.services.intake.usage.calls == 0


async def test_what_is_refused_is_refused_in_the_upstreams_own_shape(passing, shortly) -> None:
    opened(passing)
    answer = await passing.client.post("/api/v1/optim_step", json={})
    assert (answer.status_code, shortly) == (503, ["/api/v1/optim_step"])
    assert "breaker" in answer.json()["detail"]
    assert answer.headers["x-request-id"]


async def test_what_does_not_fit_is_shed(start, recorder, shortly) -> None:
    proxy = await start(recorder.url, sdk={"mode": "transparent"}, admission={"max_calls": 1})
    recorder.before_answering.clear()
    first = asyncio.ensure_future(proxy.client.post(ASAMPLE, json={}))
    while not recorder.requests:
        await asyncio.sleep(0.001)
    assert (await proxy.client.post("/api/v1/optim_step", json={})).status_code in {429, 503}
    recorder.before_answering.set()
    assert (await first).status_code == 200
    assert shortly == [ASAMPLE, "/api/v1/optim_step"]
    assert proxy.proxy.services.intake.usage.calls == 0


async def test_a_body_that_is_longer_than_it_may_be(start, recorder, shortly) -> None:
    proxy = await start(recorder.url, sdk={"mode": "transparent"}, server={"max_body_bytes": 1024})
    answer = await proxy.client.post(ASAMPLE, content=b"x" * 2000)
    assert (answer.status_code, recorder.requests) == (413, [])
    assert proxy.proxy.services.intake.usage.size_bytes == 0


async def test_an_answer_that_cannot_be_sent_is_a_fault_and_is_counted(
    passing, monkeypatch, shortly
) -> None:
    monkeypatch.setattr(sdk_small, "relayed_timing", lambda *_: b"a\r\nb")
    answer = await passing.client.post(ASAMPLE, json={})
    assert answer.status_code == 500
    text = (await passing.client.get("/metrics")).text
    name = f'http_requests_total{{handler="{ASAMPLE}",method="POST",status="5xx"}} 1.0'
    assert name in text

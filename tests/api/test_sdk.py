"""`/api/v1` passes everything on as it comes, and back: against an upstream that records bytes."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tinkex_proxy.api.sdk import operation_of
from tinkex_proxy.core.outcome import Operation, Outcome

SESSION = Path(__file__).parents[1] / "sandbox" / "sdk_session.py"


class Recorder:
    """Keeps the bytes of every request and answers with bytes of the test's choice."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        self.before_answering = asyncio.Event()
        self.before_answering.set()
        self.hung_up = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line
                )
                if b"content-length" in fields:
                    body = await reader.readexactly(int(fields[b"content-length"]))
                else:
                    body = b""
                self.requests.append((head, body))
                if b"healthz" in head.split(b"\r\n")[0]:
                    self.requests.pop()
                else:
                    waiting = asyncio.ensure_future(self.before_answering.wait())
                    leaving = asyncio.ensure_future(reader.read(1))
                    await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
                    if leaving.done():
                        self.hung_up.set()
                        return
                    leaving.cancel()
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recording = Recorder()
    server = await asyncio.start_server(recording.serve, "127.0.0.1", 0, limit=2**20)
    recording.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield recording
    server.close()


@pytest.fixture(params=["pyqwest", "httpx"])
async def passing(start, recorder, request):
    """A proxy in transparent mode in front of the recorder, over either transport."""
    return await start(
        recorder.url, upstream={"transport": request.param}, sdk={"mode": "transparent"}
    )


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/api/v1/forward_backward", Operation.SUBMIT),
        ("POST", "/api/v1/never_heard_of", Operation.SUBMIT),
        ("POST", "/api/v1/retrieve_future", Operation.POLL),
        ("POST", "/api/v1/retrieve_futures", Operation.POLL),
        ("POST", "/api/v1/session_heartbeat", Operation.HEARTBEAT),
        ("GET", "/api/v1/training_runs/a/b", Operation.QUERY),
        ("DELETE", "/api/v1/training_runs/a", Operation.QUERY),
    ],
)
def test_requests_are_judged_by_what_they_are(method, path, operation) -> None:
    assert operation_of(method, path) is operation


async def test_bodies_paths_and_headers_arrive_as_they_left(passing, recorder) -> None:
    """Over a set of made-up requests: known paths and others, any method, any bytes."""
    rng = random.Random(7)  # noqa: S311
    paths = [
        "forward_backward",
        "training_runs/a%2Fb?x=1&y=%20z",
        "made/up:path",
        "retrieve_future",
    ]
    for _ in range(40):
        method = rng.choice(["POST", "PUT", "DELETE", "PATCH", "GET"])
        path = "/api/v1/" + rng.choice(paths)
        body = rng.randbytes(rng.choice([0, 1, 100, 70_000])) if method != "GET" else b""
        headers = {
            "content-type": rng.choice(["application/json", "application/x-protobuf"]),
            "content-encoding": "zstd",
            "x-api-key": "tml-mine",
            "x-stainless-retry-count": str(rng.randrange(9)),
            "accept": "application/x-protobuf",
            "accept-encoding": "gzip, deflate, zstd",
            "user-agent": "AsyncTinker/Python 0.38.0",
        }
        back = rng.randbytes(rng.choice([0, 5, 70_000]))
        status = rng.choice([200, 200, 400, 404, 408, 409, 429])
        recorder.answer = (
            f"HTTP/1.1 {status} Odd\r\nContent-Type: application/x-protobuf\r\nX-Twice: a\r\n"
            f"X-Twice: b\r\nContent-Encoding: zstd\r\nContent-Length: {len(back)}\r\n\r\n"
        ).encode() + back
        recorder.requests.clear()
        request = httpx.Request(
            method, passing.url + path, headers={**headers, "host": "localhost"}, content=body
        )
        answer = await passing.client.send(request, stream=True)
        got = b"".join([piece async for piece in answer.aiter_raw()])
        ((head, seen),) = recorder.requests
        line, *lines = head.decode().split("\r\n")
        assert line == f"{method} {path} HTTP/1.1"
        assert seen == body
        up = dict(entry.lower().split(": ", 1) for entry in lines if entry)
        assert {name: up[name] for name in headers} == {n: v.lower() for n, v in headers.items()}
        assert (answer.status_code, got) == (status, back)
        assert answer.headers["content-encoding"] == "zstd"
        assert answer.headers.get_list("x-twice") == ["a", "b"]


async def test_hop_by_hop_headers_and_ours_stay_here(passing, recorder) -> None:
    headers = {
        "connection": "keep-alive, x-private",
        "x-private": "1",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "proxy-authorization": "secret",
        "x-tinkex-coalesce": "off",
        "x-kept": "1",
    }
    await passing.client.post("/api/v1/x", content=b"{}", headers=headers)
    ((head, _),) = recorder.requests
    low = head.decode().lower()
    assert "x-kept: 1" in low
    for name in ("x-private", "keep-alive:", "te:", "proxy-authorization", "x-tinkex-coalesce"):
        assert f"\r\n{name}" not in low, name


async def test_the_callers_key_goes_up_and_the_configured_one_only_for_who_has_none(
    start, recorder, monkeypatch
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "tml-configured")
    proxy = await start(recorder.url)
    for headers, key in (
        ({}, "x-api-key: tml-configured"),
        ({"x-api-key": "tml-mine"}, "x-api-key: tml-mine"),
        ({"authorization": "Bearer jwt"}, "authorization: bearer jwt"),
    ):
        recorder.requests.clear()
        await proxy.client.post("/api/v1/x", content=b"{}", headers=headers)
        ((head, _),) = recorder.requests
        low = head.decode().lower()
        assert key in low
        assert ("tml-configured" in low) is (not headers)


async def test_a_large_body_goes_up_and_a_large_answer_comes_back(passing, recorder) -> None:
    body = random.Random(1).randbytes(3 * 1024 * 1024)  # noqa: S311
    recorder.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    answer = await passing.client.post("/api/v1/forward_backward", content=body)
    assert answer.content == body
    assert recorder.requests[0][1] == body


async def test_a_body_above_the_cap_is_refused_in_the_upstreams_shape(start, recorder) -> None:
    proxy = await start(recorder.url, server={"max_body_bytes": 5000})
    answer = await proxy.client.post("/api/v1/x", content=b" " * 6000)
    assert answer.status_code == 413
    assert "5000" in answer.json()["detail"]
    assert recorder.requests == []


async def test_who_hangs_up_during_a_long_poll_hangs_up_upstream_too(passing, recorder) -> None:
    recorder.before_answering.clear()
    poll = asyncio.ensure_future(
        passing.client.post("/api/v1/retrieve_future", json={"request_id": "1"})
    )
    while not recorder.requests:
        await asyncio.sleep(0)
    poll.cancel()
    await asyncio.wait([poll])
    await asyncio.wait_for(recorder.hung_up.wait(), 10)
    account = passing.proxy.services.accounts.of_default()
    while account.upstream.breaker.snapshot("u", "k")["counts"]["neutral"] == 0:
        await asyncio.sleep(0)


def opened(proxy, seconds: float = 30.0) -> None:
    """Trip the breaker of callers without a key."""
    breaker = proxy.proxy.services.accounts.of(None).upstream.breaker
    for _ in range(5):
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "503")


async def test_with_the_breaker_open_submits_are_told_when_to_come_back(passing, recorder) -> None:
    """With jitter, so that not all clients come back at once, and never above the SDK's minute."""
    opened(passing)
    waits = []
    for _ in range(20):
        answer = await passing.client.post("/api/v1/optim_step", json={})
        assert answer.status_code == 503
        assert "breaker" in answer.json()["detail"]
        waits.append(int(answer.headers["retry-after"]))
    assert 29 <= min(waits) < max(waits) <= 60
    assert recorder.requests == []


async def test_with_the_breaker_open_polls_are_held_and_heartbeats_pass(start, recorder) -> None:
    proxy = await start(recorder.url, circuit_breaker={"timeout_ms": 300})
    opened(proxy)
    began = asyncio.get_running_loop().time()
    poll = asyncio.ensure_future(
        proxy.client.post("/api/v1/retrieve_future", json={"request_id": "7"})
    )
    beat = await proxy.client.post("/api/v1/session_heartbeat", json={"session_id": "s"})
    assert beat.status_code == 200
    answer = await poll
    assert answer.status_code == 408
    told = answer.json()
    assert (told["type"], told["request_id"]) == ("try_again", "7")
    assert "breaker" in told["queue_state_reason"]
    assert asyncio.get_running_loop().time() - began > 0.2
    again = await proxy.client.post("/api/v1/retrieve_future", json={"request_id": "7"})
    assert again.status_code == 200


async def test_an_upstream_that_is_not_there_is_told_in_its_own_shape(start, recorder) -> None:
    proxy = await start("http://127.0.0.1:1")
    answer = await proxy.client.get("/api/v1/get_server_capabilities")
    assert answer.status_code == 503
    assert "did not answer" in answer.json()["detail"]
    assert answer.headers["retry-after"] in {"1", "2"}


def sdk_session(url: str) -> dict[str, object]:
    ran = subprocess.run(
        [sys.executable, SESSION, url],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "TINKER_API_KEY": "tml-sandbox"},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("mode", ["lane", "transparent"])
async def test_the_official_sdk_sees_the_same_with_and_without_us(start, upstream, mode) -> None:
    """Train, save, resume, sample, ask, be refused: the same numbers, to the last digit.

    Only what the upstream or the proxy makes up differs: names of samples, ids of requests.
    """
    direct = await asyncio.to_thread(sdk_session, await upstream(max_chunk_len=3))
    proxy = await start(await upstream(max_chunk_len=3), sdk={"mode": mode})
    through = await asyncio.to_thread(sdk_session, proxy.url)
    for told in (direct, through):
        for drawn in told["samples"]:
            del drawn["names"]
        told["refusals"] = [re.sub("request_id='.*?'", "", said) for said in told["refusals"]]
    assert through == direct

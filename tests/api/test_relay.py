"""`/api/v1` passes everything on as it comes, and back: against an upstream that records bytes."""

import asyncio
import random

import httpx
import pytest


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


async def test_an_answer_that_we_have_to_see_is_asked_for_uncompressed(start, recorder) -> None:
    """`client/config` in lane mode: the limits in it are lowered to ours."""
    proxy = await start(recorder.url, batching={"max_datums": 9})
    recorder.answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-kept: 1\r\n"
        b'content-length: 27\r\n\r\n{"fwdbwd_max_chunk_len":64}'
    )
    answer = await proxy.post("/api/v1/client/config", {"sdk_version": "0.38.0"})
    assert answer.json()["fwdbwd_max_chunk_len"] == 9
    assert answer.headers["x-kept"] == "1"
    ((head, _),) = recorder.requests
    assert "accept-encoding: identity\r\n" in head.decode().lower()
    recorder.answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nwhy"
    missing = await proxy.post("/api/v1/client/config", {})
    assert (missing.status_code, missing.content) == (404, b"why")


async def test_an_answer_that_breaks_off_is_cut_off_not_completed(passing, recorder) -> None:
    """Half of it is out already; the caller must see that it is half."""
    recorder.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 10
    recorder.then_hang_up = True
    with pytest.raises(httpx.RemoteProtocolError):
        await passing.client.post("/api/v1/retrieve_future", content=b"{}")


async def test_a_promise_that_breaks_off_is_as_if_there_were_none(passing, recorder) -> None:
    """It is read whole before any of it goes down, so the SDK is told to come again."""
    recorder.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 10
    recorder.then_hang_up = True
    answer = await passing.client.post("/api/v1/forward_backward", content=b"{}")
    assert answer.status_code == 503
    assert "did not answer" in answer.text


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_may_say_how_long_it_would_be(
    passing, recorder, status, caplog
) -> None:
    recorder.answer = f"HTTP/1.1 {status} Odd\r\nContent-Length: 5\r\nEtag: x\r\n\r\n".encode()
    for _ in range(2):  # and the caller's connection is good for another
        answer = await passing.client.post(passing.url + "/api/v1/asample", content=b"{}")
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["etag"] == "x"
    assert "Exception in ASGI application" not in caplog.text


async def test_what_would_show_our_key_is_not_passed_on(passing, recorder) -> None:
    """An upstream that heeds TRACE gives back the request as it came, the key with it."""
    for path in ("asample", "made/up"):
        answer = await passing.client.request("TRACE", f"{passing.url}/api/v1/{path}")
        assert answer.status_code == 405
    assert recorder.requests == []

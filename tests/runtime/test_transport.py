"""Real sockets: what each way of not answering is called, for both transports."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.transport import Request, Transport, TransportFault
from tinkex_proxy.runtime.transports import open_transport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KINDS = ["auto", "pyqwest", "httpx"]


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def opened(kind: str, base_url: str) -> AsyncIterator[Transport]:
    transport = open_transport(kind, base_url, connect_timeout_s=2)
    try:
        yield transport
    finally:
        await transport.close()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_arrives_as_made_and_the_answer_comes_back_whole(kind: str) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await head_of(reader))
        seen.append(await reader.readexactly(5))
        writer.write(
            b"HTTP/1.1 418 Odd\r\nContent-Type: application/JSON; charset=x\r\n"
            b"Content-Length: 3\r\n\r\nabc"
        )
        await writer.drain()

    async with upstream(handler) as url, opened(kind, url + "/prefix") as transport:
        request = Request("POST", "/a?b=1", {"x-api-key": "secret"}, b"hello", 5)
        answer = await transport.send(request)
    head = seen[0].lower()
    assert head.startswith(b"post /prefix/a?b=1 http/1.1\r\n")
    assert b"x-api-key: secret\r\n" in head
    assert seen[1] == b"hello"
    assert (answer.status, answer.body) == (418, b"abc")
    assert answer.content_type == "application/json"


@pytest.mark.parametrize("kind", KINDS)
async def test_no_listener_means_nothing_was_sent(kind: str) -> None:
    async with upstream(lambda r, w: asyncio.sleep(0)) as url:
        pass
    async with opened(kind, url) as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.send(Request("GET", "/", timeout_s=5))
    assert caught.value.fault is Fault.CONNECT
    assert "efused" in caught.value.detail or "connection" in caught.value.detail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answered", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
async def test_a_connection_cut_in_the_middle_may_have_run(kind: str, answered: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answered)
        await writer.drain()

    async with upstream(handler) as url, opened(kind, url) as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.send(Request("GET", "/", timeout_s=5))
    assert caught.value.fault is Fault.RESET


@pytest.mark.parametrize("kind", KINDS)
async def test_silence_is_a_timeout(kind: str) -> None:
    released = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()

    async with upstream(handler) as url, opened(kind, url) as transport:
        with pytest.raises(TransportFault, match=r"no answer within 0\.05 s") as caught:
            await transport.send(Request("GET", "/", timeout_s=0.05))
        released.set()
    assert caught.value.fault is Fault.TIMEOUT


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects_are_not_followed_and_bodies_not_decompressed(kind: str) -> None:
    """A key must not follow a redirect to another host."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(
            b"HTTP/1.1 307 T\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\n\x1f\x8b"
        )
        await writer.drain()

    async with upstream(handler) as url, opened(kind, url) as transport:
        answer = await transport.send(Request("GET", "/", timeout_s=5))
    assert (answer.status, answer.body) == (307, b"\x1f\x8b")


@pytest.mark.parametrize("kind", KINDS)
async def test_proxy_variables_are_ignored(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the configured origin may see the key, whatever the environment says."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 204 No\r\n\r\n")
        await writer.drain()

    async with upstream(handler) as url, opened(kind, url) as transport:
        assert (await transport.send(Request("GET", "/", timeout_s=5))).status == 204


@pytest.mark.parametrize("kind", KINDS)
async def test_when_we_may_open_no_more_files_nothing_was_sent_and_it_is_our_doing(
    kind: str,
) -> None:
    """Taken for the upstream's fault, it would open the upstream's breaker."""

    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head_of(reader)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with opened(kind, "http://127.0.0.1:1") as first:  # what a process needs only once
        with pytest.raises(TransportFault):
            await first.send(Request("GET", "/"))
    async with upstream(handler) as url, opened(kind, url) as transport:
        next_free = os.dup(0)
        os.close(next_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, hard))
        try:
            with pytest.raises(TransportFault) as caught:
                await transport.send(Request("GET", "/x"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.fault is Fault.NOT_SENT

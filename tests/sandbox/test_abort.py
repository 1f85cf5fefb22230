"""Resets on a real socket, seen by a client that knows nothing but bytes."""

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import uvicorn

from tinkex_proxy.api.listener import ListeningServer, listen_tcp
from tinkex_proxy.sandbox.abort import AbortableProtocol, abort_of
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.faults import Error, Fault, Lost, Reset, Slow
from tinkex_proxy.sandbox.options import Options
from tinkex_proxy.sandbox.plans import Plan

ASK = b"GET /api/v1/healthz HTTP/1.1\r\nhost: sandbox\r\n\r\n"
OWN = ASK.replace(b"/api/v1/healthz", b"/sandbox/faults")


@contextlib.asynccontextmanager
async def serving(*faults: Fault) -> AsyncIterator[Callable[..., bytes]]:
    """A sandbox on a port; gives what sends bytes and reads until the end or a reset."""
    listener = listen_tcp("127.0.0.1", 0)
    app = create_app(Options(faults=Plan(faults=faults)))
    server = ListeningServer(
        uvicorn.Config(app, http=AbortableProtocol, log_config=None, timeout_graceful_shutdown=1)
    )
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    await server.up.wait()

    async def exchange(*pieces: bytes) -> tuple[bytes, str]:
        return await asyncio.to_thread(_exchange, listener.getsockname(), *pieces)

    try:
        yield exchange
    finally:
        server.should_exit = True
        await task


def _exchange(address: tuple[str, int], *pieces: bytes) -> tuple[bytes, str]:
    """What came, and how it ended: by `reset` (RST) or by `end` (FIN)."""
    came = b""
    with socket.create_connection(address, timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            select.select([client], [], [], 0.05 if piece is not pieces[-1] else 0)
        while True:
            try:
                more = client.recv(65536)
            except ConnectionResetError:
                return came, "reset"
            if not more:
                return came, "end"
            came += more


def closing(request: bytes) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


async def test_without_faults_the_connection_ends_in_peace() -> None:
    async with serving() as exchange:
        came, end = await exchange(closing(ASK))
    assert came.startswith(b"HTTP/1.1 200")
    assert end == "end"


@pytest.mark.parametrize(
    "fault", [Reset(), Reset(when="after"), Lost(hold_s=0.01), Lost(when="before", hold_s=0.01)]
)
async def test_a_reset_is_a_tcp_reset_without_a_byte_of_an_answer(fault: Fault) -> None:
    async with serving(fault) as exchange:
        assert await exchange(ASK) == (b"", "reset")


async def test_a_request_comes_whole_before_it_is_reset() -> None:
    """Or whoever sends its body in a second piece would see a broken pipe."""
    post = b"POST /api/v1/x HTTP/1.1\r\nhost: sandbox\r\ncontent-length: 2\r\n\r\n"
    async with serving(Reset()) as exchange:
        assert await exchange(post, b"{}") == (b"", "reset")


async def test_midway_half_of_the_body_comes_and_then_the_reset() -> None:
    async with serving() as exchange:
        whole, _ = await exchange(closing(ASK))
    async with serving(Reset(when="midway")) as exchange:
        came, end = await exchange(ASK)
    body = whole.partition(b"\r\n\r\n")[2]
    assert end == "reset"
    assert came.startswith(b"HTTP/1.1 200")
    assert came.partition(b"\r\n\r\n")[2] == body[: len(body) // 2]


async def test_only_the_connection_that_is_hit_is_reset(caplog) -> None:
    """And the server finds nothing wrong with itself."""
    async with serving(Reset(count=1)) as exchange:
        assert await exchange(ASK) == (b"", "reset")
        came, end = await exchange(closing(ASK))
        assert came.startswith(b"HTTP/1.1 200")
        assert end == "end"
        told, _ = await exchange(closing(OWN))
        assert b'"hits":[1]' in told
    assert "ASGI" not in caplog.text


async def test_a_slow_body_arrives_whole() -> None:
    async with serving(Slow(bytes_per_s=1e5)) as exchange:
        came, _ = await exchange(closing(ASK))
    assert came.endswith(b"}")


async def test_an_error_on_a_socket_says_that_a_sandbox_gave_it() -> None:
    async with serving(Error(status=503)) as exchange:
        came, _ = await exchange(closing(ASK))
    assert came.startswith(b"HTTP/1.1 503")
    assert b"server: tinkex-sandbox" in came


def test_a_server_without_the_protocol_cannot_reset() -> None:
    assert abort_of({"type": "http"}) is None
    assert abort_of({"type": "http", "state": {}}) is None


def test_a_connection_that_is_closed_already_is_left_alone() -> None:
    """Its socket is gone; to touch it would be an error."""

    class Closed:
        def is_closing(self) -> bool:
            return True

    protocol = AbortableProtocol.__new__(AbortableProtocol)
    protocol.transport = Closed()
    protocol.abort()

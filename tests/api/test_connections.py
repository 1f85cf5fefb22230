"""Connections end with an answer, or between two, and never with a reset."""

import asyncio
import socket
import struct

import pytest

from tests.api.served import GET, HEAD, Serve, coming
from tinkex_proxy.api import connections, half_closing

LARGE = 8 * 1024 * 1024
RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: a socket that is closed is reset


async def test_who_is_refused_in_the_middle_of_an_upload_reads_why(serve: Serve) -> None:
    """The rest of the body comes after the answer; unread, it would turn the end into a reset."""
    client = await (await serve()).dial()
    client.send(HEAD.format(path="/refused", size=LARGE).encode())
    for _ in range(LARGE // 65536):
        client.send(b"x" * 65536)
        await client.writer.drain()
    assert "connection: close" in await client.answer()
    assert await client.ended()


async def test_who_says_nothing_more_and_stays_is_left_after_a_while(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_closing, "SILENCE_S", 0.01)
    served = await serve()
    client = await served.dial()
    client.send(HEAD.format(path="/refused", size=0).encode())
    assert "connection: close" in await client.answer()
    while served.server.server_state.connections:
        await asyncio.sleep(0)


async def test_who_sends_on_and_on_is_not_listened_to_for_ever(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_closing, "SILENCE_S", 0.01)
    monkeypatch.setattr(half_closing, "LONGEST_S", 0.03)
    served = await serve()
    client = await served.dial()
    client.send(HEAD.format(path="/refused", size=2**40).encode())
    assert "connection: close" in await client.answer()

    async def send_on() -> None:
        while True:
            client.send(b"x" * 1024)
            await client.writer.drain()

    with pytest.raises(ConnectionError):
        await send_on()


async def test_a_request_that_has_come_and_is_not_read_yet_is_answered(serve: Serve) -> None:
    """A connection is looked at before it is ended: the kernel may hold what we have not seen."""
    served = await serve()
    client = await served.dial()
    client.send(GET)
    await client.answer()
    (connection,) = served.server.server_state.connections
    served.server.say_farewell()
    connection.transport.pause_reading()  # as between two turns of a busy event loop
    client.send(GET)
    while not connections._readable(connection.transport):
        await asyncio.sleep(0)
    connection.close_if_idle()
    connection.transport.resume_reading()
    assert "connection: close" in await client.answer()


@pytest.mark.parametrize("sent", [b"", GET[:20]])
async def test_a_connection_that_is_idle_for_too_long_is_ended(serve: Serve, sent: bytes) -> None:
    """Half a request keeps nobody's connection open."""
    served = await serve(timeout_keep_alive=0)
    client = await served.dial()
    client.send(GET + sent)
    assert "connection: close" not in await client.answer()
    assert await client.ended()


async def test_a_client_that_goes_first_leaves_nothing_behind(serve: Serve) -> None:
    served = await serve()
    client = await served.dial()
    client.send(GET)
    await client.answer()
    client.writer.close()
    while served.server.server_state.connections:
        await asyncio.sleep(0)


async def test_what_stands_behind_an_answer_that_meets_a_reset_is_not_begun(serve: Serve) -> None:
    """Its sender has gone; what it asked for would be done for nobody."""
    served = await serve()
    client = await served.dial()
    client.send(GET.replace(b"/ ", b"/whole "))
    await served.began.acquire()
    client.send(GET)
    (connection,) = served.server.server_state.connections
    while not connection.pipeline:
        await asyncio.sleep(0)
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.writer.transport.abort()
    await asyncio.sleep(0.05)
    served.let_go.set()
    while served.server.server_state.connections or served.server.server_state.tasks:
        await asyncio.sleep(0)
    assert served.asked == ["/whole"]


async def test_an_answer_for_which_it_is_too_late_goes_nowhere(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection has ended over the body of its request; that is no fault of ours."""
    served = await serve()
    client = await served.dial()
    client.send(b"POST /whole HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    await served.began.acquire()
    client.send(b"no length\r\n")
    assert b"400 Bad Request" in await client.reader.read()
    served.let_go.set()
    while served.server.server_state.tasks:
        await asyncio.sleep(0)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("path", ["/body", "/whole"])
async def test_who_has_sent_its_body_is_not_told_to_go_on(serve: Serve, path: str) -> None:
    """Behind the answer it would stand before the next one."""
    served = await serve()
    served.let_go.set()
    client = await served.dial()
    head = HEAD.format(path=path, size=2).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")
    for _ in range(2):
        client.send(head.encode() + b"ok")
        assert (await client.answer()).startswith("HTTP/1.1 200 OK")


async def test_who_wants_to_speak_something_else_is_answered_all_the_same(serve: Serve) -> None:
    """Whatever libraries there are that uvicorn would hand the connection to."""
    served = await serve(ws=asyncio.Protocol)
    client = await served.dial()
    head = HEAD.format(path="/read", size=0)
    client.send(
        head.replace("\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").encode()
    )
    async with asyncio.timeout(10):
        assert (await client.answer()).startswith("HTTP/1.1 200 OK")


@pytest.mark.parametrize("announced", ["Content-Length: 35", "Transfer-Encoding: chunked"])
async def test_no_body_passes_for_a_request(
    serve: Serve, announced: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The parser takes a request to speak something else for whole with its head."""
    served = await serve()
    client = await served.dial()
    asking = f"\r\n{announced}\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n".encode()
    client.send(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", asking))
    assert b"400 Bad Request" in await client.reader.readuntil(b"\r\n\r\n")
    client.send(GET)
    assert await client.reader.read() == b"Invalid HTTP request received."
    assert served.asked == []
    assert "Invalid HTTP request received." in caplog.messages


async def test_who_leaves_is_missed_though_another_request_stands_behind(serve: Serve) -> None:
    served = await serve()
    client = await served.dial()
    client.send(GET.replace(b"/ ", b"/gone ") + GET)
    await served.began.acquire()
    client.writer.close()
    async with asyncio.timeout(10):
        await served.let_go.wait()
    assert served.asked == ["/gone"]


async def test_a_request_begins_with_its_small_body_though_that_comes_behind(
    serve: Serve, monkeypatch
) -> None:
    """Many clients send them one after the other."""
    monkeypatch.setattr(connections, "BODY_SOON_S", 60.0)
    served = await serve()
    client = await served.dial()
    for _ in range(2):
        client.send(HEAD.format(path="/body", size=2).encode())
        await coming(served)
        client.send(b"o")
        await coming(served)
        client.send(b"k")
        assert (await client.answer()).startswith("HTTP/1.1 200 OK")
    assert served.asked == ["/body"] * 2


async def test_a_body_that_does_not_come_soon_is_not_waited_for(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr(connections, "BODY_SOON_S", 0.001)
    served = await serve()
    served.let_go.set()
    client = await served.dial()
    client.send(HEAD.format(path="/wait", size=2).encode())
    async with asyncio.timeout(10):
        await served.began.acquire()
    client.send(b"ok")
    assert (await client.answer()).startswith("HTTP/1.1 200 OK")
    assert served.asked == ["/wait"]


@pytest.mark.parametrize(
    "announced",
    [
        f"Content-Length: {connections.HIGH_WATER_LIMIT + 1}",
        "Transfer-Encoding: chunked",
        "Content-Length: 2\r\nExpect: 100-continue",
    ],
)
async def test_what_is_large_or_waits_to_be_asked_for_begins_at_once(
    serve: Serve, monkeypatch, announced: str
) -> None:
    """Of it no more would come."""
    monkeypatch.setattr(connections, "BODY_SOON_S", 60.0)
    served = await serve()
    client = await served.dial()
    client.send(f"POST /wait HTTP/1.1\r\nHost: localhost\r\n{announced}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        await served.began.acquire()


async def test_a_length_of_endless_zeros_is_no_http(serve: Serve) -> None:
    """Python refuses to read a number of so many digits; the parser does not."""
    served = await serve()
    client = await served.dial()
    client.send(HEAD.format(path="/wait", size="0" * 5000 + "2").encode() + b"ok")
    assert b"400 Bad Request" in await client.reader.readuntil(b"\r\n\r\n")
    assert served.asked == []


async def test_what_trails_a_body_is_no_header(serve: Serve) -> None:
    """It would be seen by some who look at headers, and not by others: the guard has looked."""
    served = await serve()
    client = await served.dial()
    head = b"POST /headers HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"2\r\nok\r\n0\r\nHost: evil\r\nX-Api-Key: other\r\n\r\n")
    assert (await client.answer()).startswith("HTTP/1.1 200 OK")
    named = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
    assert served.headers == named


async def test_who_leaves_before_its_body_is_missed(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr(connections, "BODY_SOON_S", 60.0)
    served = await serve()
    client = await served.dial()
    client.send(HEAD.format(path="/gone", size=2).encode())
    await coming(served)
    client.writer.close()
    async with asyncio.timeout(10):
        await served.let_go.wait()
    assert served.asked == ["/gone"]


async def test_a_request_whose_body_is_no_http_does_not_begin(serve: Serve) -> None:
    served = await serve()
    client = await served.dial()
    head = "POST /wait HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head.encode() + b"no length\r\n")
    assert b"400 Bad Request" in await client.reader.readuntil(b"\r\n\r\n")
    assert await client.reader.read() == b"Invalid HTTP request received."
    assert served.asked == []


NO_CHUNK = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"


@pytest.mark.parametrize("nonsense", [b"nonsense\r\n\r\n", NO_CHUNK])
@pytest.mark.parametrize("between", [[], ["/"], ["/", "/other"]])
async def test_nonsense_behind_requests_is_answered_behind_their_answers(
    serve: Serve, between: list[str], nonsense: bytes
) -> None:
    """Such as the end of a body that is longer than its head says: the call before it was made."""
    served = await serve()
    client = await served.dial()
    paths = ["/wait", *between]
    requests = [GET.replace(b"/ ", path.encode() + b" ", 1) for path in paths]
    client.send(b"".join(requests) + nonsense)
    await served.began.acquire()
    client.send(GET)
    while not any(c._nonsense for c in served.server.server_state.connections):
        await asyncio.sleep(0)
    served.let_go.set()
    for _ in paths:
        assert (await client.answer()).startswith("HTTP/1.1 200 OK")
    assert b"400 Bad Request" in await client.reader.readuntil(b"\r\n\r\n")
    assert await client.reader.read() == b"Invalid HTTP request received."
    assert served.asked == paths

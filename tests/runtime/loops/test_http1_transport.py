"""HTTP/1.1 on the event loop, on real sockets, under both loops that it may run on."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime import http1, http1_transport
from tinkex_proxy.runtime.http1 import Connection, request_head
from tinkex_proxy.runtime.http1_transport import Http1Transport
from tinkex_proxy.runtime.transport import Passed, Passing, Request, TransportFault

Handler = Callable[["Peer"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    return here, there


class Peer:
    """A connection as the upstream sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the proxy has closed it."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class Upstream:
    """Runs one handler for each connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = 0


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[Upstream]:
    failures: list[BaseException] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        try:
            await handler(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy closed it
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20)
    here = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield here
    finally:
        server.close()
    assert not failures


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Http1Transport]:
    transport = Http1Transport(url, connect_timeout_s=2)
    try:
        yield transport
    finally:
        await transport.close()


def get(path: str = "/", **more: object) -> Request:
    return Request("GET", path, timeout_s=5, **more)  # type: ignore[arg-type]


def passing(body: bytes | AsyncIterator[bytes] = b"", **more: object) -> Passing:
    headers = more.pop("headers", [])
    method = more.pop("method", "POST")
    return Passing(method, "/x", headers, body, more.pop("timeout_s", 5.0))  # type: ignore[arg-type]


async def whole(passed: Passed) -> bytes:
    return b"".join([piece async for piece in passed.pieces()])


def answering(*parts: bytes) -> Handler:
    """Says the same to everything that has no body."""

    async def handler(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.say(*parts)

    return handler


async def test_a_connection_serves_one_request_after_another() -> None:
    async with upstream(answering(OK)) as there, opened(there.url) as transport:
        for _ in range(5):
            assert (await transport.send(get())).body == b"ok"
    assert there.connections == 1


async def test_concurrent_requests_have_a_connection_each_and_their_own_answers() -> None:
    everybody = asyncio.Barrier(8)

    async def handler(peer: Peer) -> None:
        head = await peer.head()
        await everybody.wait()
        path = head.split()[1]
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async with upstream(handler) as there, opened(there.url) as transport:
        answers = await asyncio.gather(*(transport.send(get(f"/{n}")) for n in range(8)))
    assert [answer.body for answer in answers] == [b"/%d" % n for n in range(8)]
    assert there.connections == 8


@pytest.mark.parametrize(
    ("said", "body"),
    [
        ((OK,), b"ok"),
        (tuple(bytes([one]) for one in OK), b"ok"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Empty:\r\n\r\n",), b""),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), b""),
        ((b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n", OK), b"ok"),
        ((b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK,), b"ok"),
        (
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n",
                b"3\r\nabc\r\n2;x=y\r\nde\r\n",
                b"0\r\nX-After: 1\r\n\r\n",
            ),
            b"abcde",
        ),
    ],
)
async def test_an_answer_is_read_to_its_end_however_it_comes(
    said: tuple[bytes, ...], body: bytes
) -> None:
    """And the connection is good for the next one."""
    async with upstream(answering(*said)) as there, opened(there.url) as transport:
        for _ in range(2):
            answer = await transport.send(get())
            assert answer.body == body
            assert not {"x-early", "x-after", "link"} & set(answer.headers)
            async with transport.relay(passing(method="GET")) as passed:
                assert await whole(passed) == body
    assert there.connections == 1


async def test_header_names_are_in_lower_case_and_repeated_ones_stay() -> None:
    said = b"HTTP/1.1 200 OK\r\nSet-X: a\r\nset-x:  \xe9 \r\nContent-Length: 0\r\n\r\n"
    async with upstream(answering(said)) as there, opened(there.url) as transport:
        passed = await transport.relay_whole(passing(method="GET"))
    assert list(passed.headers) == [
        (b"set-x", b"a"),
        (b"set-x", b"\xe9"),
        (b"content-length", b"0"),
    ]


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nall ", b"of it")

    async with upstream(handler) as there, opened(there.url) as transport:
        assert (await transport.send(get())).body == b"all of it"
        async with transport.relay(passing(method="GET")) as passed:
            assert await whole(passed) == b"all of it"
    assert there.connections == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_answer_to_head_has_no_body_whatever_its_length_says(*, streamed: bool) -> None:
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    async with upstream(answering(said)) as there, opened(there.url) as transport:
        if streamed:
            async with transport.relay(passing(method="HEAD")) as passed:
                assert await whole(passed) == b""
        else:
            passed = await transport.relay_whole(passing(method="HEAD"))
            assert passed.body == b""
    assert (b"content-length", b"9") in passed.headers


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_that_is_to_end_is_not_used_again(said: bytes) -> None:
    async with upstream(answering(said)) as there, opened(there.url) as transport:
        for _ in range(2):
            assert (await transport.send(get())).body == b"ok"
    assert there.connections == 2


async def test_who_asks_for_the_end_of_the_connection_gets_it() -> None:
    async with upstream(answering(OK)) as there, opened(there.url) as transport:
        for _ in range(2):
            await transport.send(get(headers={"connection": "close"}))
    assert there.connections == 2


async def test_an_idle_connection_that_the_upstream_closed_is_not_used() -> None:
    closed = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        peer.writer.close()
        await peer.writer.wait_closed()
        closed.set()

    async with upstream(handler) as there, opened(there.url) as transport:
        for _ in range(3):
            assert (await transport.send(get())).body == b"ok"
            await closed.wait()
            closed.clear()
    assert there.connections == 3


@pytest.mark.parametrize("said", [b"", OK])
async def test_a_connection_is_looked_at_before_it_is_used_again(said: bytes) -> None:
    """Its end has come, or an answer to nothing, and the loop has not read it yet."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        async with opened(f"http://127.0.0.1:{listener.getsockname()[1]}") as transport:
            asked = loop.create_task(transport.send(get()))
            peer, _ = await loop.sock_accept(listener)
            await loop.sock_recv(peer, 1000)
            await loop.sock_sendall(peer, OK)
            await asked
            peer.send(said)
            peer.close()  # and no turn of the loop before the next request
            assert transport._taken() is None


async def test_an_answer_that_nobody_asked_for_is_nobodys() -> None:
    """Else the next request would get it."""

    async def handler(peer: Peer) -> None:
        head = await peer.head()
        await peer.say(OK + OK.replace(b"ok", b"no") if b"/first" in head else OK)
        await peer.gone()

    async with upstream(handler) as there, opened(there.url) as transport:
        assert (await transport.send(get("/first"))).body == b"ok"
        assert (await transport.send(get("/second"))).body == b"ok"
    assert there.connections == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 104 Odd\r\nContent-Length: 3\r\n\r\nabc" + OK, "not HTTP"),
        (b"HTTP/1.1 199 Odd\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "not HTTP"),
        (b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n" + OK, "no status 099"),
        (b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok", "no status 600"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * http1.MAX_HEAD_BYTES + b"\r\n\r\n", "longer than"),
    ],
    ids=[
        *("no HTTP", "two lengths", "length and chunks", "another protocol"),
        *("interim body", "interim chunks", "no status", "no class of status", "endless head"),
    ],
)
async def test_what_is_no_answer_is_taken_for_none(said: bytes, why: str) -> None:
    async with upstream(answering(said)) as there, opened(there.url) as transport:
        for _ in range(2):
            with pytest.raises(TransportFault, match=why) as caught:
                await transport.send(get())
            assert caught.value.fault is Fault.RESET
    assert there.connections == 2


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-more: " + b"y" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"y" * 1000),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx:", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"y" * 1000),
    ],
    ids=["fields", "value", "name", "interim", "trailer", "extension"],
)
async def test_what_is_without_end_in_an_answer_but_its_body_is_cut_off(
    begin: bytes, more: bytes
) -> None:
    """The parser would keep it, and copy it for each piece of it."""
    said = 0

    async def handler(peer: Peer) -> None:
        nonlocal said
        await peer.head()
        await peer.say(begin)
        while said < 64 * 2**20:
            await peer.say(more)
            said += len(more)
        await peer.gone()

    async with upstream(handler) as there, opened(there.url) as transport:
        with pytest.raises(TransportFault, match="longer than") as caught:
            await transport.send(get())
    assert caught.value.fault is Fault.RESET


async def test_a_body_is_no_head_without_end_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http1, "MAX_HEAD_BYTES", 100)
    head, chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"62\r\n" + b"a" * 98
    here, there = tcp_pair()
    with here, there:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, sock=here)
        connection.ask(request_head("GET", "/", [], 0))
        for part in (head, *[chunk, b"\r", b"\n"] * 9, b"0\r\n", b"\r\n"):
            connection.data_received(part)
        assert await connection.whole() == b"a" * 882
        connection.close()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_body_goes_up_in_chunks_where_its_length_is_not_known() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.head())
        seen.append(await peer.reader.readuntil(b"0\r\n\r\n"))
        await peer.say(OK)
        await peer.gone()

    async with upstream(handler) as there, opened(there.url) as transport:
        for _ in range(2):
            body = chunks(b"hello ", b"", b"world")
            assert await whole(await transport.relay_whole(passing(body))) == b"ok"
            break
    assert b"transfer-encoding: chunked\r\n" in seen[0]
    assert seen[1] == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"


async def test_a_body_of_known_length_goes_up_as_it_comes_and_the_connection_stays() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while True:
            head = await peer.head()
            assert head.count(b"content-length: 11\r\n") == 1
            seen.append(await peer.reader.readexactly(11))
            await peer.say(OK)

    async with upstream(handler) as there, opened(there.url) as transport:
        for _ in range(2):
            request = passing(
                chunks(b"hello ", b"", b"world"), headers=[(b"content-length", b"11")]
            )
            async with transport.relay(request) as passed:
                assert await whole(passed) == b"ok"
    assert (seen, there.connections) == ([b"hello world"] * 2, 1)


async def test_a_body_that_is_shorter_than_it_says_is_the_last_on_its_connection() -> None:
    """What comes next would be taken for the rest of it."""

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        assert len(await peer.reader.read()) <= 5

    async with upstream(handler) as there, opened(there.url) as transport:
        for _ in range(2):
            body = passing(chunks(b"hello"), headers=[(b"content-length", b"6")])
            async with transport.relay(body) as passed:
                assert await whole(passed) == b"ok"
    assert there.connections == 2


async def test_a_body_that_is_longer_than_it_says_goes_no_further() -> None:
    """The rest of it would be taken for the next request."""
    seen: list[bytes] = []
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        seen.append(await peer.reader.read())
        gone.set()

    async with upstream(handler) as there, opened(there.url) as transport:
        request = passing(
            chunks(b"hello", b"GET / HTTP/1.1\r\n"), headers=[(b"content-length", b"6")]
        )
        with pytest.raises(TransportFault, match="longer than its 6 bytes"):
            await transport.relay_whole(request)
        await gone.wait()
    assert b"hello".startswith(seen[0])


async def test_an_upload_goes_at_the_upstreams_pace() -> None:
    """What it does not read is not taken from the caller either."""
    taken = 0
    reading = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1024):
            taken += 1
            yield bytes(65536)

    async def handler(peer: Peer) -> None:
        await peer.head()
        await reading.wait()
        await peer.reader.readexactly(1024 * 65536)
        await peer.say(OK)

    length = [(b"content-length", b"67108864")]
    async with upstream(handler) as there, opened(there.url) as transport:
        asked = asyncio.create_task(transport.relay_whole(passing(body(), headers=length)))
        while not any(one._paused for one in transport._used):
            await asyncio.sleep(0)
        for _ in range(4096):  # more than it would need to take everything
            await asyncio.sleep(0)
        assert taken < 1024
        reading.set()
        assert await whole(await asked) == b"ok"
    assert taken == 1024


@pytest.mark.parametrize("stuck", [False, True])
async def test_an_early_answer_ends_the_upload_and_the_connection(*, stuck: bool) -> None:
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    answered = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield bytes(8 * 2**20 if stuck else 10)
        await answered.wait()
        while True:
            yield bytes(10)
            await asyncio.sleep(0)

    async def handler(peer: Peer) -> None:
        head = await peer.head()
        if b"1000000000" in head:
            await peer.say(refused)
            answered.set()
            await peer.gone()
        else:
            await peer.say(OK)

    length = [(b"content-length", b"1000000000")]
    async with upstream(handler) as there, opened(there.url) as transport:
        passed = await transport.relay_whole(passing(body(), headers=length))
        assert (passed.status, await whole(passed)) == (413, b"no")
        assert (await transport.send(get())).body == b"ok"
    assert there.connections == 2


async def test_an_early_answer_to_a_whole_body_ends_the_connection() -> None:
    """What has not gone would be taken for the next request."""

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await peer.gone()

    async with upstream(handler) as there, opened(there.url) as transport:
        for _ in range(2):
            request = Request("POST", "/", {}, bytes(64 * 2**20), 5)
            assert (await transport.send(request)).body == b"ok"
    assert there.connections == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 413 Too Large\r\n\r\nno"])
async def test_the_end_of_an_answer_does_not_wait_for_a_request_that_nobody_reads(
    said: bytes,
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(said)
        peer.writer.write_eof()
        await left.wait()

    left = asyncio.Event()
    async with upstream(handler) as there, opened(there.url) as transport:
        asked = transport.send(Request("POST", "/", {}, bytes(64 * 2**20), 2))
        if said:
            answer = await asked
            assert (answer.status, answer.body) == (413, b"no")
        else:
            with pytest.raises(TransportFault, match="before the answer was complete") as caught:
                await asked
            assert caught.value.fault is Fault.RESET
        left.set()


async def test_an_upload_whose_connection_is_gone_has_got_no_answer() -> None:
    """Though it waited for its caller meanwhile, not for the upstream."""

    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        (connection,) = transport._used
        while not connection._lost:
            await asyncio.sleep(0)
        yield b"more"
        raise AssertionError("it was asked for more")

    async def handler(peer: Peer) -> None:
        await peer.head()

    async with upstream(handler) as there, opened(there.url) as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.relay_whole(passing(body()))
    assert caught.value.fault is Fault.RESET


async def test_a_caller_who_breaks_off_an_upload_breaks_it_off_upstream() -> None:
    ended = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionAbortedError("the caller left")

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.gone()
        ended.set()

    async with upstream(handler) as there, opened(there.url) as transport:
        with pytest.raises(ConnectionAbortedError):
            async with transport.relay(passing(body(), headers=[(b"content-length", b"8")])):
                raise AssertionError("it was answered")
        await ended.wait()


async def test_an_answer_waits_for_its_caller() -> None:
    """What nobody takes is not read: the upstream stalls, and memory does not grow."""
    said = 0

    async def handler(peer: Peer) -> None:
        nonlocal said
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1024 * 65536))
        for _ in range(1024):
            await peer.say(bytes(65536))
            said += 1
        await peer.head()
        await peer.say(OK)

    async with upstream(handler) as there, opened(there.url) as transport:
        async with transport.relay(passing(method="GET")) as passed:
            (connection,) = transport._used
            while connection._transport.is_reading() and said < 1024:
                await asyncio.sleep(0)
            assert said < 1024
            assert len(await whole(passed)) == 1024 * 65536
        assert (await transport.send(get())).body == b"ok"
    assert there.connections == 1


async def test_an_answer_that_breaks_off_says_so_after_what_has_come() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"half")

    got: list[bytes] = []
    async with upstream(handler) as there, opened(there.url) as transport:
        with pytest.raises(TransportFault, match="before the answer was complete") as caught:
            async with transport.relay(passing(method="GET")) as passed:
                got.extend([piece async for piece in passed.pieces()])
    assert caught.value.fault is Fault.RESET


@pytest.mark.parametrize("how", ["send", "relay_whole", "relay", "upload"])
async def test_silence_ends_with_the_time_there_is_and_closes_the_connection(how: str) -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.gone()
        gone.set()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)

    async def relayed(transport: Http1Transport, body: bytes | AsyncIterator[bytes]) -> None:
        async with transport.relay(passing(body, timeout_s=0.05)):
            raise AssertionError("it was answered")

    async with upstream(handler) as there, opened(there.url) as transport:
        ways = {
            "send": lambda: transport.send(Request("GET", "/", timeout_s=0.05)),
            "relay_whole": lambda: transport.relay_whole(passing(timeout_s=0.05)),
            "relay": lambda: relayed(transport, b""),
            "upload": lambda: relayed(transport, endless()),
        }
        with pytest.raises(TransportFault, match=r"no answer within 0\.05 s") as caught:
            await ways[how]()
        await gone.wait()
    assert caught.value.fault is Fault.TIMEOUT


@pytest.mark.parametrize("said", [b"", OK])
async def test_nothing_was_sent_on_a_connection_that_had_ended(said: bytes) -> None:
    """A load balancer without anything behind it ends a connection as soon as it is there."""
    loop = asyncio.get_running_loop()
    here, there = tcp_pair()
    _, connection = await loop.create_connection(Connection, sock=here)
    there.send(said)
    there.close()
    while not connection.closed:
        await asyncio.sleep(0)
    connection.ask(request_head("GET", "/", [], 0))
    with pytest.raises(TransportFault, match="before anything was sent") as caught:
        await connection.whole()
    assert caught.value.fault is Fault.CONNECT


@pytest.mark.parametrize("how", ["send", "relay"])
async def test_who_is_cancelled_leaves_no_connection_behind(how: str) -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        came.set()
        await peer.gone()
        gone.set()

    async def relayed(transport: Http1Transport) -> None:
        async with transport.relay(passing(method="GET")):
            raise AssertionError("it was answered")

    async with upstream(handler) as there, opened(there.url) as transport:
        asked = relayed(transport) if how == "relay" else transport.send(get())
        task = asyncio.ensure_future(asked)
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_a_caller_who_takes_half_an_answer_leaves_no_connection_behind() -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"half")
        await peer.gone()
        gone.set()

    async with upstream(handler) as there, opened(there.url) as transport:
        async with transport.relay(passing(method="GET")) as passed:
            async for _ in passed.pieces():
                break
        await gone.wait()


async def test_the_head_is_told_of_before_the_body_has_come() -> None:
    told = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await told.wait()
        await peer.say(b"ok")

    async with upstream(handler) as there, opened(there.url) as transport:
        assert (await transport.send(get(on_head=told.set))).body == b"ok"


async def test_closing_ends_what_is_idle_and_what_is_under_way() -> None:
    came = asyncio.Event()
    gone: asyncio.Queue[None] = asyncio.Queue()

    async def handler(peer: Peer) -> None:
        if b"/held" not in await peer.head():
            await peer.say(OK)
        else:
            came.set()
        await peer.gone()
        gone.put_nowait(None)

    async with upstream(handler) as there:
        transport = Http1Transport(there.url)
        held = asyncio.create_task(transport.send(get("/held")))
        await came.wait()
        await transport.send(get())
        await transport.close()
        with pytest.raises(TransportFault, match="closed by this side"):
            await held
        await gone.get()
        await gone.get()
        await transport.close()  # again does nothing


async def test_after_the_closing_nothing_is_sent_and_nothing_kept() -> None:
    """Neither by who comes later, nor by who was about to connect: nobody would close it."""
    seen: list[bytes] = []
    gone: asyncio.Queue[None] = asyncio.Queue()

    async def handler(peer: Peer) -> None:
        seen.append(await peer.reader.read())
        gone.put_nowait(None)

    async with upstream(handler) as there:
        transport = Http1Transport(there.url)
        early = asyncio.create_task(transport.send(get()))
        await asyncio.sleep(0)
        await transport.close()
        for late in (early, transport.send(get())):
            with pytest.raises(TransportFault, match="closed by this side") as caught:
                await late
            assert caught.value.fault is Fault.NOT_SENT
            await gone.get()
        assert not transport._used
    assert seen == [b"", b""]


async def test_what_nobody_needs_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_transport, "IDLE_S", 0.02)
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await peer.gone()
        gone.set()

    async with upstream(handler) as there, opened(there.url) as transport:
        await transport.send(get())
        await gone.wait()
        assert (await transport.send(get())).body == b"ok"
    assert there.connections == 2


async def test_what_was_needed_lately_stays() -> None:
    async with upstream(answering(OK)) as there, opened(there.url) as transport:
        for _ in range(2):
            assert (await transport.send(get())).body == b"ok"
            assert transport._sweeping is not None
            transport._sweeping.cancel()
            transport._sweep()
    assert there.connections == 1


async def test_no_more_connections_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_transport, "MAX_IDLE", 1)
    everybody = asyncio.Barrier(3)
    gone: asyncio.Queue[None] = asyncio.Queue()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await everybody.wait()
        await peer.say(OK)
        await peer.gone()
        gone.put_nowait(None)

    async with upstream(handler) as there, opened(there.url) as transport:
        await asyncio.gather(*(transport.send(get()) for _ in range(3)))
        await gone.get()
        await gone.get()
        assert gone.empty()


async def test_a_name_that_does_not_exist_is_no_connection() -> None:
    async with opened("http://no-such-host.invalid") as transport:
        with pytest.raises(TransportFault) as caught:
            await transport.send(get())
    assert caught.value.fault is Fault.CONNECT


async def test_a_connection_that_does_not_come_about_was_not_sent_anything() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # as many as it lets wait, and some
                waiting = stack.enter_context(contextlib.closing(socket.socket()))
                waiting.settimeout(0)
                with contextlib.suppress(BlockingIOError):
                    waiting.connect(address)
            transport = Http1Transport(f"http://127.0.0.1:{address[1]}", connect_timeout_s=0.05)
            with pytest.raises(TransportFault, match=r"no connection within 0\.05 s") as caught:
                await transport.send(get())
            await transport.close()
    assert caught.value.fault is Fault.CONNECT


def _descriptor(connection: Connection) -> int:
    return connection._transport.get_extra_info("socket").fileno()


async def test_a_peer_that_vanishes_is_missed_before_a_long_poll_is_over() -> None:
    async with upstream(answering(OK)) as there, opened(there.url) as transport:
        await transport.send(get())
        (connection,) = transport._idle
        with socket.socket(fileno=os.dup(_descriptor(connection))) as one:
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            after, every, times = (
                one.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
    assert after + every * times <= 60


async def test_a_loop_that_is_late_does_not_take_that_for_the_upstreams_doing() -> None:
    """With thousands of calls at once its time to connect is over before it sees that it has."""
    async with upstream(answering(OK)) as there:
        transport = Http1Transport(there.url, connect_timeout_s=0.0)
        assert (await transport.send(get())).body == b"ok"
        await transport.close()


async def test_the_upstream_is_called_by_its_name_and_nobody_elses() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.head())
        await peer.say(OK)

    async with upstream(handler) as there:
        port = there.url.rpartition(":")[2]
        async with opened(f"http://user:secret@127.0.0.1:{port}") as transport:
            await transport.send(get())
    assert f"host: 127.0.0.1:{port}\r\n".encode() in seen[0]
    assert b"secret" not in seen[0]


async def test_the_upstreams_path_is_escaped_where_it_has_to_be() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        seen.append(await peer.head())
        await peer.say(OK)

    async with upstream(handler) as there, opened(f"{there.url}/a b/é%20(c)") as transport:
        await transport.send(get("/d"))
    assert seen[0].startswith(b"GET /a%20b/%C3%A9%20(c)/d HTTP/1.1\r\n")

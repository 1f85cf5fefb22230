"""Whatever an upstream does, who asks gets the whole of their own answer, or a fault.

A made-up upstream answers in any framing and any pieces, early, in interim parts, with junk behind
it, and breaks off anywhere. It looks as closely at what it is asked: no request may begin in the
middle of another's body. Callers give up anywhere too.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator

import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.http1_transport import Http1Transport
from tinkex_proxy.runtime.transport import Passing, Request, TransportFault, decoded

CALLERS = 12
CALLS = 25
SIZES = (0, 1, 2, 50, 3000, 400_000)
INTERIM = (
    *(b"100 Continue\r\n\r\n", b"103 Early\r\nlink: x\r\n\r\n", b"199 Odd\r\n\r\n") * 5,
    b"199 Broken\r\nContent-Length: 5\r\n\r\nthief",
)
RESET_AT_CLOSE = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s


def text(token: str, size: int) -> bytes:
    """So many bytes that only this one gets."""
    one = f"<{token}>".encode()
    return (one * (size // len(one) + 1))[:size]


class Made:
    """An upstream that is made up as it goes."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.asked: set[str] = set()
        self.wrong: list[BaseException] = []
        self.open: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller has left
        except BaseException as error:
            self.wrong.append(error)
            raise
        finally:
            writer.close()
            self.open.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer once; whether there may be another."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        method, target, version = line.split(" ")
        assert version == "HTTP/1.1", head
        _, token, up, down, patience = target.split("/")
        assert f"x-token: {token}" in fields, head
        assert token not in self.asked  # nothing is sent twice
        self.asked.add(token)
        early = self.dice.random() < 0.1
        if not early:
            await self._body(reader, head, token, int(up))
        if patience == "little" and self.dice.random() < 0.5:
            await self._hold(reader)
            return False
        going = await self._answer(writer, token, int(down), bodiless=method == "HEAD")
        if early and going:
            await self._body(reader, head, token, int(up))
        return going

    async def _body(self, reader: asyncio.StreamReader, head: bytes, token: str, size: int) -> None:
        if b"transfer-encoding: chunked" in head:
            body = b""
            while length := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(length)
                assert await reader.readexactly(2) == b"\r\n"
            assert await reader.readexactly(2) == b"\r\n"
        else:
            assert size == 0 or b"content-length: %d\r\n" % size in head
            body = await reader.readexactly(size)
        assert body == text(token, size)

    async def _hold(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass

    async def _answer(
        self, writer: asyncio.StreamWriter, token: str, size: int, *, bodiless: bool
    ) -> bool:
        dice = self.dice
        framing = dice.choice(("length", "length", "chunks", "chunks", "end"))
        interim = dice.choices(INTERIM, k=dice.choice((0, 0, 3)))
        said = b"".join(b"HTTP/1.1 " + one for one in interim)
        last = dice.random() < 0.1
        going = framing != "end" and not last
        close = (
            dice.choice((b"Connection: Close\r\n", b"connection: x, close\r\n")) if last else b""
        )
        said += b"HTTP/1.1 200 OK\r\nX-Token: %b\r\n%b" % (token.encode(), close)
        said += self._framed(text(token, size), framing, bodiless=bodiless)
        end = dice.random() if framing != "end" else dice.uniform(0.5, 1.0)
        if end < 0.1 and size < 5000:
            # Another's answer right behind, or the beginning of one.
            thief = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthief"
            said += thief[: dice.randint(1, len(thief))]
            writer.write(said)
            await writer.drain()
            return True
        cut = dice.randrange(len(said)) if end > 0.9 else None
        for part in self._parts(said[:cut]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if cut is not None:
            if framing == "end" or dice.random() < 0.5:
                self._reset(writer)
            return False
        if end < 0.2:
            writer.write(b"\0junk")
        return going

    def _framed(self, body: bytes, framing: str, *, bodiless: bool) -> bytes:
        if framing == "length":
            return b"Content-Length: %d\r\n\r\n" % len(body) + (b"" if bodiless else body)
        if bodiless or framing == "end":
            return b"\r\n" + (b"" if bodiless else body)
        pieces = [b"Transfer-Encoding: chunked\r\n\r\n"]
        for part in self._parts(body):
            extension = self.dice.choice((b"", b";x", b';x="a b"'))
            pieces.append(b"%x%b\r\n%b\r\n" % (len(part), extension, part))
        trailer = self.dice.choice((b"", b"x-after: 1\r\n"))
        return b"".join((*pieces, b"0\r\n", trailer, b"\r\n"))

    def _parts(self, data: bytes) -> list[bytes]:
        at = sorted(self.dice.randrange(len(data) + 1) for _ in range(self.dice.choice((0, 1, 5))))
        parts = [data[a:b] for a, b in zip((0, *at), (*at, len(data)), strict=True)]
        return [part for part in parts if part]

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        it = writer.get_extra_info("socket")
        it.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        writer.transport.abort()


class Caller:
    """Asks in every way there is, one call after another."""

    def __init__(self, transport: Http1Transport, made: Made, name: int, seed: int) -> None:
        self.transport = transport
        self.made = made
        self.name = name
        self.dice = random.Random(f"{seed} {name}")  # noqa: S311
        self.whole = 0

    async def run(self) -> None:
        for n in range(CALLS):
            task = asyncio.ensure_future(self._call(f"{self.name}-{n}"))
            if self.dice.random() < 0.1:
                for _ in range(self.dice.randrange(30)):
                    await asyncio.sleep(0)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _call(self, token: str) -> None:
        dice = self.dice
        up, down = dice.choice(SIZES), dice.choice(SIZES)
        little = dice.random() < 0.1
        path = f"/{token}/{up}/{down}/{'little' if little else 'much'}"
        body, timeout_s = text(token, up), 0.03 if little else 60.0
        way = dice.choice((self._sent, self._whole, self._streamed))
        try:
            named, got = await way(path, token, body, timeout_s)
        except TransportFault as raised:
            self._check(raised.fault, token)
            return
        assert named == token
        if got is not None:
            assert got == text(token, down)
            self.whole += 1

    def _check(self, fault: Fault, token: str) -> None:
        assert fault in {Fault.CONNECT, Fault.RESET, Fault.TIMEOUT}
        assert fault is not Fault.CONNECT or token not in self.made.asked

    async def _sent(
        self, path: str, token: str, body: bytes, timeout_s: float
    ) -> tuple[str, bytes | None]:
        answer = await self.transport.send(
            Request("POST", path, {"x-token": token}, body, timeout_s)
        )
        return answer.headers["x-token"], answer.body

    async def _whole(
        self, path: str, token: str, body: bytes, timeout_s: float
    ) -> tuple[str, bytes | None]:
        head = not body and self.dice.random() < 0.3
        method = "HEAD" if head else "POST"
        passing = Passing(method, path, [(b"x-token", token.encode())], body, timeout_s)
        passed = await self.transport.relay_whole(passing)
        assert isinstance(passed.body, bytes)
        assert not (head and passed.body)
        return decoded(passed.headers)["x-token"], None if head else passed.body

    async def _streamed(
        self, path: str, token: str, body: bytes, timeout_s: float
    ) -> tuple[str, bytes | None]:
        headers = [(b"x-token", token.encode())]
        given: bytes | AsyncIterator[bytes] = body
        if self.dice.random() < 0.7:
            given = self._pieces(body)
            if self.dice.random() < 0.5:
                headers.append((b"content-length", b"%d" % len(body)))
        got = []
        async with self.transport.relay(Passing("POST", path, headers, given, timeout_s)) as passed:
            async for piece in passed.pieces():
                got.append(piece)
                if self.dice.random() < 0.1:
                    return decoded(passed.headers)["x-token"], None  # that is enough
                await asyncio.sleep(0)
        return decoded(passed.headers)["x-token"], b"".join(got)

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        step = self.dice.choice((1, 7, 1000, 100_000)) if len(body) < 5000 else 100_000
        for begin in range(0, len(body), step):
            yield body[begin : begin + step]
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(2))
async def test_everybody_gets_their_own_answer_whole_or_a_fault(seed: int) -> None:
    troubles: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
    made = Made(random.Random(seed))  # noqa: S311
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0, limit=2**20)
    transport = Http1Transport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    callers = [Caller(transport, made, name, seed) for name in range(CALLERS)]
    try:
        await asyncio.gather(*(caller.run() for caller in callers))
        assert not transport._used
        assert all((one.over and one.reusable) or one.closed for one in transport._idle)
    finally:
        await transport.close()
        server.close()
        if made.open:
            await asyncio.wait(made.open)
    assert not made.wrong
    assert not troubles
    assert sum(caller.whole for caller in callers) > CALLERS * CALLS / 3

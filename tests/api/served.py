"""A server whose connections are looked at one by one, and what is said on them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tinkex_proxy.api.asgi import ANSWER, body_there
from tinkex_proxy.api.parting import PartingServer

HEAD = "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Served:
    """A server whose application answers `/wait`, `/whole` and `/stream` when it is let go."""

    server: PartingServer
    running: "asyncio.Task[None]"
    port: int
    began: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    dialled: list["Dialled"] = field(default_factory=list)

    async def app(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.asked.append(scope["path"])
        self.headers = scope["headers"]
        if scope["path"] in {"/body", "/gone", "/read", "/whole"}:
            await self.answer_whole(scope, receive, send)
            return
        headers = [(b"content-length", b"2")]
        if scope["path"] == "/refused":
            headers.append((b"connection", b"close"))
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] in {"/wait", "/stream"}:
            self.began.release()
            await self.let_go.wait()
        if scope["path"] != "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def answer_whole(self, scope, receive, send) -> None:
        """Answer in one message, and listen for the caller's leaving."""
        if scope["path"] == "/gone":
            self.began.release()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.let_go.set()
        elif scope["path"] == "/read":
            while (await receive())["more_body"]:
                pass
        elif scope["path"] == "/body":
            assert body_there(scope) is not None
        else:
            self.began.release()
            await self.let_go.wait()
        leaving = asyncio.create_task(receive())
        if scope["path"] == "/body":
            await asyncio.sleep(0)
        await send({"type": ANSWER, "status": 200, "headers": [], "body": b"ok"})
        await leaving

    async def dial(self) -> "Dialled":
        self.dialled.append(Dialled(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.dialled[-1]

    async def refuses(self) -> None:
        """Wait until it takes no more connections."""
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()

    def leave(self, last_wait_s: float = 0.0) -> None:
        self.server.say_farewell()
        self.server.leave(last_wait_s=last_wait_s)


@dataclass
class Dialled:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> str:
        """The next answer whole; empty when the connection has ended instead."""
        first = await self.reader.read(1)
        if not first:
            return ""
        head = first + await self.reader.readuntil(b"\r\n\r\n")
        return (head + await self.reader.readexactly(2)).decode()

    async def ended(self) -> bool:
        return await self.reader.read() == b""


async def coming(served: Served) -> None:
    """Wait until a request's body is waited for."""
    async with asyncio.timeout(10):
        while not any(c._coming for c in served.server.server_state.connections):
            await asyncio.sleep(0)


Serve = Callable[..., Awaitable[Served]]

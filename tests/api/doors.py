"""What stands before a server in the tests of the SDK: a counter, a switch, a wire to be cut."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

Asgi = Callable[..., object]


@dataclass(frozen=True)
class Passage:
    """One request that came through a door: which call, and how it was answered."""

    name: str
    status: int


@dataclass
class Door:
    """Passes every request on to `app` and keeps what was asked and answered."""

    app: Asgi
    passages: list[Passage] = field(default_factory=list)
    bodies: defaultdict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":  # the app's start and end are its server's business
            raise NotImplementedError
        name = scope["path"].rpartition("/")[2]
        body = bytearray()

        async def reading():
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self.bodies[name].append(bytes(body))
            return message

        async def noting(message) -> None:
            if message["type"] == "http.response.start":
                self.passages.append(Passage(name, message["status"]))
            await send(message)

        # The short way past messages would go past the door.
        await self.app({**scope, "extensions": {}}, reading, noting)

    def asked(self, since: int = 0) -> Counter[str]:
        """How often each call was asked for since so many had been."""
        return Counter(passage.name for passage in self.passages[since:])

    def answered(self, name: str, status: int) -> int:
        """How often a call was answered so."""
        return sum((passage.name, passage.status) == (name, status) for passage in self.passages)


class Switch:
    """An upstream that can be switched off (503 to all) and made to keep its results back."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._off = asyncio.Event()
        self._results = asyncio.Event()
        self._results.set()
        self._turned_away = asyncio.Event()
        self.kept = 0  # polls that wait
        self.asked: Counter[str] = Counter()

    def keep_results(self) -> None:
        self._results.clear()

    def turn_away(self) -> None:
        """Tell the polls that wait to ask again."""
        self._turned_away.set()
        self._turned_away = asyncio.Event()

    def switch_off(self) -> None:
        self._off.set()

    def switch_on(self) -> None:
        """Answer everything again, results too."""
        self._off.clear()
        self._results.set()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        name = scope["path"].rpartition("/")[2]
        if name == "retrieve_future" and not self._results.is_set():
            turned_away = await self._keep(self._turned_away)
        else:
            turned_away = False
        self.asked[name] += 1
        if self._off.is_set():
            await answer(send, 503, b'{"detail": "switched off"}')
        elif turned_away:
            await answer(send, 408, b'{"type": "try_again", "queue_state": "active"}')
        else:
            await self._app(scope, receive, send)

    async def _keep(self, turned_away: asyncio.Event) -> bool:
        """Hold a poll until something is known; tells whether it is to come again."""
        self.kept += 1
        events = (self._results, self._off, turned_away)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.kept -= 1
            for wait in waits:
                wait.cancel()
        return turned_away.is_set()


async def answer(send, status: int, body: bytes) -> None:
    """One whole JSON answer."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Wire:
    """Connections to a server that can be cut, all at once, and refused until it is mended."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._own_port = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def mend(self) -> str:
        """Take connections; gives the URL, which stays the same."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{self._own_port}"

    def cut(self) -> None:
        """Close every connection, and take no more."""
        if self._server is not None:
            self._server.close()
        for end in self._ends:
            end.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {writer, up_writer}
        self._ends |= ends
        await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))
        self._ends -= ends


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(2**16):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()

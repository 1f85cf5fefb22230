"""The short way of small calls: a body that is there, an answer in one message."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.api.conftest import listening
from tinkex_proxy.api.asgi import (
    ANSWER,
    BODY,
    CALLER,
    LEAVING,
    CallerLeft,
    body_there,
    send_answer,
    takes_answers,
)
from tinkex_proxy.api.cycle import Cycle
from tinkex_proxy.runtime.ledger import Answer

Ask = Callable[..., Awaitable[bytes]]


class App:
    """Echoes what there is of a body at once, and says whether that was all; notes the rest."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.offered: list[bool] = []
        self.came = asyncio.Queue[object]()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        there, whole = body_there(scope), takes_answers(scope)
        self.offered.append(whole)
        if there is None:
            while (message := await receive()).get("more_body"):
                pass
            self.came.put_nowait(message["type"])
        body = b"not there" if there is None else there
        with scope["extensions"][CALLER]:
            await send_answer(send, Answer(200, body, self.headers), {}, whole=whole)
        if scope["path"] == "/twice":
            with pytest.raises(RuntimeError):
                await send_answer(send, Answer(200, b"again"), {}, whole=True)
        if there is not None:
            assert body_there(scope) is None
            self.came.put_nowait((await receive())["type"])


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def ask(app: App) -> AsyncIterator[Ask]:
    async with listening(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))

        async def ask(*parts: bytes) -> bytes:
            asked = len(app.offered)
            for part in parts:
                writer.write(part)
                while len(app.offered) == asked:  # so that what comes next is another read
                    await asyncio.sleep(0)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            bodiless = parts[0].startswith(b"HEAD")
            return head + (b"" if bodiless else await reader.readexactly(size))

        yield ask
        writer.close()


def request(body: bytes, method: bytes = b"POST", path: bytes = b"/", more: bytes = b"") -> bytes:
    length = b"content-length: %d" % len(body)
    return b"%b %b HTTP/1.1\r\nhost: localhost\r\n%b%b\r\n\r\n%b" % (
        *(method, path, more, length, body),
    )


async def test_a_body_that_came_with_its_head_is_there_and_is_given_once(
    app: App, ask: Ask
) -> None:
    answer = await ask(request(b"small"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert answer.endswith(b"\r\ncontent-length: 5\r\n\r\nsmall")
    assert await app.came.get() == "http.disconnect"


async def test_a_body_of_which_some_is_still_to_come_is_not(app: App, ask: Ask) -> None:
    whole = request(b"in two reads")
    assert (await ask(whole[:-4], whole[-4:])).endswith(b"not there")
    assert await app.came.get() == "http.request"


async def test_there_is_one_way_for_all_answers_but_to_head(app: App, ask: Ask) -> None:
    assert (await ask(request(b"", b"GET"))).endswith(b"content-length: 0\r\n\r\n")
    assert b"content-length: 0" in await ask(request(b"", b"HEAD"))
    assert app.offered == [True, False]


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "a\x7fb"])
async def test_what_would_break_a_head_is_never_written(app: App, ask: Ask, value: str) -> None:
    app.headers = {"x-said": value}
    answer = await ask(request(b"x"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"x-said" not in answer


async def test_nobody_is_answered_twice(app: App, ask: Ask) -> None:
    assert (await ask(request(b"x", path=b"/twice"))).endswith(b"x")
    await app.came.get()
    assert (await ask(request(b"y"))).endswith(b"y")


async def test_who_wants_no_further_answer_is_told_so(app: App, ask: Ask) -> None:
    answer = await ask(request(b"x", more=b"connection: close\r\n"))
    assert answer.endswith(b"\r\nconnection: close\r\n\r\nx")


async def test_a_request_leaves_nothing_for_the_garbage_collector(app: App, ask: Ask) -> None:
    """What holds itself stays until it is looked for, which takes the longer the more there is."""
    await ask(request(b"first"))
    await app.came.get()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await ask(request(b"x"))
            await app.came.get()
        await asyncio.sleep(0)  # for the last task to be over
        left = [each for each in gc.get_objects() if isinstance(each, Cycle)]
    finally:
        gc.enable()
    assert len(left) == 1  # the connection's last


@asynccontextmanager
async def held(told: asyncio.Queue[object]) -> AsyncIterator[asyncio.StreamWriter]:
    """A call that waits, and tells when its caller leaves, or answers when it is told to."""

    async def app(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        leaving = scope["extensions"][LEAVING]
        left = asyncio.Event()
        stays = leaving(left.set)
        with pytest.raises(RuntimeError):
            leaving(left.set)
        told.put_nowait("waits")
        if scope["path"] == "/stays":
            stays()
            leaving(lambda: told.put_nowait("left"))
            await asyncio.Event().wait()
        await left.wait()
        leaving(lambda: told.put_nowait("has left"))
        leaving(lambda: told.put_nowait("never"))()

    async with listening(app) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        yield writer


@pytest.mark.parametrize(("path", "says"), [(b"/", "has left"), (b"/stays", "left")])
async def test_who_wants_to_know_hears_at_once_that_a_caller_has_left(path, says) -> None:
    """Once, and who asks too late, too."""
    told: asyncio.Queue[object] = asyncio.Queue()
    async with held(told) as writer:
        writer.write(request(b"", path=path))
        assert await told.get() == "waits"
        writer.transport.abort()
        assert await told.get() == says
    assert told.empty()


async def test_who_answers_is_ended_when_the_caller_leaves_and_only_while_that_is_wanted() -> None:
    told: asyncio.Queue[object] = asyncio.Queue()

    async def app(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        caller = scope["extensions"][CALLER]
        told.put_nowait("waits")
        with pytest.raises(CallerLeft), caller:
            await asyncio.Event().wait()
        with caller:  # over before anybody could end it
            pass
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        told.put_nowait(asyncio.current_task().cancelling())

    async with listening(app) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(request(b""))
        assert await told.get() == "waits"
        writer.transport.abort()
        assert await told.get() == 0


async def test_what_was_asked_behind_another_is_told_too() -> None:
    """The connection is that of both."""
    told: asyncio.Queue[object] = asyncio.Queue()
    async with held(told) as writer:
        writer.write(request(b"") + request(b""))
        assert await told.get() == "waits"
        writer.transport.abort()
        assert await told.get() == "has left"
    assert told.empty()


def test_other_servers_have_none_of_it() -> None:
    for scope in ({}, {"extensions": None}, {"extensions": {}}):
        assert body_there(scope) is None
        assert not takes_answers(scope)
    scope = {"extensions": {BODY: lambda: b"x", ANSWER: {}}}
    assert body_there(scope) == b"x"
    assert takes_answers(scope)

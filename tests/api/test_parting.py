"""At its end a server answers what has come, and before it takes who comes together."""

import asyncio
import socket

import uvloop

from tests.api.conftest import listening
from tests.api.served import GET, HEAD, Serve, coming
from tinkex_proxy.api import connections
from tinkex_proxy.api.asgi import ANSWER

BURST = 200


def test_a_burst_is_taken_together() -> None:
    """uvloop takes one in each turn of its loop, and the last would wait for long."""
    came = []

    async def app(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        came.append(scope["client"])
        await send({"type": ANSWER, "status": 200, "headers": [], "body": b"ok"})

    async def burst() -> list[bytes]:
        async with listening(app) as url:
            place = ("127.0.0.1", int(url.rpartition(":")[2]))
            callers = [socket.create_connection(place) for _ in range(BURST)]
            for caller in callers:
                caller.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            for _ in range(BURST // 4):
                await asyncio.sleep(0)
            assert len(came) == BURST
            answers = [await asyncio.to_thread(caller.recv, 1000) for caller in callers]
            for caller in callers:
                caller.close()
            return answers

    assert all(answer.endswith(b"ok") for answer in uvloop.run(burst()))


async def test_after_the_farewell_every_answer_says_that_it_is_the_last(serve: Serve) -> None:
    """The one under way too; a client that obeys is never on a connection that ends."""
    served = await serve()
    busy, idle = await served.dial(), await served.dial()
    idle.send(GET)
    assert "connection: close" not in await idle.answer()
    busy.send(GET.replace(b"/ ", b"/wait "))
    await served.began.acquire()
    served.server.say_farewell()
    idle.send(GET)
    assert "connection: close" in await idle.answer()
    served.let_go.set()
    assert "connection: close" in await busy.answer()
    assert await idle.ended()
    assert await busy.ended()


async def test_of_pipelined_requests_only_the_last_answer_says_so(serve: Serve) -> None:
    """What was received whole is answered."""
    served = await serve()
    client = await served.dial()
    client.send(GET.replace(b"/ ", b"/wait ") + GET)
    await served.began.acquire()
    served.leave()
    served.let_go.set()
    assert "connection: close" not in await client.answer()
    assert "connection: close" in await client.answer()
    assert await client.ended()


async def test_an_idle_connection_has_a_last_wait_in_which_it_is_answered(serve: Serve) -> None:
    served = await serve()
    client = await served.dial()
    client.send(GET)
    await client.answer()
    served.leave(last_wait_s=30.0)
    await served.refuses()
    client.send(GET)
    assert "connection: close" in await client.answer()
    assert await client.ended()
    await served.running


async def test_an_idle_connection_that_stays_idle_is_ended_and_not_reset(serve: Serve) -> None:
    """Also when a request is sent right afterwards: nobody reads it, and nobody resets it."""
    served = await serve()
    used, unused = await served.dial(), await served.dial()
    used.send(GET)
    await used.answer()
    served.leave()
    assert await used.answer() == ""
    used.send(GET)
    assert await used.ended()
    assert await unused.ended()


async def test_a_request_of_which_half_has_come_is_answered(serve: Serve) -> None:
    served = await serve()
    client = await served.dial()
    client.send(GET[:20])
    while not any(c._half_read for c in served.server.server_state.connections):
        await asyncio.sleep(0)
    served.leave()
    await served.refuses()
    client.send(GET[20:])
    assert "connection: close" in await client.answer()
    assert await client.ended()


async def test_a_stream_that_has_begun_is_finished_and_then_ended(serve: Serve) -> None:
    """Its head is out and could not say that it is the last."""
    served = await serve()
    client = await served.dial()
    client.send(GET.replace(b"/ ", b"/stream "))
    await served.began.acquire()
    served.leave()
    await served.refuses()
    served.let_go.set()
    answer = await client.answer()
    assert answer.endswith("ok")
    assert await client.ended()
    await served.running


async def test_connections_that_only_the_kernel_has_taken_are_answered(serve: Serve) -> None:
    """Closing the listener would reset them, with their request on the way."""
    served = await serve()
    served.server.say_farewell()
    listener = served.server.servers[0].sockets[0]._sock  # asyncio's own loop runs the tests
    asyncio.get_running_loop().remove_reader(listener)
    client = await served.dial()
    client.send(GET)
    served.server.leave(last_wait_s=30.0)
    assert "connection: close" in await client.answer()
    await served.running


async def test_a_request_whose_body_is_waited_for_is_answered_through_the_end(
    serve: Serve, monkeypatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SOON_S", 60.0)
    served = await serve()
    client = await served.dial()
    client.send(HEAD.format(path="/body", size=2).encode())
    await coming(served)
    served.leave()
    await served.refuses()
    client.send(b"ok")
    assert "connection: close" in await client.answer()
    assert await client.ended()

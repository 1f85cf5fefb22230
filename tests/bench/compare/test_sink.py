"""The sink answers as an upstream would, however a request comes in."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.bench.compare import sink
from tinkex_proxy.wire.output import decode_output


@pytest.fixture
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    shared = sink.Sink(blind=False, delay_s=0.0)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: sink.Connection(shared), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    yield reader, writer
    writer.close()
    server.close()
    await server.wait_closed()


async def ask(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    path: str,
    body: bytes,
    content_type: str = "application/json",
    pieces: int = 1,
) -> tuple[str, bytes, str]:
    """Status, body and content type of an answer."""
    reader, writer = connection
    head = f"POST /api/v1/{path} HTTP/1.1\r\nContent-Type: {content_type}\r\n"
    raw = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    size = -(-len(raw) // pieces)
    for at in range(0, len(raw), size):
        writer.write(raw[at : at + size])
        await writer.drain()
        await asyncio.sleep(0)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    length = int(lines[2].partition(": ")[2])
    return lines[0].split()[1], await reader.readexactly(length), lines[1].partition(": ")[2]


@pytest.mark.parametrize("pieces", [1, 2, 7, 50])
async def test_training_is_answered_for_as_many_datums_as_there_were(connection, pieces):
    body = b"target_tokens" * 3
    _, taken, _ = await ask(connection, "forward_backward", body, sink.PROTOBUF, pieces)
    _, result, kind = await ask(connection, "retrieve_future", taken, pieces=pieces)
    assert len(decode_output(result, kind).records) == 3


async def test_it_takes_training_data_in_protobuf_only(connection):
    status, _, _ = await ask(connection, "forward_backward", b"{}")
    assert status == "415"


async def test_a_call_that_it_does_not_have_is_a_404(connection):
    status, said, _ = await ask(connection, "unheard_of", b"{}")
    assert status == "404"
    assert msgspec.json.decode(said) == {"detail": "the sink has no such call"}


async def test_models_of_a_session_are_told_apart_by_their_number(connection):
    """The first is called what all calls of the comparison name."""
    for number, name in ((0, "model"), (1, "model-1"), (999, "model-999")):
        body = msgspec.json.encode({"session_id": "session", "model_seq_id": number})
        _, taken, _ = await ask(connection, "create_model", body)
        _, result, _ = await ask(connection, "retrieve_future", taken)
        assert msgspec.json.decode(result)["model_id"] == name

"""What is written together, and what goes nowhere; its clients: test_connections.py."""

import asyncio

from tinkex_proxy.api.half_closing import HalfClosing


class Wire:
    """A transport that notes what is written together."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.writes.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        self.writes.append(b"END")


async def test_a_head_is_written_with_the_body_that_comes_with_it() -> None:
    wire = Wire()
    transport = HalfClosing(wire, asyncio.get_running_loop())
    for data in (b"body", b"more"):
        transport.expect_head()
        transport.write(b"head ")
        transport.write(data)
        transport.write(b"tail")
    assert wire.writes == [b"head body", b"tail", b"head more", b"tail"]


async def test_a_head_without_a_body_goes_in_the_same_turn() -> None:
    """So does one before which its connection ends."""
    wire = Wire()
    transport = HalfClosing(wire, asyncio.get_running_loop())
    transport.expect_head()
    transport.write(b"head")
    assert wire.writes == []
    await asyncio.sleep(0)
    assert wire.writes == [b"head"]
    transport.expect_head()
    transport.write(b"last head")
    transport.close()
    await asyncio.sleep(0)
    assert wire.writes == [b"head", b"last head", b"END"]


async def test_a_head_for_a_connection_that_is_gone_goes_nowhere() -> None:
    wire = Wire()
    transport = HalfClosing(wire, asyncio.get_running_loop())
    transport.expect_head()
    transport.write(b"head")
    transport.gone()
    await asyncio.sleep(0)
    assert wire.writes == []

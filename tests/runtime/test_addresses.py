"""A host is looked up once for all who ask at the same time."""

import asyncio
import socket

import pytest

from tinkex_proxy.runtime.addresses import KEPT_S, Address, Addresses
from tinkex_proxy.runtime.clock import ManualClock


class Names:
    """Stands in for the resolver: what it is asked, and when it answers."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.found: list[str] | OSError = ["::1", "127.0.0.1", "::1"]

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked += 1
        await self.answers.wait()
        if isinstance(self.found, OSError):
            raise self.found
        return [(0, 0, 0, "", (address, port)) for address in self.found]


def at(*hosts: str) -> list[Address]:
    return [Address(0, (host, 80)) for host in hosts]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", names.getaddrinfo)
    return names


async def test_many_ask_and_one_looks(names: Names) -> None:
    addresses = Addresses("upstream", 80, ManualClock())
    asked = [asyncio.ensure_future(addresses.get()) for _ in range(100)]
    await asyncio.sleep(0)
    asked[0].cancel()  # and the others go on waiting
    names.answers.set()
    assert await asyncio.gather(*asked[1:]) == [at("::1", "127.0.0.1")] * 99
    assert names.asked == 1


async def test_who_moves_is_found_again(names: Names) -> None:
    clock = ManualClock()
    addresses = Addresses("upstream", 80, clock)
    names.answers.set()
    await addresses.get()
    names.found = ["127.0.0.2"]
    clock.advance(KEPT_S / 2)
    assert await addresses.get() == at("::1", "127.0.0.1")
    clock.advance(KEPT_S / 2)
    assert await addresses.get() == at("127.0.0.2")


async def test_a_failure_is_told_to_all_who_asked_and_not_kept(names: Names) -> None:
    addresses = Addresses("upstream", 80, ManualClock())
    names.found = socket.gaierror(-2, "Name or service not known")
    asked = [asyncio.ensure_future(addresses.get()) for _ in range(3)]
    names.answers.set()
    for error in await asyncio.gather(*asked, return_exceptions=True):
        assert error is names.found
    names.found = ["127.0.0.1"]
    assert await addresses.get() == at("127.0.0.1")
    assert names.asked == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_needs_no_look(names: Names, host: str) -> None:
    ((_, place),) = await Addresses(host, 80).get()
    assert place[:2] == (host, 80)
    assert names.asked == 0

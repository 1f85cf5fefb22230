"""The official SDK during an outage: it backs off, it does not hammer, and its run goes on.

The SDK is a process of its own; its requests are counted on their way into the proxy. What is
counted is compared with how long it was counted for, with wide margins: left to itself, SDK 0.38
asks 470 times a second and future at a fast 503.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.conftest import listening
from tests.api.doors import Door, Switch
from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.events import Transition
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options

KEY = "tml-sandbox"
PROGRAM = Path(__file__).with_name("sdk_refused.py")
PENDING = 5  # futures that the program waits for when the outage begins
SUBMITS = ("forward_backward", "optim_step", "forward", "save_weights_for_sampler", "asample")


class Program:
    """The SDK's run, one act at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> object:
        line = await self._process.stdout.readline()
        if not line:
            raise AssertionError((await self._process.stderr.read()).decode())
        return json.loads(line)

    def cue(self) -> None:
        self._process.stdin.write(b"\n")

    async def numbers(self) -> list[object]:
        """All it has to say to its end."""
        return [await self.told(), await self.told()]


@pytest.fixture
async def begin():
    """Start the program against a URL; gives it once its first training step is done."""
    processes = []

    async def begun(url: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            PROGRAM,
            url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**20,
            env={**os.environ, "TINKER_API_KEY": KEY},
        )
        processes.append(process)
        program = Program(process)
        assert await program.told() == "trained"
        return program

    yield begun
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@dataclass
class Stage:
    """A proxy between the SDK and an upstream with a switch; both ways are counted."""

    proxy: object
    door: Door
    switch: Switch
    url: str
    trips: list[Transition]

    @property
    def breaker(self):
        return self.proxy.services.accounts.of(KEY).upstream.breaker

    async def tripped(self, times: int) -> None:
        """Until the breaker has opened so often."""
        while len(self.trips) < times:
            await asyncio.sleep(0.01)


@pytest.fixture(params=["lane", "transparent"])
async def stage(start, request, monkeypatch):
    """Windows of a second, and several probes: the run's polls all come back at a window's end."""
    switch = Switch(create_app(Options()))
    async with AsyncExitStack() as stack:
        running = await start(
            await stack.enter_async_context(listening(switch)),
            sdk={"mode": request.param},
            circuit_breaker={"timeout_ms": 1000, "half_open_max_calls": 16},
        )
        door = Door(running.proxy.app)
        url = await stack.enter_async_context(listening(door))
        hub, trips = running.proxy.services.hub, []
        tell = hub.tell

        def listening_in(event) -> None:
            if isinstance(event, Transition) and event.after is State.OPEN:
                trips.append(event)
            tell(event)

        monkeypatch.setattr(hub, "tell", listening_in)
        yield Stage(running.proxy, door, switch, url, trips)


async def undisturbed(begin: Callable[..., object]) -> list[object]:
    async with listening(create_app(Options())) as url:
        program = await begin(url)
        program.cue()
        program.cue()
        assert await program.told() == "alive"
        return await program.numbers()


async def waiting(stage: Stage, program: Program) -> None:
    """The run's second act, up to where it only waits for results that do not come."""
    stage.switch.keep_results()
    program.cue()
    while stage.door.answered("optim_step", 200) < 2 or not stage.switch.kept:
        await asyncio.sleep(0.01)


def modest(stage: Stage, since: int, seconds: float) -> None:
    """The requests of an outage: a poll per future and second, and a submit or two per second.

    Twice that is allowed, and once for what was under way.
    """
    asked = stage.door.asked(since)
    polls = asked["retrieve_future"]
    assert polls <= 2 * PENDING * (seconds + 1), asked
    assert sum(asked[name] for name in SUBMITS) <= 2 * (seconds + 1) + 2, asked
    assert sum(asked.values()) - polls <= 4 * (seconds + 1), asked


async def test_a_run_outlasts_an_upstream_that_goes_away(stage, begin) -> None:
    """Polls first, then submits, against an upstream that answers 503 to all, for three windows."""
    expected = await undisturbed(begin)
    program = await begin(stage.url)
    await waiting(stage, program)
    began, since = asyncio.get_running_loop().time(), len(stage.door.passages)
    stage.switch.switch_off()
    await stage.tripped(1)
    program.cue()
    assert await program.told() == "answered 503"  # the heartbeat went up, and this is its answer
    assert stage.switch.asked["session_heartbeat"] >= 1
    await stage.tripped(4)
    modest(stage, since, asyncio.get_running_loop().time() - began)
    stage.switch.switch_on()
    assert await program.numbers() == expected


async def test_a_run_outlasts_an_open_breaker_and_its_session_lives(stage, begin) -> None:
    """Only heartbeats go up in the window; polls that come back are held, submits told when."""
    expected = await undisturbed(begin)
    program = await begin(stage.url)
    await waiting(stage, program)
    while stage.breaker.snapshot("u", "k")["state"] != "open":
        stage.breaker.settle(stage.breaker.acquire(), Outcome.FAILURE, "503")
    began, since = asyncio.get_running_loop().time(), len(stage.door.passages)
    stage.switch.turn_away()
    stage.switch.asked.clear()
    program.cue()
    assert await program.told() == "alive"
    while stage.breaker.snapshot("u", "k")["state"] == "open":
        assert set(stage.switch.asked) <= {"session_heartbeat", "retrieve_future"}
        await asyncio.sleep(0.01)
    assert stage.switch.asked["session_heartbeat"] >= 1
    modest(stage, since, asyncio.get_running_loop().time() - began)
    stage.switch.switch_on()
    assert await program.numbers() == expected

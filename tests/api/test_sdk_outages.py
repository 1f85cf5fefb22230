"""The official SDK during an outage: it backs off, it does not hammer, and its run goes on.

The SDK is a process of its own; its requests are counted on their way into the proxy. What is
counted is compared with how long it was counted for, with wide margins: left to itself, SDK 0.38
asks 470 times a second and future at a fast 503.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tests.api.conftest import listening
from tests.api.doors import Door, Switch, Wire
from tests.api.programs import KEY, Program, program
from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.events import Transition
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options

PENDING = 5  # futures that the program waits for when the outage begins
SAMPLES = 40
SUBMITS = ("forward_backward", "optim_step", "forward", "save_weights_for_sampler", "asample")


@dataclass
class Stage:
    """A proxy between the SDK and an upstream with a switch; both ways are counted."""

    proxy: object
    door: Door
    switch: Switch
    wire: Wire
    url: str
    trips: list[Transition]

    @property
    def breaker(self):
        return self.proxy.services.accounts.of(KEY).upstream.breaker

    @property
    def state(self) -> str:
        return self.breaker.snapshot("u", "k")["state"]

    def trip(self) -> None:
        while self.state != "open":
            self.breaker.settle(self.breaker.acquire(), Outcome.FAILURE, "503")

    async def tripped(self, times: int) -> None:
        """Until the breaker has opened so often."""
        while len(self.trips) < times:
            await asyncio.sleep(0.01)


@pytest.fixture(params=["lane", pytest.param("transparent", marks=pytest.mark.long)])
async def stage(start, request, monkeypatch):
    """Windows of a second."""
    switch = Switch(create_app(Options()))
    async with AsyncExitStack() as stack:
        wire = Wire(await stack.enter_async_context(listening(switch)))
        stack.callback(wire.cut)
        running = await start(
            await wire.mend(),
            sdk={"mode": request.param},
            circuit_breaker={"timeout_ms": 1000, "max_timeout_ms": 1000},
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
        yield Stage(running.proxy, door, switch, wire, url, trips)


@pytest.fixture(scope="module")
def undisturbed():
    """Gives what a program tells when nothing happens to it: every time the same, so run once."""
    told: dict[tuple[object, ...], list[object]] = {}

    async def tell(name: str, *arguments: object) -> list[object]:
        if (name, *arguments) not in told:
            async with (
                listening(create_app(Options())) as url,
                program(name, url, *arguments) as run,
            ):
                for _ in range(2):
                    run.cue()
                told[name, *arguments] = [line async for line in run]
        return told[name, *arguments]

    return tell


async def waiting(stage: Stage, run: Program) -> None:
    """The run's second act, up to where it only waits for results that do not come."""
    assert await run.told() == "trained"
    stage.switch.keep_results()
    run.cue()
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


@pytest.mark.parametrize("outage", ["503 to all", "no connection"])
async def test_a_run_outlasts_an_upstream_that_goes_away(stage, undisturbed, outage) -> None:
    """Polls first, then submits, for two windows; then it ends with the numbers it should."""
    expected = await undisturbed("sdk_refused.py")
    async with program("sdk_refused.py", stage.url) as run:
        await waiting(stage, run)
        began, since = asyncio.get_running_loop().time(), len(stage.door.passages)
        if outage == "503 to all":
            stage.switch.switch_off()
        else:
            stage.wire.cut()
        await stage.tripped(1)
        run.cue()
        assert await run.told() == "answered 503"
        if outage == "503 to all":  # the heartbeat went up, and that was its answer
            assert stage.switch.asked["session_heartbeat"] >= 1
        await stage.tripped(3)
        modest(stage, since, asyncio.get_running_loop().time() - began)
        if outage == "no connection":
            await stage.wire.mend()
        stage.switch.switch_on()
        assert [line async for line in run] == expected[2:]


async def test_a_run_outlasts_an_open_breaker_and_its_session_lives(stage, undisturbed) -> None:
    """Only heartbeats go up in the window; polls that come back are held, submits told when."""
    expected = await undisturbed("sdk_refused.py")
    async with program("sdk_refused.py", stage.url) as run:
        await waiting(stage, run)
        stage.trip()
        began, since = asyncio.get_running_loop().time(), len(stage.door.passages)
        stage.switch.turn_away()
        stage.switch.asked.clear()
        run.cue()
        assert await run.told() == "alive"
        while stage.state == "open":
            assert set(stage.switch.asked) <= {"session_heartbeat", "retrieve_future"}
            await asyncio.sleep(0.01)
        assert stage.switch.asked["session_heartbeat"] >= 1
        modest(stage, since, asyncio.get_running_loop().time() - began)
        stage.switch.switch_on()
        assert [line async for line in run] == expected[2:]


async def test_samples_outlast_an_open_breaker(stage, undisturbed) -> None:
    """Each asks again less and less often: SDK 0.38 after 1, 2, 4 … seconds, whatever it is told.

    Its samplers ask without the client's own retries, so that no `Retry-After` is obeyed here.
    """
    (expected,) = await undisturbed("sdk_rollout.py", SAMPLES, 0)
    async with program("sdk_rollout.py", stage.url, SAMPLES, 0) as run:
        while not stage.door.answered("asample", 200):
            await asyncio.sleep(0.01)
        stage.trip()
        drawn = await run.told()
    assert [[s[0] for s in each] for each in drawn] == [[s[0] for s in each] for each in expected]
    assert stage.door.asked()["asample"] <= 5 * SAMPLES

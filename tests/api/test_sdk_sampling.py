"""Rollouts: thousands of samples at once go through and come back, each to who asked for it."""

import asyncio
import json
import resource
from collections import Counter

import pyqwest
import pytest

from tests.api.conftest import listening
from tests.api.doors import Door
from tests.api.programs import program
from tests.api.sampling_upstream import NEVER, SamplingUpstream, drawn

PROGRAM = "sdk_rollout.py"
CALLERS = 2000  # what an SDK has in flight at most: `sample_max_concurrent_requests`
SAMPLES = 300
PATIENCE_S = 100  # how long a test that hangs is waited for

MODES = pytest.mark.parametrize(
    "mode", ["lane", pytest.param("transparent", marks=pytest.mark.long)]
)


@pytest.fixture
def many_files() -> None:
    """Caller, proxy and upstream are one process here: four ends of sockets for every call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 5 * CALLERS
    assert hard == resource.RLIM_INFINITY or hard >= wanted
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Barrier:
    """An upstream that answers nobody before everybody has asked."""

    def __init__(self) -> None:
        self.here = 0
        self.all_here = asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        body = (await receive())["body"]
        self.here += scope["method"] == "POST"
        if self.here == CALLERS:
            self.all_here.set()
        if scope["method"] == "POST":
            await self.all_here.wait()
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("call", "mode", "transport"),
    [
        ("asample", "lane", "auto"),
        pytest.param("asample", "lane", "pyqwest", marks=pytest.mark.long),
        pytest.param("asample", "transparent", "auto", marks=pytest.mark.long),
        ("retrieve_future", "lane", "auto"),
    ],
)
async def test_two_thousand_at_once_and_none_waits_here(start, call, mode, transport) -> None:
    """Were one of them queued, the upstream would never have seen them all."""
    barrier = Barrier()
    async with listening(barrier) as upstream:
        proxy = await start(upstream, upstream={"transport": transport}, sdk={"mode": mode})
        client = pyqwest.Client(pyqwest.HTTPTransport(enable_otel=False))

        async def ask(number: int) -> bool:
            body = json.dumps({"seq_id": number, "request_id": str(number)}).encode()
            url = f"{proxy.url}/api/v1/{call}"
            answer = await client.execute("POST", url, {"x-api-key": "tml-mine"}, body)
            return answer.status == 200 and bytes(answer.content) == body

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(number)) for number in range(CALLERS)]
    assert Counter(task.result() for task in asked) == {True: CALLERS}


@MODES
async def test_the_sdk_draws_the_same_with_and_without_us(start, upstream, mode) -> None:
    """Many samples at once from the sandbox: the same tokens, each sequence with its own name."""
    async with program(PROGRAM, await upstream(), SAMPLES, 0) as run:
        direct = await run.told()
    proxy = await start(await upstream(), sdk={"mode": mode})
    async with program(PROGRAM, proxy.url, SAMPLES, 0) as run:
        through = await run.told()
    assert [[tokens for tokens, _ in each] for each in through] == [
        [tokens for tokens, _ in each] for each in direct
    ]
    assert len({name for each in through for _, name in each}) == 2 * SAMPLES


@MODES
@pytest.mark.parametrize("polls", ["retrieve_future", "retrieve_futures"])
async def test_every_sample_finds_its_way_and_one_is_given_up(start, mode, polls) -> None:
    """One long poll for each sample, or one for them all: results, names, acks and cancellation.

    No result is there before all samples have been asked for, and what the SDK wrote is what the
    upstream reads.
    """
    scripted = SamplingUpstream(SAMPLES, sample_use_retrieve_futures=polls == "retrieve_futures")
    async with listening(scripted.app) as upstream:
        proxy = await start(upstream, sdk={"mode": mode})
        door = Door(proxy.proxy.app)
        async with (
            listening(door) as url,
            asyncio.timeout(PATIENCE_S),
            program(PROGRAM, url, SAMPLES, NEVER) as run,
        ):
            everything = await run.told()
            given_up = await scripted.never_polled.get()
            run.cue()
            assert await scripted.cancelled.get() == given_up
            if polls == "retrieve_futures":
                await scripted.all_acked.wait()
            else:
                assert await scripted.hung_up.get() == given_up
            run.cue()
            assert await run.ended() == 0
    for number, sequences in enumerate(everything):
        prompt = [number % 400, number // 400, 7]
        request_id = scripted.request_of[tuple(prompt)]
        assert sequences == [[drawn(prompt, n), f"{request_id}/{n}"] for n in range(2)]
    asked = door.asked()
    by_session = polls == "retrieve_futures"
    assert (asked["asample"], asked["cancel_future"]) == (SAMPLES + 1, 1)
    assert bool(asked["retrieve_futures"]) is by_session
    if by_session:
        assert asked["retrieve_future"] == SAMPLES
        assert scripted.acked == set(scripted.request_of.values())
    for call in ("asample", "cancel_future", polls):
        assert Counter(door.bodies[call]) == Counter(scripted.bodies[call]), call

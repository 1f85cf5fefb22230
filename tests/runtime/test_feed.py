import asyncio
import json

import pytest

from tinkex_proxy.core.circuit import State
from tinkex_proxy.core.quantiles import Quantiles
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import BreakerDropped, Note, SnapshotTaken, Transition
from tinkex_proxy.runtime.feed import KEEP_ALIVE_S, KEPT_EVENTS, BreakerFeed, Feed, SnapshotFeed

HELLO = b": following\n\n"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def feed(clock: ManualClock) -> Feed:
    return BreakerFeed("run", clock=clock, wall_clock=lambda: 1.5)


def trip(feed: Feed, times: int = 1) -> None:
    for _ in range(times):
        feed.on_event(Transition("b", State.CLOSED, State.OPEN, "why"))


def ids(text: bytes) -> list[str]:
    return [line[4:] for line in text.decode().splitlines() if line.startswith("id: ")]


async def test_who_follows_is_told_what_moves_from_then_on(feed: Feed) -> None:
    trip(feed)
    follower = feed.follow(None)
    assert await anext(follower) == HELLO
    trip(feed)
    text = await anext(follower)
    assert ids(text) == ["run-2"]
    assert b"event: transition\n" in text
    data = next(line[6:] for line in text.decode().splitlines() if line.startswith("data: "))
    assert json.loads(data) == {
        "at": 1.5,
        "breaker": "b",
        "before": "closed",
        "after": "open",
        "cause": "why",
    }
    feed.on_event(BreakerDropped("b"))
    feed.on_event(Note("info", "not about breakers"))
    assert b'event: dropped\ndata: {"at":1.5,"breaker":"b"}\n\n' in await anext(follower)
    await follower.aclose()
    assert feed.readers == 0


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("run-1", [2, 3]),
        ("run-3", []),
        ("run-0", [1, 2, 3]),
        ("run-99", []),
        ("run-" + "9" * 5000, []),
        ("older-3", [1, 2, 3]),
        ("run-x", [1, 2, 3]),
        ("run-²", [1, 2, 3]),
        ("", [1, 2, 3]),
    ],
)
async def test_who_comes_back_is_told_what_he_missed(
    feed: Feed, last: str, told: list[int]
) -> None:
    """An id that is not of this run is before everything."""
    trip(feed, 3)
    feed.close()
    text = b"".join([part async for part in feed.follow(last)])
    assert ids(text) == [f"run-{number}" for number in told]


async def test_a_slow_reader_holds_nothing_and_is_told_how_much_it_missed(feed: Feed) -> None:
    follower = feed.follow(None)
    await anext(follower)
    trip(feed, KEPT_EVENTS + 10)
    assert len(feed._kept) == KEPT_EVENTS
    text = await anext(follower)
    assert text.startswith(b'event: missed\ndata: {"events":10}\n\n')
    assert len(ids(text)) == KEPT_EVENTS
    await follower.aclose()


async def test_a_quiet_connection_shows_that_it_is_alive(feed: Feed, clock: ManualClock) -> None:
    follower = feed.follow(None)
    await anext(follower)
    waiting = asyncio.ensure_future(anext(follower))
    while not clock.pending:
        await asyncio.sleep(0)
    clock.advance(KEEP_ALIVE_S)
    assert await waiting == b": nothing new\n\n"
    await follower.aclose()
    assert clock.pending == 0


async def test_the_end_is_told_all_that_was_and_nothing_waits_any_more(feed: Feed) -> None:
    follower = feed.follow(None)
    await anext(follower)
    waiting = asyncio.ensure_future(anext(follower))
    while not feed._waiting:
        await asyncio.sleep(0)
    trip(feed)
    feed.close()
    assert ids(await waiting) == ["run-1"]
    assert [part async for part in follower] == []
    assert feed.readers == 0
    assert [part async for part in feed.follow(None)] == [HELLO]


async def test_snapshots_are_told_as_they_are_and_the_last_few_are_kept(clock: ManualClock) -> None:
    feed = SnapshotFeed("run", clock=clock, wall_clock=lambda: 1.5, kept=2)
    for number in range(3):
        feed.on_event(SnapshotTaken({"counters": {"a": number}}, 0, 0, Quantiles(0)))
    feed.on_event(Note("info", "no snapshot"))
    feed.close()
    told = b"".join([text async for text in feed.follow("run-0")])
    assert b'event: missed\ndata: {"events":1}' in told
    assert ids(told) == ["run-2", "run-3"]
    assert b'event: snapshot\ndata: {"at":1.5,"counters":{"a":2}}' in told

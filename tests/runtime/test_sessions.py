import asyncio

import msgspec
import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.errors import ApiKeyRefused, UpstreamFault
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.journal import Book, NoJournal
from tinkex_proxy.runtime.records import SessionRecord, deleted, written
from tinkex_proxy.runtime.sessions import Session
from tinkex_proxy.runtime.store import Change
from tinkex_proxy.runtime.transport import Request, Response


class Service:
    """Makes sessions s1, s2, … and answers heartbeats from a script."""

    def __init__(self, reply, beats: list[Response | Fault]) -> None:
        self.reply, self.beats, self.made = reply, beats, 0
        self.beaten: list[str] = []

    def __call__(self, request: Request) -> Response | Fault:
        if request.path.endswith("create_session"):
            self.made += 1
            return self.reply(200, {"session_id": f"s{self.made}"})
        self.beaten.append(msgspec.json.decode(request.body)["session_id"])
        return self.beats.pop(0) if self.beats else self.reply(200)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def session_on(
    bench, clock, service, lost=None, *, threshold: int = 100, journal: NoJournal | None = None
) -> Session:
    upstream, _ = bench.upstream(service, threshold=threshold)
    return Session(
        upstream,
        clock=clock,
        tasks=bench.tasks,
        interval_s=10,
        book=Book("me", journal or NoJournal()),
        on_lost=lambda *told: (lost if lost is not None else []).append(told),
    )


async def test_made_once_on_first_need_however_many_ask(bench, clock, reply) -> None:
    service = Service(reply, [])
    session = session_on(bench, clock, service)
    assert session.current is None
    assert set(await asyncio.gather(*(session.ensure() for _ in range(20)))) == {"s1"}
    assert service.made == 1
    assert [session.next_model_seq(), session.next_model_seq()] == [0, 1]
    assert [session.next_sampler_seq(), session.next_sampler_seq()] == [0, 1]
    await bench.tasks.cancel_all()


async def test_heartbeats_go_every_interval_and_survive_faults(bench, clock, reply) -> None:
    """An unanswered heartbeat is not repeated before its next turn and ends nothing."""
    service = Service(reply, [Fault.RESET, reply(500), reply(200)])
    session = session_on(bench, clock, service, threshold=1)
    await session.ensure()
    for _ in range(3):
        await settle()
        clock.advance(10)
    await settle()
    assert service.beaten == ["s1"] * 3
    assert session.current == "s1"
    await bench.tasks.cancel_all()


@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_the_upstream_ended_is_told_and_replaced(
    bench, clock, reply, status
) -> None:
    lost: list[tuple[str, str]] = []
    service = Service(reply, [reply(status)])
    session = session_on(bench, clock, service, lost)
    await session.ensure()
    session.next_model_seq()
    await settle()
    clock.advance(10)
    await settle()
    assert lost == [("s1", f"its heartbeat was answered {status}")]
    assert session.current is None
    session.lost("s1", "again")
    assert len(lost) == 1
    assert await session.ensure() == "s2"
    assert session.next_model_seq() == 0
    await settle()
    clock.advance(10)
    await settle()
    assert service.beaten == ["s1", "s2"]
    session.stop()
    await bench.tasks.cancel_all()


async def test_stopping_before_anything_began_is_fine(bench, clock, reply) -> None:
    session_on(bench, clock, Service(reply, [])).stop()


async def test_a_refused_session_says_why(bench, clock, reply) -> None:
    session = session_on(bench, clock, lambda _: reply(401, {"detail": "who are you"}))
    with pytest.raises(ApiKeyRefused, match="who are you"):
        await session.ensure()
    session = session_on(bench, clock, lambda _: reply(200, {}))
    with pytest.raises(UpstreamFault, match="without a session_id"):
        await session.ensure()


async def test_another_interval_holds_after_the_next_heartbeat(bench, clock, reply) -> None:
    service = Service(reply, [])
    session = session_on(bench, clock, service)
    await session.ensure()
    await settle()
    session.reconfigure(interval_s=3)
    clock.advance(10)
    await settle()
    assert len(service.beaten) == 1
    clock.advance(3)
    await settle()
    assert len(service.beaten) == 2
    await bench.tasks.cancel_all()


def kept(session_id: str, models: int, samplers: int) -> Change:
    return written(SessionRecord("me", session_id, models, samplers))


async def test_a_session_and_its_numbers_are_noted_before_they_are_used(
    bench, clock, reply, noted
) -> None:
    session = session_on(bench, clock, Service(reply, []), journal=noted)
    assert session.next_sampler_seq() == 0  # of no session: nothing to note
    await session.ensure()
    session.next_model_seq()
    session.next_sampler_seq()
    session.next_model_seq()
    assert noted.changes == [
        kept("s1", 0, 0),
        kept("s1", 1, 0),
        kept("s1", 1, 1),
        kept("s1", 2, 1),
    ]
    await bench.tasks.cancel_all()


async def test_a_session_that_ends_is_taken_out(bench, clock, reply, noted) -> None:
    session = session_on(bench, clock, Service(reply, []), journal=noted)
    await session.ensure()
    session.lost("s1", "gone")
    assert noted.changes[1:] == [deleted(SessionRecord("me", "s1", 0, 0))]
    await session.ensure()
    session.stop()
    assert [change.value is None for change in noted.changes[2:]] == [False, True]
    await bench.tasks.cancel_all()


async def test_a_session_of_an_earlier_run_goes_on(bench, clock, reply, noted) -> None:
    """With its heartbeats and its numbers; nothing new is made, nothing is noted."""
    service = Service(reply, [])
    session = session_on(bench, clock, service, journal=noted)
    session.restore(SessionRecord("me", "old", 3, 5))
    assert await session.ensure() == "old"
    await settle()
    clock.advance(10)
    await settle()
    assert (service.made, service.beaten, noted.changes) == (0, ["old"], [])
    assert (session.next_model_seq(), session.next_sampler_seq()) == (3, 5)
    assert noted.changes == [kept("old", 4, 5), kept("old", 4, 6)]
    await bench.tasks.cancel_all()


async def test_a_session_of_an_earlier_run_that_has_ended_meanwhile_is_replaced(
    bench, clock, reply
) -> None:
    lost: list[tuple[str, str]] = []
    session = session_on(bench, clock, Service(reply, [reply(410)]), lost)
    session.restore(SessionRecord("me", "old", 3, 5))
    await settle()
    clock.advance(10)
    await settle()
    assert lost == [("old", "its heartbeat was answered 410")]
    assert await session.ensure() == "s1"
    assert (session.next_model_seq(), session.next_sampler_seq()) == (0, 0)
    await bench.tasks.cancel_all()

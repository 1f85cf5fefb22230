"""Requests of an earlier run, and who comes for what they carried."""

import asyncio

import pytest

from tinkex_proxy.core.coalesce import Item
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.runtime.flights import Flight, FlightRefused, Flights, ask_of, response_of
from tinkex_proxy.runtime.ledger import Entry
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import BatchRecord, MemberRecord, PromiseRecord
from tinkex_proxy.runtime.work import Call, Order

PROMISE = PromiseRecord("application/json", b'{"request_id": "7"}')


def record(*members: tuple[str | None, str, int], promise=None, seq_id: int = 3) -> BatchRecord:
    return BatchRecord(
        owner="me",
        model_id="m",
        seq_id=seq_id,
        members=tuple(MemberRecord(*member) for member in members),
        path="/api/v1/optim_step",
        content_type="a/b",
        accept="c/d",
        identity="i",
        repeatable=True,
        body=b"bytes",
        promise=promise,
    )


def flight(*members: tuple[str | None, str, int], **more: object) -> Flight:
    return Flight(Page(record(*members, **more), [member[0] for member in members if member[0]]))


def call(name: str | None, part: str) -> Call:
    origin = None if name is None else Entry(name, "me", 1, "key", b"")
    answer = asyncio.get_running_loop().create_future()
    return Call(Order("/p", {}), Item(id=1, key=None), 0.0, answer, origin, part)


async def test_one_that_was_admitted_has_the_upstreams_word() -> None:
    admitted, sent = flight(promise=PROMISE), flight()
    assert admitted.admitted.result() == response_of("application/json", PROMISE.body)
    assert not admitted.landed.done()
    assert not sent.admitted.done()


async def test_what_goes_again_is_what_was_sent() -> None:
    """Byte for byte, as a repetition of something that may have run."""
    ask = ask_of(record())
    assert (ask.operation, ask.path, ask.body) == (Operation.SUBMIT, "/api/v1/optim_step", b"bytes")
    assert (ask.content_type, ask.identity) == ("a/b", "i")
    assert ask.repeatable
    assert ask.doubtful
    assert ask.persistent


async def test_an_answer_comes_back_as_far_as_it_was_kept() -> None:
    response = response_of("a/b", b"x")
    assert (response.status, response.content_type, response.body) == (200, "a/b", b"x")


async def test_each_part_is_boarded_once_by_its_own_call() -> None:
    flights, one = Flights(), flight(("a", "0.0", 2), ("b", "0.0", 1), (None, "0.0", 1))
    flights.add(one)
    assert len(flights) == 2
    assert one.counts == [2, 1, 1]
    assert flights.board(call(None, "0.0")) is None
    assert flights.board(call("a", "0.1")) is None
    assert flights.board(mine := call("b", "0.0")) is one
    assert one.boarded == {1: mine}
    assert mine.origin.pages == [one.page]
    assert flights.board(call("b", "0.0")) is None
    assert flights.carries("a")
    assert not flights.carries("b")


async def test_a_call_is_cut_again_as_far_as_it_was_sent() -> None:
    flights = Flights()
    flights.add(flight(("a", "0.0", 4), ("a", "0.1", 3)))
    flights.add(flight(("a", "0.2", 2), ("a", "1.0", 9), seq_id=4))
    assert flights.sizes("a", "0") == [4, 3, 2]
    assert flights.sizes("a", "1") == [9]
    assert flights.sizes("a", "2") == flights.sizes("b", "0") == []


async def test_a_flight_that_is_dropped_expects_nobody_and_others_do() -> None:
    flights, one, other = Flights(), flight(("a", "0.0", 1)), flight(("b", "0.0", 1), seq_id=4)
    flights.add(one)
    flights.add(other)
    flights.drop(one)
    assert flights.board(call("a", "0.0")) is None
    assert flights.board(call("b", "0.0")) is other


async def test_those_who_never_came_are_given_with_the_pages_kept_for_them() -> None:
    flights, one = Flights(), flight(("a", "0.0", 1), ("b", "0.0", 1))
    flights.add(one)
    flights.board(call("a", "0.0"))
    assert flights.forget() == [("b", one.page)]
    assert len(flights) == 0
    assert flights.forget() == []


@pytest.mark.parametrize("error", [UpstreamFault("no"), FlightRefused()])
async def test_an_error_is_everybodys_who_has_boarded_or_will(error: Exception) -> None:
    one = flight()
    one.fail(error)
    one.fail(UpstreamFault("another"))
    assert one.admitted.exception() is one.landed.exception() is error


async def test_one_that_was_admitted_can_still_come_to_an_error() -> None:
    one = flight(promise=PROMISE)
    one.fail(UpstreamFault("no"))
    assert one.admitted.exception() is None
    assert isinstance(one.landed.exception(), UpstreamFault)

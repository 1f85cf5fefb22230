import asyncio

import pytest

from tinkex_proxy.errors import FutureNotFound, IdempotencyKeyReused
from tinkex_proxy.runtime.journal import NoJournal
from tinkex_proxy.runtime.ledger import FETCHED_KEEP_S, Answer, Ledger, Retention


def make(bench, **retention: float) -> Ledger:
    return Ledger(
        bench.clock,
        bench.tasks,
        Retention(**retention),
        journal=NoJournal(),
        wall_clock=lambda: 1.5e9,
    )


async def answer(body: bytes = b"done", *, retryable: bool = False) -> Answer:
    return Answer(200, body, {}, retryable=retryable)


async def finished(entry) -> None:
    await asyncio.wait([entry.task])
    await asyncio.sleep(0)


async def test_an_answer_nobody_may_come_for_is_not_kept(bench) -> None:
    ledger = make(bench)
    entry = ledger.start("a", "me", lambda _: answer(), key=None, digest=b"")
    assert ledger.running == 1
    await finished(entry)
    assert (len(ledger), ledger.running) == (0, 0)
    with pytest.raises(FutureNotFound):
        ledger.find("me", "a")


async def test_a_wanted_answer_is_kept_for_its_owner_only(bench) -> None:
    ledger = make(bench)
    entry = ledger.start("a", "me", lambda _: answer(), key=None, digest=b"")
    entry.wanted = True
    await finished(entry)
    assert ledger.find("me", "a").task.result().body == b"done"
    with pytest.raises(FutureNotFound):
        ledger.find("you", "a")


async def test_same_key_same_call_gets_the_first_answer(bench) -> None:
    ledger = make(bench)
    entry = ledger.start("a", "me", lambda _: answer(), key="k", digest=b"d")
    assert ledger.repeated("me", "k", b"d") is entry
    await finished(entry)
    assert ledger.repeated("me", "k", b"d") is entry
    assert ledger.repeated("you", "k", b"d") is None
    with pytest.raises(IdempotencyKeyReused, match="'k'"):
        ledger.repeated("me", "k", b"other")


async def test_a_key_whose_call_never_ran_may_be_tried_again(bench) -> None:
    ledger = make(bench)
    entry = ledger.start("a", "me", lambda _: answer(retryable=True), key="k", digest=b"d")
    await finished(entry)
    assert ledger.repeated("me", "k", b"d") is None


async def test_a_withdrawn_call_leaves_nothing(bench) -> None:
    ledger = make(bench)
    never = asyncio.Event()

    async def hang() -> Answer:
        await never.wait()
        return await answer()

    entry = ledger.start("a", "me", lambda _: hang(), key="k", digest=b"d")
    await asyncio.sleep(0)
    entry.task.cancel()
    await finished(entry)
    assert len(ledger) == 0
    assert ledger.repeated("me", "k", b"d") is None


@pytest.mark.parametrize(
    ("retention", "kept"),
    [({"keep_s": 14}, ["b", "c"]), ({"max_answers": 1}, ["c"]), ({"max_bytes": 8}, ["b", "c"])],
)
async def test_what_is_kept_is_bounded_by_age_number_and_bytes(bench, retention, kept) -> None:
    ledger = make(bench, **retention)
    for name in "abc":
        await finished(ledger.start(name, "me", lambda _: answer(), key=name, digest=b""))
        bench.clock.advance(5 if name != "c" else 1)
    bench.clock.advance(4)
    assert [name for name in "abc" if ledger.repeated("me", name, b"")] == kept


async def test_what_has_been_fetched_goes_sooner(bench) -> None:
    """Results of a long run would fill the memory else; a poll that was cut off repeats soon."""
    ledger = make(bench)
    first, second = [
        ledger.start(name, "me", lambda _: answer(), key=name, digest=b"") for name in "ab"
    ]
    ledger.fetched(first)  # not ended: nothing was sent
    await finished(second)
    ledger.fetched(first)
    ledger.fetched(first)
    bench.clock.advance(FETCHED_KEEP_S)
    assert ledger.find("me", "a") is first
    bench.clock.advance(1)
    assert ledger.repeated("me", "a", b"") is None
    assert ledger.find("me", "b") is second
    assert ledger.running == 0
    ledger.fetched(first)
    bench.clock.advance(FETCHED_KEEP_S + 1)
    assert ledger.find("me", "b") is second


async def test_drained_waits_for_what_runs(bench) -> None:
    ledger = make(bench)
    gate = asyncio.Event()

    async def slow() -> Answer:
        await gate.wait()
        return await answer()

    ledger.start("a", "me", lambda _: slow(), key=None, digest=b"")
    draining = asyncio.create_task(ledger.drained())
    await asyncio.sleep(0)
    assert not draining.done()
    gate.set()
    await draining
    assert ledger.running == 0

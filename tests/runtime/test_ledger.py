import asyncio

import pytest

from tinkex_proxy.errors import FutureNotFound, IdempotencyKeyReused
from tinkex_proxy.runtime.journal import NoJournal, StoredJournal
from tinkex_proxy.runtime.ledger import FETCHED_KEEP_S, Answer, Ledger, Retention
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import (
    AskedRecord,
    BatchRecord,
    CallRecord,
    CreationRecord,
    deleted,
    read_records,
    written,
)
from tinkex_proxy.runtime.store import MemoryStore


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


async def test_what_is_pending_and_what_is_kept_is_told(bench) -> None:
    ledger = make(bench)
    release = asyncio.Event()

    async def slow() -> Answer:
        await release.wait()
        return await answer(b"12345")

    for name, operation in (("a", "forward"), ("b", "forward"), ("c", "sdk")):
        asked = AskedRecord(operation, "/", {}, {}, b"")
        entry = ledger.start(name, "me", lambda _: slow(), key=name, digest=b"", asked=asked)
    assert ledger.pending() == {"forward": 2, "sdk": 1}
    assert ledger.kept == (0, 0)
    release.set()
    await finished(entry)
    assert ledger.pending() == {}
    assert ledger.kept == (3, 15)


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


class Book:
    """A journal in memory that two ledgers share, one after the other, like two runs."""

    def __init__(self, bench) -> None:
        self.store = MemoryStore()
        self._bench = bench
        self.time_of_day = 1.5e9

    def ledger(self, **retention: float) -> tuple[Ledger, StoredJournal]:
        journal = StoredJournal(
            self.store, tasks=self._bench.tasks, clock=self._bench.clock, hub=self._bench.hub
        )
        ledger = Ledger(
            self._bench.clock,
            self._bench.tasks,
            Retention(**retention),
            journal=journal,
            wall_clock=lambda: self.time_of_day,
        )
        return ledger, journal

    def calls(self) -> list[CallRecord]:
        owners, _ = read_records(self.store.load())
        return owners["me"].calls if "me" in owners else []


@pytest.fixture
def book(bench) -> Book:
    return Book(bench)


ASKED = AskedRecord("optim_step", "/v1/optim_step", {}, {}, b"{}")


async def test_an_answer_under_a_key_is_there_in_the_next_run(book) -> None:
    ledger, journal = book.ledger()
    entry = ledger.start("a", "me", lambda _: answer(), key="k", digest=b"d")
    await finished(entry)
    await journal.commit()
    after, again = book.ledger()
    assert after.restore(again.take("me").calls) == []
    assert after.repeated("me", "k", b"d").task.result().body == b"done"
    assert after.find("me", "a").id == "a"
    with pytest.raises(IdempotencyKeyReused):
        after.repeated("me", "k", b"other")


async def test_what_is_promised_when_it_has_ended_is_there_in_the_next_run_too(book) -> None:
    ledger, _ = book.ledger()
    entry = ledger.start("a", "me", lambda _: answer(), key="k", digest=b"d")
    await finished(entry)
    await ledger.promise(entry)

    after, again = book.ledger()
    after.restore(again.take("me").calls)
    assert after.find("me", "a").task.result().body == b"done"


async def test_after_a_restart_too_the_oldest_answer_goes_first_whoever_comes_first(book) -> None:
    """What is left of a key is taken over when that key first comes."""
    ledger, journal = book.ledger()
    for name, owner in (("a", "me"), ("b", "you"), ("c", "me"), ("d", "you")):
        await finished(ledger.start(name, owner, lambda _: answer(), key=name, digest=b""))
        book.time_of_day += 1
    await journal.commit()
    after, again = book.ledger(max_answers=3)
    for owner in ("you", "me"):
        after.restore(again.take(owner).calls)
    assert after.repeated("me", "a", b"") is None
    await finished(after.start("e", "me", lambda _: answer(), key="e", digest=b""))
    assert after.repeated("you", "b", b"") is None
    assert [after.find(o, name).id for o, name in (("me", "c"), ("you", "d"), ("me", "e"))]


async def test_the_age_of_an_answer_goes_on_over_a_restart(book, bench) -> None:
    ledger, journal = book.ledger(keep_s=100)
    await finished(ledger.start("a", "me", lambda _: answer(), key="k", digest=b"d"))
    await journal.commit()
    book.time_of_day += 60
    after, again = book.ledger(keep_s=100)
    after.restore(again.take("me").calls)
    assert after.repeated("me", "k", b"d") is not None
    bench.clock.advance(41)
    assert after.repeated("me", "k", b"d") is None
    await again.commit()
    assert book.calls() == []


async def test_what_nobody_may_come_for_is_not_in_the_journal(book) -> None:
    ledger, journal = book.ledger()
    entry = ledger.start("a", "me", lambda _: answer(), key=None, digest=b"", asked=ASKED)
    assert entry.unwritten() == []
    entry.wanted = True  # its caller hung up, and was told nothing
    await finished(entry)
    await journal.commit()
    assert book.calls() == []


async def test_a_call_under_a_key_is_written_before_a_part_of_it_leaves_and_once(book) -> None:
    ledger, journal = book.ledger()
    started = asyncio.Event()

    async def slow() -> Answer:
        await started.wait()
        return await answer()

    entry = ledger.start("a", "me", lambda _: slow(), key="k", digest=b"d", asked=ASKED)
    await journal.commit(entry.unwritten())
    (call,) = book.calls()
    assert (call.id, call.key, call.digest, call.asked, call.answer) == ("a", "k", b"d", None, None)
    assert entry.unwritten() == []
    started.set()
    await finished(entry)


async def test_a_call_that_was_cut_off_goes_on_under_its_old_id_when_it_is_repeated(book) -> None:
    ledger, journal = book.ledger()
    entry = ledger.start("a", "me", lambda _: asyncio.sleep(3600), key="k", digest=b"d")
    await journal.commit(entry.unwritten())
    after, again = book.ledger()
    assert after.restore(again.take("me").calls) == []
    assert after.repeated("me", "k", b"d") is None
    with pytest.raises(IdempotencyKeyReused):
        after.repeated("me", "k", b"other")
    assert after.id_of("me", "k", "b") == "a"
    assert after.id_of("me", "x", "b") == after.id_of("me", None, "b") == "b"
    repeated = after.start("a", "me", lambda _: answer(), key="k", digest=b"d")
    assert repeated.number > entry.number
    assert after.id_of("me", "k", "b") == "b"
    entry.task.cancel()
    await finished(repeated)


async def test_nobody_waits_for_ever_for_a_cut_off_call(book, bench) -> None:
    ledger, journal = book.ledger()
    entry = ledger.start("a", "me", lambda _: asyncio.sleep(3600), key="k", digest=b"d")
    await journal.commit(entry.unwritten())
    after, again = book.ledger(keep_s=100)
    after.restore(again.take("me").calls)
    bench.clock.advance(101)
    assert after.repeated("me", "k", b"other") is None
    await again.commit()
    assert book.calls() == []
    entry.task.cancel()


async def test_a_promised_call_goes_on_by_itself_and_is_known_by_its_old_id(book) -> None:
    ledger, _journal = book.ledger()
    entry = ledger.start(
        "a", "me", lambda _: asyncio.sleep(3600), key=None, digest=b"d", asked=ASKED
    )
    await ledger.promise(entry)
    await ledger.promise(entry)  # it is written already
    assert book.store.writes == 1
    after, again = book.ledger()
    ((call, asked),) = after.restore(again.take("me").calls)
    assert asked == ASKED
    revived = after.restart(call, lambda _: answer(b"at last"))
    assert revived.unwritten() == []
    await finished(revived)
    assert after.find("me", "a").task.result().body == b"at last"
    entry.task.cancel()


async def test_a_promised_call_that_cannot_go_on_is_forgotten(book) -> None:
    ledger, _journal = book.ledger()
    entry = ledger.start(
        "a", "me", lambda _: asyncio.sleep(3600), key=None, digest=b"d", asked=ASKED
    )
    await ledger.promise(entry)
    after, again = book.ledger()
    ((call, _),) = after.restore(again.take("me").calls)
    after.abandon(call)
    await again.commit()
    assert book.calls() == []
    entry.task.cancel()


async def test_an_answer_that_may_be_tried_again_frees_its_key_in_the_journal_too(book) -> None:
    ledger, journal = book.ledger()
    entry = ledger.start("a", "me", lambda _: answer(retryable=True), key="k", digest=b"d")
    await journal.commit(entry.unwritten())
    await finished(entry)
    await journal.commit()
    assert book.calls() == []


async def test_with_its_answer_goes_what_was_kept_for_the_call_alone(book) -> None:
    """Its page, when the request is over, and what else was to be written then."""
    ledger, journal = book.ledger()
    batch = BatchRecord("me", "m", 1, (), "/p", "j", "j", "i", repeatable=True, body=b"")
    page = Page(batch, ["a", "b"], over=True)
    creation = CreationRecord("me", "a", "s", b"", "i")
    await journal.commit([written(batch), written(creation)])
    entry = ledger.start("a", "me", lambda _: answer(), key="k", digest=b"d")
    entry.pages.append(page)
    entry.closing.append(deleted(creation))
    await finished(entry)
    await journal.commit()
    owned = read_records(book.store.load())[0]["me"]
    assert (owned.batches, owned.creations) == ([batch], {})
    assert page.release("b") != ()


async def test_calls_that_are_abandoned_end_where_they_are(bench) -> None:
    ledger = make(bench)
    await ledger.drained()
    done = ledger.start("done", "me", lambda _: answer(), key="k", digest=b"")
    await finished(done)
    stuck = ledger.start("stuck", "me", lambda _: asyncio.sleep(3600), key=None, digest=b"")
    ledger.end_all()
    await ledger.drained()
    assert stuck.task.cancelled()
    assert done.task.result().body == b"done"


@pytest.mark.parametrize("wanted", [False, True])
async def test_a_call_in_its_callers_task_is_known_like_others_and_ends(bench, wanted) -> None:
    ledger = make(bench)
    entry = ledger.accompany("a", "me", ASKED)
    assert (ledger.running, ledger.pending()) == (1, {"optim_step": 1})
    assert ledger.find("me", "a") is entry
    entry.wanted = wanted
    ledger.over(entry, Answer(200, b"done"))
    assert (ledger.running, ledger.kept[0], len(ledger)) == (0, int(wanted), int(wanted))
    assert entry.task.result().body == b"done", "for who has found it before"
    await ledger.drained()


async def test_with_its_end_goes_the_page_that_was_kept_for_it_alone(book) -> None:
    ledger, journal = book.ledger()
    batch = BatchRecord("me", "m", 1, (), "/p", "j", "j", "i", repeatable=True, body=b"")
    await journal.commit([written(batch)])
    entry = ledger.accompany("a", "me", ASKED)
    entry.pages.append(Page(batch, ["a"], over=True))
    ledger.over(entry, Answer(200, b"done"))
    await journal.commit()
    assert read_records(book.store.load())[0] == {}


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_what_was_promised_and_is_ended_is_the_next_runs(book, withdrawn) -> None:
    """As a call with a task of its own, which nothing but our own end ends."""
    ledger, journal = book.ledger()
    entry = ledger.accompany("a", "me", ASKED)
    await ledger.promise(entry)
    entry.withdrawn = withdrawn
    ledger.over(entry, None)
    assert (len(ledger), ledger.running) == (0, 0)
    await journal.commit()
    assert [call.id for call in book.calls()] == ([] if withdrawn else ["a"])


async def test_until_a_call_has_begun_it_is_known_that_it_has_not(bench) -> None:
    ledger, begun = make(bench), []

    async def work() -> Answer:
        begun.append(ledger.unbegun)
        return await answer()

    entry = ledger.start("a", "me", lambda _: work(), key=None, digest=b"")
    assert ledger.unbegun == 1
    await asyncio.sleep(0)
    assert (begun, ledger.unbegun) == ([1], 0)
    await finished(entry)


async def test_a_call_in_its_callers_task_is_ended_there(bench) -> None:
    ledger = make(bench)
    entry = ledger.accompany("a", "me", ASKED)
    entry.wanted = True
    entry.end = lambda: ledger.over(entry, None)
    ledger.end_all()
    await ledger.drained()
    assert (entry.task.cancelled(), len(ledger)) == (True, 0)


async def test_who_stops_waiting_for_the_end_of_calls_does_not_end_them(bench) -> None:
    ledger = make(bench)
    entry = ledger.start("a", "me", lambda _: asyncio.sleep(3600), key=None, digest=b"")
    waiting = asyncio.ensure_future(ledger.drained())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(0)
    assert not entry.task.done()
    ledger.end_all()
    await ledger.drained()


async def test_another_retention_drops_at_once_what_it_does_not_keep(bench) -> None:
    ledger = make(bench)
    for name in "abc":
        entry = ledger.start(name, "me", lambda _: answer(), key=name, digest=b"")
        await finished(entry)
    ledger.reconfigure(Retention(max_answers=1))
    assert len(ledger) == 1
    assert ledger.find("me", "c")


async def test_a_cut_off_call_that_comes_to_nothing_is_made_again_under_its_old_id(book) -> None:
    """What an earlier run has sent of it is known by that id, in this run and in the next."""
    ledger, journal = book.ledger()
    first = ledger.start("a", "me", lambda _: asyncio.sleep(3600), key="k", digest=b"d")
    await journal.commit(first.unwritten())
    before = book.calls()
    after, again = book.ledger()
    after.restore(again.take("me").calls)
    assert after.repeated("me", "k", b"d") is None
    entry = after.start("a", "me", lambda _: answer(retryable=True), key="k", digest=b"d")
    assert entry.unwritten() == []
    await finished(entry)
    await again.commit()
    assert book.calls() == before
    assert after.repeated("me", "k", b"d") is None
    assert after.id_of("me", "k", "b") == "a"
    with pytest.raises(IdempotencyKeyReused):
        after.repeated("me", "k", b"other")
    last = after.start("a", "me", lambda _: answer(b"at last"), key="k", digest=b"d")
    await finished(last)
    await again.commit()
    assert after.find("me", "a").task.result().body == b"at last"
    assert len(after) == 1
    (call,) = book.calls()
    assert call.answer.body == b"at last"
    first.task.cancel()


@pytest.mark.parametrize("earlier", [True, False])
async def test_a_call_that_was_taken_back_may_come_again_at_once(book, earlier) -> None:
    """Before its task has ended, too; one that an earlier run has begun keeps its id."""
    ledger, journal = book.ledger()
    if earlier:
        first = ledger.start("a", "me", lambda _: asyncio.sleep(3600), key="k", digest=b"d")
        await journal.commit(first.unwritten())
        ledger, journal = book.ledger()
        ledger.restore(journal.take("me").calls)
        first.task.cancel()
    before = book.calls()
    entry = ledger.start("a", "me", lambda _: asyncio.sleep(3600), key="k", digest=b"d")
    await asyncio.sleep(0)
    entry.withdrawn = True
    entry.task.cancel()
    assert ledger.repeated("me", "k", b"d") is None
    assert ledger.id_of("me", "k", "b") == ("a" if earlier else "b")
    again = ledger.start(
        ledger.id_of("me", "k", "b"), "me", lambda _: answer(), key="k", digest=b"d"
    )
    await finished(entry)
    assert ledger.repeated("me", "k", b"d") is again
    await journal.commit()
    assert book.calls()[: len(before)] == before or again.task.done()
    await finished(again)
    assert ledger.find("me", again.id).task.result().body == b"done"

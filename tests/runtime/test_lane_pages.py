"""A request is in the journal before it is sent, with all that has to be known of its calls."""

import asyncio

import msgspec
import pytest

from tinkex_proxy.core.coalesce import Item
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import JournalUnavailable
from tinkex_proxy.runtime.aside import Aside
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.lane_pages import LanePages
from tinkex_proxy.runtime.ledger import Entry
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import (
    BatchRecord,
    CallerRecord,
    CallRecord,
    LaneRecord,
    MemberRecord,
    PromiseRecord,
    deleted,
    written,
)
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.runtime.work import Call, Order

ASK = Ask(
    operation=Operation.SUBMIT,
    path="/api/v1/optim_step",
    body=b"bytes",
    content_type="a/b",
    identity="i",
    repeatable=True,
)
ADMITTED = Response(200, {"content-type": "application/json"}, b'{"request_id": 1}')


def call(origin: Entry | None, part: str = "0.0", datums: int = 1) -> Call:
    answer = asyncio.get_running_loop().create_future()
    return Call(Order("/p", {}), Item(id=1, key=None, datums=datums), 0.0, answer, origin, part)


def entry(name: str, key: str | None = "key") -> Entry:
    return Entry(name, "me", 1, key, b"d")


@pytest.fixture
def pages(noted) -> LanePages:
    return LanePages(Book("me", noted), "m", Aside())


def record(*members: MemberRecord, seq_id: int = 3) -> BatchRecord:
    return BatchRecord(
        "me", "m", seq_id, members, ASK.path, "a/b", "c/d", "i", ASK.repeatable, ASK.body
    )


async def write(pages: LanePages, *calls: Call, seq_id: int = 3) -> Page:
    page = await pages.write(seq_id, calls, ASK, accept="c/d")
    assert page is not None
    return page


async def test_a_page_is_committed_with_the_calls_that_the_journal_has_to_know(
    pages, noted
) -> None:
    """In one commit, calls first; a call is written once, whoever else is on the page."""
    known, passing = entry("a"), entry("b", key=None)
    known.leaving = lambda: [written(CallerRecord("me", "m", "w", 2))]
    calls = [call(known, "0.0", 2), call(known, "0.1"), call(passing), call(None)]
    page = await write(pages, *calls)
    members = (
        MemberRecord("a", "0.0", 2),
        MemberRecord("a", "0.1", 1),
        MemberRecord("b", "0.0", 1),
        MemberRecord(None, "0.0", 1),
    )
    assert page.record == record(*members)
    assert noted.commits == [
        [
            written(CallRecord("me", "a", 1, "key", b"d")),
            written(CallerRecord("me", "m", "w", 2)),
            written(record(*members)),
        ]
    ]
    assert (known.pages, passing.pages) == ([page], [page])
    await write(pages, call(known), seq_id=4)
    assert [change.kind.name for change in noted.commits[1]] == ["CALLER", "BATCH"]


async def test_without_a_journal_there_are_no_pages() -> None:
    pages = LanePages(Book(), "m", Aside())
    origin = entry("a")
    assert await pages.write(1, [call(origin)], ASK, accept="c/d") is None
    assert origin.pages == []
    pages.admitted(None, ADMITTED, next_seq=2)
    pages.end(None)
    pages.tear(None)
    pages.close()


async def test_an_admitted_request_keeps_its_promise_and_not_its_bytes(pages, noted) -> None:
    page = await write(pages, call(entry("a")))
    pages.admitted(page, ADMITTED, next_seq=4)
    promise = PromiseRecord("application/json", ADMITTED.body)
    taken = msgspec.structs.replace(page.record, body=b"", promise=promise)
    assert page.record == taken
    assert noted.changes[-2:] == [written(taken), written(LaneRecord("me", "m", 4))]


async def test_a_page_that_is_gone_is_not_written_anew(pages, noted) -> None:
    """The model ended while its request was on the wire."""
    page = await write(pages, call(entry("a")))
    pages.close()
    before = list(noted.changes)
    pages.admitted(page, ADMITTED, next_seq=4)
    assert noted.changes == before


async def test_a_page_ends_with_its_request_unless_a_call_needs_it(pages, noted) -> None:
    needed, alone = await write(pages, call(entry("a"))), await write(pages, call(None), seq_id=4)
    before = len(noted.changes)
    pages.end(needed)
    pages.end(alone)
    assert noted.changes[before:] == [deleted(alone.record)]
    pages.tear(needed)
    assert needed.gone


async def test_a_page_that_could_not_be_written_is_taken_back(pages, noted) -> None:
    """It may be written later with all that is missing: so must that it came to nothing."""
    noted.refusing = JournalUnavailable("full")
    with pytest.raises(JournalUnavailable):
        await pages.write(3, [call(None)], ASK, accept="c/d")
    assert noted.changes == [deleted(record())]


async def test_with_its_model_all_that_speaks_of_a_lane_goes(pages, noted) -> None:
    resumed = Page(record(seq_id=2), ["x"])
    pages.resume(resumed)
    begun = await write(pages, call(entry("a")))
    over = await write(pages, call(None), seq_id=4)
    pages.end(over)
    before = len(noted.changes)
    pages.close()
    names = sorted(
        (change.kind.name, change.key, change.value) for change in noted.changes[before:]
    )
    assert names == [
        ("BATCH", "me/m/2/i", None),
        ("BATCH", "me/m/3/i", None),
        ("LANE", "me/m", None),
    ]
    assert begun.gone
    assert resumed.gone

"""One lane's part of the journal: a page for each of its requests.

A page is written, with all that has to be known of the calls on it, before the request is sent. It
is written anew when the upstream has admitted the request, and taken out when it is refused, or
when it is over and nobody needs it.
"""

from collections.abc import Sequence
from functools import partial

import msgspec

from tinkex_proxy.errors import JournalUnavailable
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES, Aside
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import (
    BatchRecord,
    LaneRecord,
    MemberRecord,
    PromiseRecord,
    deleted,
    written,
)
from tinkex_proxy.runtime.store import Change
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.runtime.work import Call

__all__ = ["LanePages"]


class LanePages:
    """The pages of one lane.

    Args:
        book: the part of the journal that they are in.
        model_id: whose lane it is.
        aside: writes the pages of large requests.
    """

    def __init__(self, book: Book, model_id: str, aside: Aside) -> None:
        self._book = book
        self._aside = aside
        self._model_id = model_id
        self._pages: set[Page] = set()

    async def write(
        self, seq_id: int, calls: Sequence[Call], ask: Ask, *, accept: str
    ) -> Page | None:
        """Write the page of a request that is about to be sent; None where there is no journal.

        Raises:
            JournalUnavailable: it could not be written, and nothing is to be sent without.
        """
        if not self._book.journal.on:
            return None
        origins = {call.origin.id: call.origin for call in calls if call.origin is not None}
        record = BatchRecord(
            self._book.owner,
            self._model_id,
            seq_id,
            tuple(_member(call) for call in calls),
            ask.path,
            ask.content_type,
            accept,
            ask.identity or "",
            ask.repeatable,
            ask.body,
        )
        writing = partial(written, record)
        change = await self._aside.copy(writing, large=len(ask.body) >= LARGE_BODY_BYTES)
        page = Page(record, origins)
        self._pages.add(page)
        changes: list[Change] = []
        for origin in origins.values():
            origin.pages.append(page)
            changes += origin.unwritten()
        try:
            await self._book.journal.commit([*changes, change])
        except JournalUnavailable:
            self.tear(page)
            raise
        return page

    def resume(self, page: Page) -> None:
        """Take over a page of an earlier run."""
        self._pages.add(page)

    def admitted(self, page: Page | None, response: Response, *, next_seq: int) -> None:
        """Note that the upstream took a request: its bytes are not needed any more."""
        if page is None or page.gone:
            return
        promise = PromiseRecord(response.content_type, response.body)
        record = msgspec.structs.replace(page.record, body=b"", promise=promise)
        lane = LaneRecord(self._book.owner, self._model_id, next_seq)
        self._book.journal.note(page.rewrite(record), written(lane))

    def end(self, page: Page | None) -> None:
        """Note that nothing is awaited for a request any more."""
        if page is not None:
            self._book.journal.note(*page.end())
            self._pages.discard(page)

    def tear(self, page: Page | None) -> None:
        """Take out the page of a request that has come to nothing."""
        if page is not None:
            self._book.journal.note(*page.tear())
            self._pages.discard(page)

    def doubt(self, page: Page | None) -> None:
        """Note that nobody will ever know whether a request has run: it may not be sent again.

        Its page stays until all whose parts it holds have been told so.
        """
        if page is not None:
            record = msgspec.structs.replace(page.record, body=b"", doubted=True)
            self._book.journal.note(page.rewrite(record))
            self.end(page)

    def release(self, page: Page, call_id: str) -> None:
        """Note that nobody will come any more for a call."""
        self._book.journal.note(*page.release(call_id))

    def close(self) -> None:
        """Take out all that speaks of the lane: its model is no more."""
        for page in tuple(self._pages):
            self.tear(page)
        if self._book.journal.on:
            self._book.journal.note(deleted(LaneRecord(self._book.owner, self._model_id, 0)))


def _member(call: Call) -> MemberRecord:
    call_id = None if call.origin is None else call.origin.id
    return MemberRecord(call_id, call.part, call.item.datums)

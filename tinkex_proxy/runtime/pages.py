"""A page of the journal: the record of one request, and who still needs it.

A request's page may go when the request is over and every call that has a part in it has been
answered, with that answer in the journal: until then a later run needs the page to find out what
the call came to without sending anything twice.
"""

from collections.abc import Iterable

from tinkex_proxy.runtime.records import BatchRecord, deleted, written
from tinkex_proxy.runtime.store import Change

__all__ = ["Page"]


class Page:
    """The record of one request.

    Args:
        record: as it is written.
        needed_by: the ids of the calls whose parts it holds.
        over: whether nothing is awaited from the upstream any more.
    """

    def __init__(
        self, record: BatchRecord, needed_by: Iterable[str], *, over: bool = False
    ) -> None:
        self.record = record
        self._needed_by = set(needed_by)
        self._over = over
        self._gone = False

    @property
    def gone(self) -> bool:
        """Whether it has been taken out."""
        return self._gone

    def rewrite(self, record: BatchRecord) -> Change:
        """Write it anew."""
        self.record = record
        return written(record)

    def end(self) -> tuple[Change, ...]:
        """Nothing is awaited from the upstream any more; gives the change that follows, if any."""
        self._over = True
        return self._changes()

    def release(self, call_id: str) -> tuple[Change, ...]:
        """A call needs it no more; gives the change that follows, if any."""
        self._needed_by.discard(call_id)
        return self._changes()

    def tear(self) -> tuple[Change, ...]:
        """Take it out whoever needs it."""
        self._needed_by.clear()
        return self.end()

    def _changes(self) -> tuple[Change, ...]:
        if not self._over or self._needed_by or self._gone:
            return ()
        self._gone = True
        return (deleted(self.record),)

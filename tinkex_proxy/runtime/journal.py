"""The journal: what must outlast this process, written before the upstream can act on it.

Whoever changes something says so in one of two ways: `note` (it is written soon) or `commit` (go on
when it is written). Both keep one order. One write is under way at a time, and all that comes
meanwhile goes with the next (group commit): a hundred lanes cost no more writes than one. Of what
comes twice under one name only the last is written.

Where the store cannot be written (a full disk), `on_failure` decides. `warn`: training goes on, the
log says so loudly, and every later write tries again with all that is missing. `refuse`: a commit
fails, so that nothing is sent that could not be told after a crash. Records that wait are bounded;
when they are too many, the journal gives up until the next start.

`NoJournal` keeps nothing: everything goes on at once.
"""

import asyncio
import enum
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from tinkex_proxy.errors import JournalUnavailable
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Hub, JournalFailed, JournalMended, JournalWritten
from tinkex_proxy.runtime.records import Owned, UnreadableRecord, read_records
from tinkex_proxy.runtime.store import Change, Kind, Store, StoreError
from tinkex_proxy.runtime.tasks import Tasks

__all__ = ["Book", "Journal", "NoJournal", "OnFailure", "StoredJournal"]

# What waits for a store that cannot be written: the requests and answers of minutes, not of hours.
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
# A disk that is full now may have room in a while.
TRY_AGAIN_S: Final = 5.0
SALT: Final = "salt"


class OnFailure(enum.Enum):
    """What to do where the journal cannot be written."""

    WARN = "warn"
    REFUSE = "refuse"


class Journal(Protocol):
    """What outlasts this process.

    Attributes:
        on: whether anything is kept; to spare the making of records where nothing is.
    """

    on: bool

    def take(self, owner: str) -> Owned:
        """What an earlier run has left of one owner; given once."""
        ...

    def note(self, *changes: Change) -> None:
        """Have changes written soon, after all that came before."""
        ...

    async def commit(self, changes: Sequence[Change] = ()) -> None:
        """Have changes written, and come back when they and all that came before are.

        Raises:
            JournalUnavailable: they could not be, and nothing is to go on without.
        """
        ...

    async def close(self) -> None:
        """Write what is there, as far as it can be, and keep nothing that comes later."""
        ...


class NoJournal:
    """Keeps nothing."""

    on = False

    def take(self, owner: str) -> Owned:  # noqa: ARG002 - as the protocol has it
        """Nothing was left."""
        return Owned()

    def note(self, *changes: Change) -> None:
        """Keep nothing."""

    async def commit(self, changes: Sequence[Change] = ()) -> None:
        """Keep nothing, and go on."""

    async def close(self) -> None:
        """There is nothing to write."""


@dataclass(frozen=True, slots=True)
class Book:
    """One owner's part of a journal.

    Attributes:
        owner: the public name of an API key.
        journal: where it is.
    """

    owner: str = "none"
    journal: Journal = field(default_factory=NoJournal)


@dataclass(slots=True)
class _Group:
    """What is written together, and who waits for it."""

    changes: dict[tuple[Kind, str], bytes | None]
    written: "asyncio.Future[None]"


class StoredJournal:
    """A journal in a store.

    Args:
        store: where it is kept.
        tasks: runs the writing.
        clock: spaces attempts where writing fails, and times it.
        hub: told of writes and failures.
        on_failure: what to do where it cannot be written.

    Attributes:
        on: whether anything is kept: it is.
        failing: why the store cannot be written, or None.

    Raises:
        StoreDamaged: the store's records make no sense.
    """

    def __init__(
        self,
        store: Store,
        *,
        tasks: Tasks,
        clock: Clock,
        hub: Hub,
        on_failure: OnFailure = OnFailure.WARN,
    ) -> None:
        self.on = True
        self._closed = False
        self.failing: str | None = None
        self._store = store
        self._tasks = tasks
        self._clock = clock
        self._hub = hub
        self._on_failure = on_failure
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._next: _Group | None = None
        self._writer: asyncio.Task[None] | None = None
        self._missing: dict[tuple[Kind, str], bytes | None] = {}
        self._given_up = False
        try:
            self._owners, self._facts = read_records(store.load())
        except UnreadableRecord as error:
            raise store.damaged(str(error)) from error

    def take(self, owner: str) -> Owned:
        """What an earlier run has left of one owner; given once."""
        return self._owners.pop(owner, None) or Owned()

    @property
    def salt(self) -> bytes | None:
        """The salt of the owners' names in an earlier run, if there was one."""
        return self._facts.get(SALT)

    def keep_salt(self, salt: bytes) -> None:
        """Keep the salt of the owners' names; to be called before any task runs.

        Raises:
            StoreError: it cannot be written.
        """
        self._store.write([Change(Kind.FACT, SALT, salt)])

    @property
    def waiting_bytes(self) -> int:
        """Bytes of records that are not written because writing fails."""
        return sum(len(value or b"") for value in self._missing.values())

    def note(self, *changes: Change) -> None:
        """Have changes written soon, after all that came before."""
        if changes and not self._closed:
            self._take(changes)

    async def commit(self, changes: Sequence[Change] = ()) -> None:
        """Have changes written, and come back when they and all that came before are.

        Raises:
            JournalUnavailable: they could not be, and nothing is to go on without.
        """
        if not changes and self._next is None and self._writer is None:
            return
        if self._closed:
            raise JournalUnavailable(
                "The proxy is shutting down; nothing was sent.", retry_after_s=1.0
            )
        await asyncio.shield(self._take(changes).written)

    async def close(self) -> None:
        """Write what is there, as far as it can be, and keep nothing that comes later.

        What ends after this has been ended by our own end: its records are the next run's. So
        nothing may be sent any more: who wants to commit is refused.
        """
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    def _take(self, changes: Sequence[Change]) -> _Group:
        group = self._next
        if group is None:
            group = self._next = _Group({}, asyncio.get_running_loop().create_future())
        for kind, key, value in changes:
            group.changes[kind, key] = value
        if self._writer is None:
            self._writer = self._tasks.spawn("journal", self._write_all())
        return group

    async def _write_all(self) -> None:
        try:
            while self._next is not None:
                group, self._next = self._next, None
                await self._write(group)
        finally:
            self._writer = None

    async def _write(self, group: _Group) -> None:
        changes = {**self._missing, **group.changes}
        if not changes:
            group.written.set_result(None)
            return
        began = self._clock.now()
        try:
            if self._given_up:
                raise StoreError(self.failing or "")  # noqa: TRY301 - one way to fail
            await asyncio.get_running_loop().run_in_executor(self._thread, self._put, changes)
        except StoreError as error:
            self._failed(group, changes, error)
        else:
            self._hub.tell(JournalWritten(len(changes), self._clock.now() - began))
            self._missing = {}
            if self.failing is not None:
                self.failing = None
                self._hub.tell(JournalMended())
            group.written.set_result(None)

    def _put(self, changes: dict[tuple[Kind, str], bytes | None]) -> None:
        self._store.write([Change(kind, key, value) for (kind, key), value in changes.items()])

    def _failed(
        self, group: _Group, changes: dict[tuple[Kind, str], bytes | None], error: StoreError
    ) -> None:
        first, self.failing = self.failing is None, str(error)
        self._missing = {} if self._given_up else changes
        if self.waiting_bytes > MAX_WAITING_BYTES:
            self._given_up, self._missing = True, {}
            self.failing += (
                "; too much waits for it, so it stays as it is until the next start: calls made "
                "since it failed are not known after a crash"
            )
            first = True
        if first:
            self._hub.tell(JournalFailed(self.failing))
            if not self._given_up:
                self._clock.call_later(TRY_AGAIN_S, self._try_again)
        if self._on_failure is OnFailure.WARN:
            group.written.set_result(None)
            return
        refusal = JournalUnavailable(
            f"The journal cannot be written ({self.failing}) and journal.on_failure is refuse; "
            "nothing was sent.",
            retry_after_s=TRY_AGAIN_S,
        )
        group.written.set_exception(refusal)
        group.written.exception()  # seen: notes have nobody who waits

    def _try_again(self) -> None:
        if self.failing is not None and not self._given_up and not self._closed:
            self._take(())
            self._clock.call_later(TRY_AGAIN_S, self._try_again)

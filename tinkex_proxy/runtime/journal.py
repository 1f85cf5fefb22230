"""The journal: what must outlast this process, written before the upstream can act on it.

Whoever changes something says so in one of two ways: `note` (it is written soon) or `commit` (go on
when it is written). Both keep one order. One write is under way at a time, and all that comes
meanwhile goes with the next (group commit): a hundred lanes cost no more writes than one. Of what
comes twice under one name only the last is written.

Where the store cannot be written (a full disk), `on_failure` decides. `warn`: training goes on, the
log says so loudly, and all that is missing is tried again every few seconds; not with each write,
for it grows. `refuse`: a commit fails, so that nothing is sent that could not be told after a
crash, and each later one tries again with all that is missing. Records that wait are bounded; when
they are too many, the journal gives up until the next start.

`NoJournal` keeps nothing: everything goes on at once.
"""

import asyncio
import enum
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from tinkex_proxy.errors import JournalUnavailable
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Hub, JournalFailed, JournalMended, JournalWritten, Note
from tinkex_proxy.runtime.records import Owned, UnreadableRecord, read_records
from tinkex_proxy.runtime.store import Change, Kind, Store, StoreError
from tinkex_proxy.runtime.tasks import Tasks

__all__ = ["Book", "Journal", "NoJournal", "OnFailure", "StoredJournal"]

# What waits for a store that cannot be written: the requests and answers of minutes, not of hours.
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
# What a record takes beside its bytes, in memory; one that is to be deleted has no bytes.
RECORD_BYTES: Final = 256
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
        self._unwritten: dict[tuple[Kind, str], bytes | None] = {}
        self._unwritten_bytes = 0
        self._given_up = False
        self._try_at = 0.0
        self._call_off: Callable[[], None] | None = None
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
        """Have the salt of the owners' names written with the first records: they need it."""
        if self.salt != salt:
            self._add({(Kind.FACT, SALT): salt})

    @property
    def waiting_bytes(self) -> int:
        """Bytes that records take which are not written, because writing fails or is under way."""
        return self._unwritten_bytes

    def note(self, *changes: Change) -> None:
        """Have changes written soon, after all that came before."""
        if changes and not self._closed:
            self._take(changes)

    async def commit(self, changes: Sequence[Change] = ()) -> None:
        """Have changes written, and come back when they and all that came before are.

        Raises:
            JournalUnavailable: they could not be, and nothing is to go on without.
        """
        if not (changes or self._next or self._writer or self.failing):
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
        if self._unwritten:
            self._try_at = self._clock.now()
            self._take(())
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
        self._add(group.changes)
        resting = self._on_failure is OnFailure.WARN and self._clock.now() < self._try_at
        if self._unwritten and not resting:
            try:
                await self._put()
            except StoreError as error:
                self._failed(str(error))
            except Exception as bug:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                self._hub.tell(Note("error", "writing the journal failed", bug))
                self._failed(f"writing it failed: {bug!r}")
        self._check_bound()
        if self.failing is None or self._on_failure is OnFailure.WARN:
            group.written.set_result(None)
            return
        refusal = JournalUnavailable(
            f"The journal cannot be written ({self.failing}) and journal.on_failure is refuse; "
            "nothing was sent.",
            retry_after_s=TRY_AGAIN_S,
        )
        group.written.set_exception(refusal)
        group.written.exception()  # seen: notes have nobody who waits

    def _add(self, changes: dict[tuple[Kind, str], bytes | None]) -> None:
        """Have changes wait to be written, instead of earlier ones of the same names."""
        if self._given_up:
            return
        for name, value in changes.items():
            if name in self._unwritten:
                self._unwritten_bytes -= _size(name, self._unwritten[name])
            self._unwritten[name] = value
            self._unwritten_bytes += _size(name, value)

    async def _put(self) -> None:
        """Write all that waits.

        Raises:
            StoreError: none of it was written.
        """
        changes = [Change(kind, key, value) for (kind, key), value in self._unwritten.items()]
        began = self._clock.now()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.write, changes)
        self._unwritten, self._unwritten_bytes = {}, 0
        self._hub.tell(JournalWritten(len(changes), self._clock.now() - began))
        if self.failing is not None:
            self.failing = None
            self._try_at = 0.0
            self._hub.tell(JournalMended())

    def _failed(self, why: str) -> None:
        first, self.failing = self.failing is None, why
        if first:
            self._hub.tell(JournalFailed(why))
        self._try_at = self._clock.now() + TRY_AGAIN_S
        if self._call_off is not None:
            self._call_off()
        self._call_off = self._clock.call_later(TRY_AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        if self.failing is not None and not self._closed:
            self._take(())

    def _check_bound(self) -> None:
        """Give up when too much waits."""
        if self._unwritten_bytes <= MAX_WAITING_BYTES or self.failing is None:
            return
        self._given_up = True
        self._unwritten, self._unwritten_bytes = {}, 0
        self.failing += (
            "; too much waits for it, so it stays as it is until the next start: calls made "
            "since it failed are not known after a crash"
        )
        self._hub.tell(JournalFailed(self.failing))


def _size(name: tuple[Kind, str], value: bytes | None) -> int:
    return RECORD_BYTES + len(name[1]) + len(value or b"")

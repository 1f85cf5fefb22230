"""The journal: what must outlast this process, written before the upstream can act on it.

Whoever changes something says so in one of two ways: `note` (it is written soon) or `commit` (go on
when it is written). Both keep one order. One write is under way at a time, and all that comes
meanwhile goes with the next (group commit): a hundred lanes cost no more writes than one. A note
alone waits a moment for a commit to go with: most are followed by one, and a commit that found a
note's write under way would wait for two. Of what comes twice under one name only the last is
written.

Where the store cannot be written (a full disk), `on_failure` decides. `warn`: training goes on, the
log says so loudly, and all that is missing is tried again every few seconds; not with each write,
for it grows. `refuse`: a commit fails, so that nothing is sent that could not be told after a
crash, and each later one tries again with all that is missing. Records that wait are bounded; when
they are too many, the journal gives up until the next start.

`NoJournal` keeps nothing: everything goes on at once.
"""

import asyncio
import enum
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from tinkex_proxy.errors import JournalUnavailable
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import JournalFailed, JournalMended, JournalWritten, Note
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.records import Owned, UnreadableRecord, read_records
from tinkex_proxy.runtime.store import Change, Kind, Store, StoreError
from tinkex_proxy.runtime.tasks import Tasks

__all__ = ["Book", "Journal", "NoJournal", "OnFailure", "StoredJournal"]

# What waits for a store that cannot be written: the requests and answers of minutes, not of hours.
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
# What a record takes beside its bytes, in memory; one that is to be deleted has no bytes.
RECORD_BYTES: Final = 256
# Up to here a group is written where we are: a tenth of a millisecond, where handing it to a thread
# and waiting for Python's lock takes several while calls are at work. Large ones are worth that.
IN_PLACE_BYTES: Final = 256 * 1024
# So is a flush, as long as the disk takes no longer than this for one (an SSD takes a tenth of it).
QUICK_FLUSH_S: Final = 0.001
# A disk that was slow once is left to the thread for so long, before it is tried again.
SLOW_FOR_S: Final = 10.0
# A disk that is full now may have room in a while.
TRY_AGAIN_S: Final = 5.0
# How long a note waits for a commit to go with: a fraction of a trainer's cycle, and longer than
# the pause between two calls. A crash meanwhile costs a repetition, which a note is there to spare.
NOTE_S: Final = 0.01
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

    changes: dict[tuple[Kind, str], bytes | None] = field(default_factory=dict)
    waiters: list["asyncio.Future[None]"] = field(default_factory=list)


class StoredJournal:
    """A journal in a store.

    Args:
        store: where it is kept.
        tasks: runs the writing.
        clock: spaces attempts where writing fails, and times it.
        hub: told of writes and failures.
        on_failure: what to do where it cannot be written.
        flush_here: whether a quick disk is flushed in the event loop's thread.

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
        flush_here: bool = True,
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
        self._note_is_due = False
        self._flush_here_from = 0.0 if flush_here else math.inf
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
            if self._writer is None:
                self._write_later()

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
        # One for each who waits: who is cancelled takes nobody along.
        waiter = asyncio.get_running_loop().create_future()
        self._take(changes).waiters.append(waiter)
        self._write_now()
        await waiter

    async def close(self) -> None:
        """Write what is there, as far as it can be, and keep nothing that comes later.

        What ends after this has been ended by our own end: its records are the next run's. So
        nothing may be sent any more: who wants to commit is refused.
        """
        if self._closed:
            return
        self._closed = True
        if self._unwritten or self._next is not None:
            self._try_at = self._clock.now()
            self._take(())
            self._write_now()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    def _take(self, changes: Sequence[Change]) -> _Group:
        if self._next is None:
            self._next = _Group()
        for kind, key, value in changes:
            self._next.changes[kind, key] = value
        return self._next

    def _write_now(self) -> None:
        if self._writer is None:
            self._writer = self._tasks.spawn("journal", self._write_all())

    def _write_later(self) -> None:
        if not self._note_is_due:
            self._note_is_due = True
            self._clock.call_later(NOTE_S, self._write_notes)

    def _write_notes(self) -> None:
        self._note_is_due = False
        if self._next is not None:
            self._write_now()

    async def _write_all(self) -> None:
        """Write as long as somebody waits for it, or we are closing."""
        try:
            while (group := self._next) is not None:
                self._next = None
                await self._write(group)
                if self._store.overgrown:
                    await self._shrink()
                if self._only_notes():
                    self._write_later()
                    return
        finally:
            self._writer = None

    def _only_notes(self) -> bool:
        return self._next is not None and not self._next.waiters and not self._closed

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
        goes_on = self.failing is None or self._on_failure is OnFailure.WARN
        for waiter in group.waiters:
            if waiter.done():
                continue  # who waited was cancelled
            if goes_on:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._refusal())

    def _refusal(self) -> JournalUnavailable:
        return JournalUnavailable(
            f"The journal cannot be written ({self.failing}) and journal.on_failure is refuse; "
            "nothing was sent.",
            retry_after_s=TRY_AGAIN_S,
        )

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
        if self._unwritten_bytes <= IN_PLACE_BYTES:
            self._store.write(changes)
        else:
            await self._in_thread(partial(self._store.write, changes))
        if self._store.unflushed:
            await self._flush()
        self._unwritten, self._unwritten_bytes = {}, 0
        self._hub.tell(JournalWritten(len(changes), self._clock.now() - began))
        if self.failing is not None:
            self.failing = None
            self._try_at = 0.0
            self._hub.tell(JournalMended())

    async def _flush(self) -> None:
        began = self._clock.now()
        if began < self._flush_here_from:
            await self._in_thread(self._store.flush)
            return
        self._store.flush()
        if (now := self._clock.now()) - began > QUICK_FLUSH_S:
            self._flush_here_from = now + SLOW_FOR_S

    async def _shrink(self) -> None:
        """Have a long log copied; what is in it is safe, so that a failure can wait."""
        try:
            await self._in_thread(self._store.shrink)
        except StoreError as error:
            self._hub.tell(Note("warning", "the journal's log cannot be copied", error))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Do what may take its time."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

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
            self._write_now()

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

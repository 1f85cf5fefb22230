"""The calls that outlive their connection: futures, idempotency keys, kept answers.

Every call has an entry while it runs. When it ends, its answer is kept only if somebody may come
for it: the call was made with `Prefer: respond-async` or an `Idempotency-Key`, or its caller left
before the answer was there. What is kept is bounded by age, number and bytes, oldest first.

An answer that an SDK has fetched is kept a little longer only: its poll may have been cut off.

An entry belongs to the API key that made it; another key never sees it.

What somebody may come for is in the journal too: a call under an `Idempotency-Key` before any part
of it is sent, a call whose answer was promised before its caller is told so, and then the answer. A
call that the program's end cut off is begun again under its old id: by itself where it was
promised, else when its caller repeats it. What of it was sent is not sent again (`flights.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tinkex_proxy.errors import FutureNotFound, IdempotencyKeyReused
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.journal import Journal
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.records import AnswerRecord, AskedRecord, CallRecord, deleted, written
from tinkex_proxy.runtime.store import Change
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.whose import Whose

__all__ = ["Answer", "Entry", "Ledger", "Retention"]

# An SDK whose poll was cut off asks again after 1, 2, 4 s, and abandons a silent one after 90 s.
FETCHED_KEEP_S = 180.0


class Answer(msgspec.Struct, frozen=True):
    """An answer, ready to be sent.

    Attributes:
        status: HTTP status.
        body: the whole body.
        headers: names in lower case.
        retryable: whether the same call may be made again because nothing ran.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept, and how long."""

    keep_s: float = 3600.0
    max_answers: int = 10_000
    max_bytes: int = 256 * 1024 * 1024


class Entry(msgspec.Struct, eq=False):
    """One call.

    Attributes:
        id: its public name, also its `X-Request-Id`.
        owner: key id of who made it.
        number: its place among all calls.
        key: its `Idempotency-Key`, or None.
        digest: of its path and body, to recognise a repetition.
        asked: its request, to do it again should we end before it does.
        wanted: whether somebody may come for the answer later.
        promised: whether somebody was told that the answer will be here.
        ended_at: when it ended, or None.
        waiters: connections that wait for it now.
        withdrawn: whether its caller has taken it back, before any of it had left.
        pages: the journal's pages that hold parts of it.
        closing: what else is written with its answer.
        leaving: what else has to be written before a part of it leaves.
        in_journal: whether it is there.
        earlier: whether an earlier run has begun it, and may have sent parts of it.
        whose: its name in logs and traces.
        at_end: called when it has ended.
        task: what runs it, or ran it, or the answer of what does; never raises.
        end: ends it where it is, if its caller's task runs it.
    """

    id: str
    owner: str
    number: int
    key: str | None
    digest: bytes
    asked: AskedRecord | None = None
    wanted: bool = False
    promised: bool = False
    ended_at: float | None = None
    waiters: int = 0
    withdrawn: bool = False
    pages: list[Page] = []
    closing: list[Change] = []
    leaving: Callable[[], Sequence[Change]] | None = None
    task: "asyncio.Future[Answer]" = None  # type: ignore[assignment]  # set at once
    in_journal: bool = False
    earlier: bool = False
    whose: Whose | None = None
    at_end: Callable[[], None] | None = None
    end: Callable[[], None] | None = None

    @property
    def recorded(self) -> bool:
        """Whether the journal has to know it."""
        return self.key is not None or self.promised

    def unwritten(self) -> list[Change]:
        """What has to be written before a part of it leaves; the call itself is given once."""
        changes: list[Change] = []
        if self.recorded and not self.in_journal:
            changes.append(self.record())
        if self.leaving is not None:
            changes += self.leaving()
        return changes

    def record(self, answer: AnswerRecord | None = None) -> Change:
        """Its record; who repeats a call brings the request, so it is kept only where promised."""
        self.in_journal = True
        asked = self.asked if self.promised and answer is None else None
        call = CallRecord(self.owner, self.id, self.number, self.key, self.digest, asked, answer)
        return written(call)

    def erased(self) -> list[Change]:
        """The change that takes it out of the journal, if it is there."""
        if not self.in_journal:
            return []
        return [deleted(CallRecord(self.owner, self.id, self.number, self.key, self.digest))]

    def turned(self) -> list[Change]:
        """What is written with its answer: the pages that were kept for it alone go."""
        pages, self.pages = self.pages, []
        closing, self.closing = self.closing, []
        return [*closing, *(change for page in pages for change in page.release(self.id))]


class Ledger:
    """All calls of all keys.

    Args:
        clock: measures age.
        tasks: runs the calls.
        retention: what to keep.
        journal: what outlasts this process.
        wall_clock: gives the time of day in seconds, for ages that outlast it.

    Attributes:
        unbegun: calls with a task that has not begun yet: a turn of the event loop later it has.
    """

    def __init__(
        self,
        clock: Clock,
        tasks: Tasks,
        retention: Retention,
        *,
        journal: Journal,
        wall_clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._retention = retention
        self._journal = journal
        self._wall_clock = wall_clock
        self._numbers = 0
        self.unbegun = 0
        self._cut_off: dict[tuple[str, str], tuple[CallRecord, float]] = {}
        self._entries: dict[str, Entry] = {}
        self._keys: dict[tuple[str, str], Entry] = {}
        self._kept: dict[str, int] = {}
        self._fetched: dict[str, float] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._entries) - len(self._kept)

    @property
    def kept(self) -> tuple[int, int]:
        """How many answers are kept, and their bytes."""
        return len(self._kept), self._kept_bytes

    def pending(self) -> Mapping[str, int]:
        """Calls that have not ended, by operation."""
        asked = [entry.asked for entry in self._entries.values() if entry.ended_at is None]
        return Counter(each.operation for each in asked if each is not None)

    def repeated(self, owner: str, key: str, digest: bytes) -> Entry | None:
        """The first call under this key, or None if this is the first.

        Raises:
            IdempotencyKeyReused: the first call was another one.
        """
        self._expire()
        entry = self._keys.get((owner, key))
        if entry is not None and entry.withdrawn:  # and about to end: it is as if it had not come
            self._withdrawn(entry)
            entry = None
        first = entry.digest if entry is not None else self._digest_cut_off(owner, key)
        if first is not None and first != digest:
            raise IdempotencyKeyReused(
                f"Idempotency-Key {key!r} was used before with another path or body. "
                "Use a fresh key for a new call, or repeat the first one exactly."
            )
        return entry

    def id_of(self, owner: str, key: str | None, fresh: str) -> str:
        """The id of a call that is to start: its old one if our end cut it off, else `fresh`."""
        cut_off = None if key is None else self._cut_off.get((owner, key))
        return fresh if cut_off is None else cut_off[0].id

    def start(
        self,
        entry_id: str,
        owner: str,
        work: Callable[[Entry], Coroutine[object, object, Answer]],
        *,
        key: str | None,
        digest: bytes,
        asked: AskedRecord | None = None,
    ) -> Entry:
        """Run a call; it goes on whatever becomes of its caller.

        Args:
            entry_id: its name.
            owner: key id of who makes it.
            work: gives what is run; is called at once, with the entry.
            key: its `Idempotency-Key`, or None.
            digest: of its path and body.
            asked: its request, to do it again after our end.
        """
        self._numbers += 1
        entry = Entry(entry_id, owner, self._numbers, key, digest, asked, wanted=key is not None)
        cut_off = None if key is None else self._cut_off.get((owner, key))
        entry.earlier = entry.in_journal = cut_off is not None and cut_off[0].id == entry_id
        self._forget_answer(entry_id)
        name = f"call {entry_id}"
        entry.task = self._tasks.start(name, work(entry), lambda _: self._ended(entry))
        self.unbegun += 1
        asyncio.get_running_loop().call_soon(self._has_begun)  # behind the task's first step
        self._entries[entry_id] = entry
        if key is not None:
            self._keys[owner, key] = entry
            self._cut_off.pop((owner, key), None)
        return entry

    def _has_begun(self) -> None:
        self.unbegun -= 1

    def accompany(self, entry_id: str, owner: str, asked: AskedRecord) -> Entry:
        """Know of a call that its caller's own task runs; `over` must follow.

        Args:
            entry_id: its name.
            owner: key id of who makes it.
            asked: its request.
        """
        self._numbers += 1
        entry = Entry(entry_id, owner, self._numbers, None, b"", asked)
        entry.task = asyncio.get_running_loop().create_future()
        self._entries[entry_id] = entry
        return entry

    def over(self, entry: Entry, answer: Answer | None) -> None:
        """Such a call has come to an answer, or to none: it was ended."""
        if answer is None:
            entry.task.cancel()
        else:
            entry.task.set_result(answer)
        to_go_on = answer is None and entry.in_journal and not entry.withdrawn  # in the next run
        if (entry.wanted or entry.pages) and not to_go_on:
            self._ended(entry)
        else:  # nothing of it is anywhere else, or it stays there
            entry.ended_at = self._clock.now()
            self._leave(entry)

    async def promise(self, entry: Entry) -> None:
        """Have a call's answer here for whoever comes for it later, even in a later run.

        Raises:
            JournalUnavailable: that cannot be promised.
        """
        known = entry.promised and entry.in_journal
        entry.wanted = entry.promised = True
        if self._journal.on:  # of one that has ended, the answer is on its way there
            ended = entry.ended_at is not None
            await self._journal.commit([] if known or ended else [entry.record()])

    def restore(self, calls: Sequence[CallRecord]) -> list[tuple[CallRecord, AskedRecord]]:
        """Take over the calls of an earlier run; gives those that have to be begun again now."""
        promised = []
        now, time_of_day = self._clock.now(), self._wall_clock()
        for call in calls:
            self._numbers = max(self._numbers, call.number)
            if call.answer is not None:
                self._restore_answer(call, call.answer, now, time_of_day)
            elif call.asked is not None:
                promised.append((call, call.asked))
            elif call.key is not None:
                self._cut_off[call.owner, call.key] = (call, now)
        # Other owners' may be here already, and newer: the oldest is to stand first.
        self._kept = dict(sorted(self._kept.items(), key=self._ended_at))
        self._expire()
        return promised

    def abandon(self, call: CallRecord) -> None:
        """Forget a call of an earlier run that cannot be begun again."""
        self._journal.note(deleted(call))

    def restart(
        self, call: CallRecord, work: Callable[[Entry], Coroutine[object, object, Answer]]
    ) -> Entry:
        """Run a promised call of an earlier run, under its old id."""

        def again(entry: Entry) -> Coroutine[object, object, Answer]:
            entry.wanted = entry.promised = entry.in_journal = entry.earlier = True
            return work(entry)

        return self.start(
            call.id, call.owner, again, key=call.key, digest=call.digest, asked=call.asked
        )

    def find(self, owner: str, entry_id: str) -> Entry:
        """A call by its id.

        Raises:
            FutureNotFound: unknown under this key, or no longer kept.
        """
        self._expire()
        entry = self._entries.get(entry_id)
        if entry is None or entry.owner != owner:
            raise FutureNotFound(
                f"No call {entry_id!r} under this API key. Answers are kept for "
                f"{self._retention.keep_s:g} s, for calls made with Prefer: respond-async or an "
                "Idempotency-Key, and for callers that lost their connection."
            )
        return entry

    def fetched(self, entry: Entry) -> None:
        """Note that the answer of an ended call has been sent to who will not come twice for it."""
        if entry.id in self._kept:
            self._fetched.setdefault(entry.id, self._clock.now())

    def _digest_cut_off(self, owner: str, key: str) -> bytes | None:
        cut_off = self._cut_off.get((owner, key))
        return None if cut_off is None else cut_off[0].digest

    def _restore_answer(
        self, call: CallRecord, answer: AnswerRecord, now: float, time_of_day: float
    ) -> None:
        entry = Entry(call.id, call.owner, call.number, call.key, call.digest, wanted=True)
        entry.promised = True
        entry.record()  # it is written already
        entry.task = asyncio.get_running_loop().create_future()
        entry.task.set_result(Answer(answer.status, answer.body, answer.headers))
        entry.ended_at = now - max(0.0, time_of_day - answer.ended_at)
        self._entries[entry.id] = entry
        if call.key is not None:
            self._keys[call.owner, call.key] = entry
        self._keep(entry, len(answer.body))

    async def drained(self) -> None:
        """Wait until every running call has ended."""
        running = [e.task for e in self._entries.values() if e.ended_at is None]
        if running:
            await asyncio.wait(running)

    def end_all(self) -> None:
        """End every running call where it is; its caller is told that it may have run."""
        for entry in tuple(self._entries.values()):
            if entry.ended_at is None:
                (entry.end or entry.task.cancel)()

    def reconfigure(self, retention: Retention) -> None:
        """Keep as much as this from now on."""
        self._retention = retention
        self._expire()

    def _ended(self, entry: Entry) -> None:
        entry.ended_at = self._clock.now()
        entry.asked = entry.leaving = None
        if entry.at_end is not None:
            entry.at_end()
            entry.at_end = None
        answer = None if entry.task.cancelled() else entry.task.result()
        if answer is None and entry.earlier and entry.withdrawn:
            self._withdrawn(entry)
            self._leave(entry)
            return
        if answer is None or not entry.wanted:
            self._drop(entry)
            return
        freed = answer.retryable and entry.key is not None
        if answer.retryable and entry.key is not None:
            self._free_key(entry, entry.key)
        self._keep(entry, len(answer.body))
        if freed and entry.earlier:
            pass  # the journal has it as it was: a call to be made again
        elif self._journal.on and entry.recorded:
            kept = AnswerRecord(
                answer.status, dict(answer.headers), answer.body, self._wall_clock()
            )
            self._journal.note(entry.record(kept), *entry.turned())
        else:
            self._journal.note(*entry.erased(), *entry.turned())
        self._expire()

    def _free_key(self, entry: Entry, key: str) -> None:
        """Nothing ran now, so the call may be made again; under its old id, where it has one.

        An earlier run may have sent parts of it, which are known by that id.
        """
        if self._keys.get((entry.owner, key)) is entry:
            del self._keys[entry.owner, key]
        entry.key = None
        if entry.earlier:
            call = CallRecord(entry.owner, entry.id, entry.number, key, entry.digest)
            self._cut_off[entry.owner, key] = (call, self._clock.now())

    def _withdrawn(self, entry: Entry) -> None:
        """A call was taken back: its key is free, and means the old id where it has one."""
        if entry.key is not None:
            self._free_key(entry, entry.key)

    def _leave(self, entry: Entry) -> None:
        """It is no more, unless its call is being made again under the same id."""
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]

    def _forget_answer(self, entry_id: str) -> None:
        """A call is made again under its id: what it came to before is of no account."""
        self._kept_bytes -= self._kept.pop(entry_id, 0)
        self._fetched.pop(entry_id, None)

    def _ended_at(self, kept: tuple[str, int]) -> float:
        return self._entries[kept[0]].ended_at or 0.0

    def _keep(self, entry: Entry, size: int) -> None:
        self._kept[entry.id] = size
        self._kept_bytes += size

    def _expire(self) -> None:
        now = self._clock.now()
        while self._fetched and next(iter(self._fetched.values())) < now - FETCHED_KEEP_S:
            entry_id = next(iter(self._fetched))
            self._drop(self._entries[entry_id])
        retention, oldest_good = self._retention, now - self._retention.keep_s
        while self._cut_off:
            at, (call, since) = next(iter(self._cut_off.items()))
            if since >= oldest_good:
                break
            del self._cut_off[at]
            self._journal.note(deleted(call))
        while self._kept:
            oldest = self._entries[next(iter(self._kept))]
            if oldest.ended_at is not None and oldest.ended_at >= oldest_good:
                break
            self._drop(oldest)
        while len(self._kept) > retention.max_answers or self._kept_bytes > retention.max_bytes:
            self._drop(self._entries[next(iter(self._kept))])

    def _drop(self, entry: Entry) -> None:
        self._leave(entry)
        if entry.key is not None and self._keys.get((entry.owner, entry.key)) is entry:
            del self._keys[entry.owner, entry.key]
        self._forget_answer(entry.id)
        self._journal.note(*entry.erased(), *entry.turned())

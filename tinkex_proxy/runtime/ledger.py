"""The calls that outlive their connection: futures, idempotency keys, kept answers.

Every call has an entry while it runs. When it ends, its answer is kept only if somebody may come
for it: the call was made with `Prefer: respond-async` or an `Idempotency-Key`, or its caller left
before the answer was there. What is kept is bounded by age, number and bytes, oldest first.

An answer that an SDK has fetched is kept a little longer only: its poll may have been cut off.

An entry belongs to the API key that made it; another key never sees it.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field

from tinkex_proxy.errors import FutureNotFound, IdempotencyKeyReused
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.tasks import Tasks

__all__ = ["Answer", "Entry", "Ledger", "Retention"]

# An SDK whose poll was cut off asks again after 1, 2, 4 s, and abandons a silent one after 90 s.
FETCHED_KEEP_S = 180.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, ready to be sent.

    Attributes:
        status: HTTP status.
        body: the whole body.
        headers: names in lower case.
        retryable: whether the same call may be made again because nothing ran.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept, and how long."""

    keep_s: float = 3600.0
    max_answers: int = 10_000
    max_bytes: int = 256 * 1024 * 1024


@dataclass(eq=False, slots=True)
class Entry:
    """One call.

    Attributes:
        id: its public name, also its `X-Request-Id`.
        owner: key id of who made it.
        task: what runs it; never raises.
        key: its `Idempotency-Key`, or None.
        digest: of its path and body, to recognise a repetition.
        wanted: whether somebody may come for the answer later.
        ended_at: when it ended, or None.
        waiters: connections that wait for it now.
    """

    id: str
    owner: str
    task: "asyncio.Task[Answer]"
    key: str | None
    digest: bytes
    wanted: bool
    ended_at: float | None = None
    waiters: int = 0


class Ledger:
    """All calls of all keys.

    Args:
        clock: measures age.
        tasks: runs the calls.
        retention: what to keep.
    """

    def __init__(self, clock: Clock, tasks: Tasks, retention: Retention) -> None:
        self._clock = clock
        self._tasks = tasks
        self._retention = retention
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

    def repeated(self, owner: str, key: str, digest: bytes) -> Entry | None:
        """The first call under this key, or None if this is the first.

        Raises:
            IdempotencyKeyReused: the first call was another one.
        """
        self._expire()
        entry = self._keys.get((owner, key))
        if entry is not None and entry.digest != digest:
            raise IdempotencyKeyReused(
                f"Idempotency-Key {key!r} was used before with another path or body. "
                "Use a fresh key for a new call, or repeat the first one exactly."
            )
        return entry

    def start(
        self,
        entry_id: str,
        owner: str,
        work: Coroutine[object, object, Answer],
        *,
        key: str | None,
        digest: bytes,
    ) -> Entry:
        """Run a call; it goes on whatever becomes of its caller."""
        task = self._tasks.start(f"call {entry_id}", work)
        entry = Entry(entry_id, owner, task, key, digest, wanted=key is not None)
        self._entries[entry_id] = entry
        if key is not None:
            self._keys[owner, key] = entry
        task.add_done_callback(lambda _: self._ended(entry))
        return entry

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

    async def drained(self) -> None:
        """Wait until every running call has ended."""
        running = [e.task for e in self._entries.values() if e.ended_at is None]
        await asyncio.gather(*running, return_exceptions=True)

    def _ended(self, entry: Entry) -> None:
        entry.ended_at = self._clock.now()
        answer = None if entry.task.cancelled() else entry.task.result()
        if answer is None or not entry.wanted:
            self._drop(entry)
            return
        if answer.retryable and entry.key is not None:
            self._keys.pop((entry.owner, entry.key), None)
        self._kept[entry.id] = len(answer.body)
        self._kept_bytes += len(answer.body)
        self._expire()

    def _expire(self) -> None:
        now = self._clock.now()
        while self._fetched and next(iter(self._fetched.values())) < now - FETCHED_KEEP_S:
            entry_id = next(iter(self._fetched))
            self._drop(self._entries[entry_id])
        retention, oldest_good = self._retention, now - self._retention.keep_s
        for entry_id in list(self._kept):
            entry = self._entries[entry_id]
            fits = len(self._kept) <= retention.max_answers
            fits = fits and self._kept_bytes <= retention.max_bytes
            if fits and entry.ended_at is not None and entry.ended_at >= oldest_good:
                return
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        self._entries.pop(entry.id, None)
        if entry.key is not None and self._keys.get((entry.owner, entry.key)) is entry:
            del self._keys[entry.owner, entry.key]
        self._kept_bytes -= self._kept.pop(entry.id, 0)
        self._fetched.pop(entry.id, None)

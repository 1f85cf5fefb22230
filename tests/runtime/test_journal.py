"""What is promised of the journal: order, groups, and what happens where it cannot be written."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tinkex_proxy.errors import JournalUnavailable
from tinkex_proxy.runtime import journal as journal_module
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Event, JournalFailed, JournalMended, JournalWritten, Note
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.journal import (
    IN_PLACE_BYTES,
    NOTE_S,
    QUICK_FLUSH_S,
    SLOW_FOR_S,
    TRY_AGAIN_S,
    Book,
    NoJournal,
    OnFailure,
    StoredJournal,
)
from tinkex_proxy.runtime.records import LaneRecord, Owned, written
from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import Change, Kind, MemoryStore, StoreDamaged, StoreError
from tinkex_proxy.runtime.tasks import Tasks

FULL = StoreError("no room")


def put(name: str, value: str | None = "x") -> Change:
    return Change(Kind.FACT, name, None if value is None else value.encode())


class GatedStore(MemoryStore):
    """Has nothing for certain before it may: each flush waits for `let`."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[Change]] = []
        self._may = threading.Semaphore(0)

    @property
    def unflushed(self) -> bool:
        return True

    def write(self, changes) -> None:
        self.groups.append(list(changes))

    def flush(self) -> None:
        assert self._may.acquire(timeout=3), "nobody let it write"
        super().write(self.groups[-1])

    def let(self, writes: int = 1) -> None:
        self._may.release(writes)


class Desk:
    """A journal, its store, and what was told."""

    def __init__(
        self,
        store: MemoryStore,
        on_failure: OnFailure = OnFailure.WARN,
        *,
        flush_here: bool = False,
    ) -> None:
        self.store = store
        self.told: list[Event] = []
        self.clock = ManualClock()
        self.tasks = Tasks(lambda name, error: self.crashes.append(error))
        self.crashes: list[BaseException] = []
        self.journal = StoredJournal(
            store,
            tasks=self.tasks,
            clock=self.clock,
            hub=Hub([self], on_broken=self.crashes.append),
            on_failure=on_failure,
            flush_here=flush_here,
        )

    def on_event(self, event: Event) -> None:
        self.told.append(event)

    def heard(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.told if isinstance(event, kind)]

    def names(self) -> list[str]:
        return sorted(key for _, key in self.store.records)


async def until(holds: Callable[[], object]) -> None:
    """Take turns of the event loop until the writing thread is there."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


async def settled(desk: Desk) -> None:
    await until(lambda: desk.journal._writer is None)


async def told(desk: Desk, *changes: Change) -> None:
    """Have changes noted, and the note's time gone by."""
    desk.journal.note(*changes)
    desk.clock.advance(NOTE_S)
    await settled(desk)


@pytest.fixture
async def desk_on():
    desks: list[Desk] = []

    def make(
        store: MemoryStore | None = None,
        on_failure: OnFailure = OnFailure.WARN,
        **options: bool,
    ) -> Desk:
        desks.append(Desk(MemoryStore() if store is None else store, on_failure, **options))
        return desks[-1]

    yield make
    for desk in desks:
        assert desk.crashes == []
        await desk.journal.close()


async def test_a_commit_comes_back_when_it_is_written(desk_on) -> None:
    desk = desk_on()
    await desk.journal.commit([put("a", "1"), put("b", "2")])
    assert desk.store.records == {(Kind.FACT, "a"): b"1", (Kind.FACT, "b"): b"2"}
    await desk.journal.commit([put("a", None)])
    assert desk.names() == ["b"]
    assert [event.records for event in desk.heard(JournalWritten)] == [2, 1]


async def test_a_note_is_written_soon_and_nobody_waits(desk_on) -> None:
    desk = desk_on()
    desk.journal.note(put("a"))
    desk.journal.note()
    desk.clock.advance(NOTE_S / 2)
    desk.journal.note(put("b"))
    await settled(desk)
    assert desk.names() == []
    desk.clock.advance(NOTE_S / 2)
    await settled(desk)
    assert desk.names() == ["a", "b"]
    assert (desk.store.writes, desk.clock.pending) == (1, 0)


async def test_a_note_goes_with_a_commit_that_comes_meanwhile(desk_on) -> None:
    desk = desk_on()
    desk.journal.note(put("a"))
    await desk.journal.commit([put("b")])
    assert (desk.names(), desk.store.writes) == (["a", "b"], 1)
    desk.clock.advance(NOTE_S)
    await settled(desk)
    assert desk.store.writes == 1


async def test_a_note_that_comes_during_a_write_waits_its_moment_too(desk_on) -> None:
    desk = desk_on(store := GatedStore())
    store.let(2)
    waiting = asyncio.create_task(desk.journal.commit([put("a")]))
    await until(lambda: store.groups)
    desk.journal.note(put("b"))
    await waiting
    await settled(desk)
    assert len(store.groups) == 1
    desk.clock.advance(NOTE_S)
    await settled(desk)
    assert store.groups[1:] == [[put("b")]]


class Disk(MemoryStore):
    """Flushes, and has its log copied, in as long as it is told, by whom is noted."""

    unflushed = True
    overgrown = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.takes_s = 0.0
        self.by: list[str] = []
        self.refuses = False
        self.may_shrink = threading.Event()

    def flush(self) -> None:
        self.by.append(threading.current_thread().name)
        if threading.current_thread() is threading.main_thread():
            self.clock.advance(self.takes_s)

    def shrink(self) -> None:
        assert self.may_shrink.wait(3), "who waits for a write waits for this too"
        self.by.append(f"shrink {threading.current_thread().name}")
        self.overgrown = False
        if self.refuses:
            raise StoreError("no")


async def test_a_quick_disk_is_flushed_here_and_a_slow_one_in_the_journals_thread(desk_on) -> None:
    """What else is to be done waits for it: a fraction of a millisecond, or once a while."""
    desk = desk_on(disk := Disk(), flush_here=True)
    disk.clock = desk.clock

    async def flushed_by() -> str:
        await desk.journal.commit([put("a")])
        return disk.by[-1]

    disk.takes_s = QUICK_FLUSH_S
    assert [await flushed_by(), await flushed_by()] == ["MainThread", "MainThread"]
    disk.takes_s = 2 * QUICK_FLUSH_S
    assert [await flushed_by(), await flushed_by()] == ["MainThread", "journal_0"]
    desk.clock.advance(SLOW_FOR_S - 0.001)
    assert await flushed_by() == "journal_0"
    desk.clock.advance(0.001)
    disk.takes_s = 0
    assert [await flushed_by(), await flushed_by()] == ["MainThread", "MainThread"]


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_long_log_is_copied_when_who_waited_has_been_told(desk_on, refuses) -> None:
    desk = desk_on(disk := Disk())
    disk.overgrown, disk.refuses = True, refuses
    await desk.journal.commit([put("a")])
    disk.may_shrink.set()
    await settled(desk)
    assert disk.by == ["journal_0", "shrink journal_0"]
    assert [note.message for note in desk.heard(Note)] == (
        ["the journal's log cannot be copied"] if refuses else []
    )
    await desk.journal.commit([put("b")])
    assert desk.names() == ["a", "b"]


@pytest.mark.parametrize(("size", "by"), [(10, "MainThread"), (IN_PLACE_BYTES, "journal_0")])
async def test_a_large_group_is_written_by_the_journals_thread_too(desk_on, size, by) -> None:
    desk = desk_on()
    write, written_by = desk.store.write, []

    def look(changes) -> None:
        written_by.append(threading.current_thread().name)
        write(changes)

    desk.store.write = look
    await desk.journal.commit([put("a", "x" * size)])
    assert written_by == [by]
    assert desk.names() == ["a"]


async def test_all_that_comes_during_a_write_goes_with_the_next(desk_on) -> None:
    """A hundred lanes cost no more writes than one."""
    desk = desk_on(store := GatedStore())
    first = asyncio.create_task(desk.journal.commit([put("first")]))
    await until(lambda: store.groups)
    others = [asyncio.create_task(desk.journal.commit([put(f"{n}")])) for n in range(100)]
    desk.journal.note(put("noted"))
    await asyncio.sleep(0)
    assert len(store.groups) == 1
    store.let()
    await first
    assert not any(other.done() for other in others)
    store.let()
    await asyncio.gather(*others)
    assert [len(group) for group in store.groups] == [1, 101]


async def test_of_what_comes_twice_under_one_name_only_the_last_is_written(desk_on) -> None:
    desk = desk_on(store := GatedStore())
    store.let(2)
    desk.journal.note(put("a", "1"), put("b", "1"), Change(Kind.LANE, "a", b"other kind"))
    desk.journal.note(put("b", None))
    await desk.journal.commit([put("a", "2")])
    assert store.groups == [[put("a", "2"), put("b", None), Change(Kind.LANE, "a", b"other kind")]]


@pytest.mark.parametrize("changes", [[], [put("c")]])
async def test_a_commit_covers_the_notes_before_it(desk_on, changes) -> None:
    desk = desk_on(store := GatedStore())
    desk.journal.note(put("a"))
    desk.clock.advance(NOTE_S)
    await until(lambda: store.groups)
    desk.journal.note(put("b"))
    waiting = asyncio.create_task(desk.journal.commit(changes))
    store.let()
    await until(lambda: len(store.groups) == 2)
    assert not waiting.done()
    assert desk.names() == ["a"]
    store.let()
    await waiting
    assert desk.names() == ["a", "b", *(change.key for change in changes)]


async def test_a_commit_of_nothing_waits_for_nothing_where_all_is_written(desk_on) -> None:
    desk = desk_on(store := GatedStore())
    await desk.journal.commit()
    assert store.groups == []


async def test_a_commit_of_nothing_waits_for_the_write_that_is_under_way(desk_on) -> None:
    desk = desk_on(store := GatedStore())
    desk.journal.note(put("a"))
    desk.clock.advance(NOTE_S)
    await until(lambda: store.groups)
    waiting = asyncio.create_task(desk.journal.commit())
    await asyncio.sleep(0)
    assert not waiting.done()
    store.let()
    await waiting
    assert len(store.groups) == 1


async def test_who_is_cancelled_takes_nobody_along(desk_on) -> None:
    """Its changes are written all the same: they are in the group."""
    desk = desk_on(store := GatedStore())
    desk.journal.note(put("first"))
    desk.clock.advance(NOTE_S)
    await until(lambda: store.groups)
    leaves, stays = (asyncio.create_task(desk.journal.commit([put(name)])) for name in "ab")
    await asyncio.sleep(0)
    leaves.cancel()
    store.let(2)
    await stays
    assert leaves.cancelled()
    assert desk.names() == ["a", "b", "first"]


async def test_closing_writes_what_is_there_and_nothing_that_comes_later(desk_on) -> None:
    """What ends after this has been ended by our own end: its records are the next run's."""
    desk = desk_on(store := GatedStore())
    desk.journal.note(put("a"))
    desk.clock.advance(NOTE_S)
    await until(lambda: store.groups)
    before = asyncio.create_task(desk.journal.commit([put("b")]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(desk.journal.close())
    await asyncio.sleep(0)
    desk.journal.note(put("b", None))
    with pytest.raises(JournalUnavailable, match="shutting down"):  # or it would be sent untold
        await desk.journal.commit([put("c")])
    store.let(2)
    await closing
    await desk.journal.close()
    await before
    assert desk.names() == ["a", "b"]


async def test_closing_lets_go_of_the_store(desk_on, tmp_path) -> None:
    desk = desk_on(SqliteStore(tmp_path / "j"))
    await desk.journal.commit([put("a")])
    await desk.journal.close()
    with contextlib.closing(SqliteStore(tmp_path / "j")) as store:
        assert list(store.load()) == [put("a")]


async def test_warn_goes_on_and_says_so_once(desk_on) -> None:
    desk = desk_on()
    desk.store.refusing = FULL
    await desk.journal.commit([put("a")])
    await desk.journal.commit([put("b")])
    assert desk.journal.failing == "no room"
    assert [event.reason for event in desk.heard(JournalFailed)] == ["no room"]
    assert desk.names() == []


async def test_refuse_lets_nothing_go_on(desk_on) -> None:
    desk = desk_on(on_failure=OnFailure.REFUSE)
    desk.store.refusing = FULL
    for changes in ([put("a")], [put("b")], []):
        with pytest.raises(JournalUnavailable, match="no room") as caught:
            await desk.journal.commit(changes)
        assert caught.value.retryable
        assert caught.value.retry_after_s == TRY_AGAIN_S
    assert len(desk.heard(JournalFailed)) == 1


@pytest.mark.parametrize("on_failure", OnFailure)
async def test_all_that_was_missing_is_written_later_by_itself(desk_on, on_failure) -> None:
    desk = desk_on(on_failure=on_failure)
    await desk.journal.commit([put("old")])
    desk.store.refusing = FULL
    await told(desk, put("a", "1"), put("gone", "1"), put("old", None))
    await told(desk, put("a", "2"), put("gone", None), put("b"))
    desk.clock.advance(TRY_AGAIN_S)  # in vain
    await settled(desk)
    assert desk.heard(JournalMended) == []
    assert desk.names() == ["old"]
    desk.store.refusing = None
    desk.clock.advance(TRY_AGAIN_S - 0.1)
    await settled(desk)
    assert desk.names() == ["old"]
    desk.clock.advance(0.1)
    await settled(desk)
    assert desk.store.records == {(Kind.FACT, "a"): b"2", (Kind.FACT, "b"): b"x"}
    assert (desk.journal.failing, desk.journal.waiting_bytes) == (None, 0)
    assert len(desk.heard(JournalMended)) == len(desk.heard(JournalFailed)) == 1
    desk.clock.advance(10 * TRY_AGAIN_S)
    assert desk.clock.pending == 0


async def test_refuse_tries_again_with_each_commit(desk_on) -> None:
    """Room is used at once; the call that was refused has left what it had to say."""
    desk = desk_on(on_failure=OnFailure.REFUSE)
    desk.store.refusing = FULL
    with pytest.raises(JournalUnavailable):
        await desk.journal.commit([put("a")])
    desk.store.refusing = None
    await desk.journal.commit([put("b")])
    assert desk.names() == ["a", "b"]
    assert desk.journal.failing is None


async def test_warn_tries_again_now_and_then_only(desk_on) -> None:
    """All that is missing goes with each attempt, so they must not come as often as calls do."""
    desk = desk_on(store := GatedStore())
    store.refusing = FULL
    store.let(2)
    for n in range(50):
        await desk.journal.commit([put(f"{n}")])
    assert [len(group) for group in store.groups] == [1]
    desk.clock.advance(TRY_AGAIN_S)
    await settled(desk)
    assert [len(group) for group in store.groups] == [1, 50]
    store.let()  # the close tries too


async def test_a_store_that_comes_and_goes_is_asked_by_one_timer(desk_on) -> None:
    desk = desk_on(on_failure=OnFailure.REFUSE)
    for _ in range(5):
        desk.store.refusing = FULL
        with pytest.raises(JournalUnavailable):
            await desk.journal.commit([put("a")])
        assert desk.clock.pending == 1
        desk.store.refusing = None
        await desk.journal.commit()
        desk.clock.advance(1)
    assert len(desk.heard(JournalMended)) == 5


async def test_closing_tries_once_more_with_what_is_missing(desk_on) -> None:
    desk = desk_on()
    desk.store.refusing = FULL
    await desk.journal.commit([put("a")])
    desk.store.refusing = None
    await desk.journal.close()
    assert desk.names() == ["a"]


async def test_closing_ends_though_nothing_can_be_written(desk_on) -> None:
    desk = desk_on(on_failure=OnFailure.REFUSE)
    desk.store.refusing = FULL
    desk.journal.note(put("a"))
    await desk.journal.close()
    desk.clock.advance(10 * TRY_AGAIN_S)
    assert (desk.names(), len(desk.tasks)) == ([], 0)


@pytest.mark.parametrize("on_failure", OnFailure)
async def test_too_much_that_waits_is_given_up_until_the_next_start(
    desk_on, monkeypatch, on_failure
) -> None:
    monkeypatch.setattr(journal_module, "MAX_WAITING_BYTES", 5000)
    desk = desk_on(on_failure=on_failure)
    desk.store.refusing = FULL
    for n in range(4):
        await told(desk, put(f"{n}", "x" * 900))
    assert 0 < desk.journal.waiting_bytes <= 5000
    assert len(desk.heard(JournalFailed)) == 1
    await told(desk, put("more", "x" * 900))
    assert desk.journal.waiting_bytes == 0
    assert "until the next start" in desk.heard(JournalFailed)[-1].reason
    desk.store.refusing = None
    desk.clock.advance(10 * TRY_AGAIN_S)
    await told(desk, put("later"))
    goes_on = contextlib.nullcontext()
    with goes_on if on_failure is OnFailure.WARN else pytest.raises(JournalUnavailable):
        await desk.journal.commit([put("later still")])
    await desk.journal.close()
    assert desk.names() == []
    assert len(desk.heard(JournalFailed)) == 2


async def test_what_is_to_be_deleted_takes_room_too(desk_on, monkeypatch) -> None:
    """A day of calls that came and went is no less than their names."""
    monkeypatch.setattr(journal_module, "MAX_WAITING_BYTES", 100_000)
    desk = desk_on()
    desk.store.refusing = FULL
    for n in range(1000):
        await told(desk, put(f"{n}", None))
    assert "until the next start" in str(desk.journal.failing)


async def test_a_name_that_comes_again_takes_no_more_room(desk_on) -> None:
    desk = desk_on()
    desk.store.refusing = FULL
    sizes = set()
    for n in range(100):
        await told(desk, put("a", f"{n:50d}"), put("b", "y" * n))
        await told(desk, put("b", None))
        sizes.add(desk.journal.waiting_bytes)
    assert len(sizes) == 1


async def test_a_bug_in_the_store_leaves_nobody_waiting(desk_on) -> None:
    desk = desk_on(on_failure=OnFailure.REFUSE)
    desk.store.refusing = ZeroDivisionError("oops")
    with pytest.raises(JournalUnavailable, match="oops"):
        await desk.journal.commit([put("a")])
    (note,) = desk.heard(Note)
    assert isinstance(note.error, ZeroDivisionError)
    desk.store.refusing = None
    await desk.journal.commit([put("b")])
    assert desk.names() == ["a", "b"]


async def test_what_an_earlier_run_has_left_is_given_once_to_its_owner(desk_on) -> None:
    lanes = [LaneRecord("me", "m", 3), LaneRecord("you", "m", 4)]
    store = MemoryStore()
    store.write([written(lane) for lane in lanes])
    desk = desk_on(store)
    assert desk.journal.take("me").lanes == {"m": lanes[0]}
    assert desk.journal.take("me") == desk.journal.take("nobody") == Owned()
    assert desk.journal.take("you").lanes == {"m": lanes[1]}


async def test_records_that_make_no_sense_are_damage_and_the_store_says_where() -> None:
    store = MemoryStore({(Kind.LANE, "me/m"): b"\xc1"})
    with pytest.raises(StoreDamaged, match="record lane me/m: "):
        Desk(store)


async def test_records_of_a_file_that_make_no_sense_are_told_with_path_and_copy(tmp_path) -> None:
    path = tmp_path / "j"
    with contextlib.closing(SqliteStore(path)) as store:
        store.write([Change(Kind.CALL, "me/c", b"\xc1")])
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match=r"record call me/c: .* move it away") as caught:
        Desk(SqliteStore(path))
    (copy,) = tmp_path.glob("j.damaged-*")
    assert f"the journal {path} is damaged" in str(caught.value)
    assert str(copy) in str(caught.value)
    assert path.read_bytes() == copy.read_bytes() == before


async def test_the_salt_is_written_with_the_first_records_that_need_it(desk_on) -> None:
    """A journal that cannot be written must not keep a proxy from starting that may go on."""
    desk = desk_on()
    assert desk.journal.salt is None
    desk.store.refusing = FULL
    desk.journal.keep_salt(b"s")
    assert desk.store.records == {}
    desk.store.refusing = None
    await desk.journal.commit([put("a")])
    again = desk_on(MemoryStore(desk.store.records))
    assert again.journal.salt == b"s"
    again.journal.keep_salt(b"s")
    await again.journal.close()
    assert again.store.writes == 0


async def test_no_journal_keeps_nothing_and_lets_all_go_on() -> None:
    journal = Book().journal
    assert isinstance(journal, NoJournal)
    assert not journal.on
    journal.note(put("a"))
    await journal.commit([put("a")])
    assert journal.take("me") == Owned()
    await journal.close()


class JournalLaws(RuleBasedStateMachine):
    """Notes, commits, failures, ends: what a new run finds.

    It is what a first part of all that was told comes to, nothing in between missing, and at least
    up to the last commit that came back. Whatever writes were under way, and whatever failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.begin()

    def begin(self) -> None:
        """A new run on what the store holds."""
        self.store = MemoryStore(self.store.records)
        self.desk = Desk(self.store, OnFailure.REFUSE)
        self.states: list[dict[tuple[Kind, str], bytes]] = [dict(self.store.records)]
        self.promised = 0
        self.waiting: list[tuple[int, asyncio.Task[None]]] = []

    def tell(self, changes: list[Change]) -> None:
        state = dict(self.states[-1])
        for kind, key, value in changes:
            if value is None:
                state.pop((kind, key), None)
            else:
                state[kind, key] = value
        self.states.append(state)

    def turn(self, turns: int) -> None:
        """Let the loop and the writing thread come as far as they do."""

        async def take() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(take())
        for number, task in self.waiting:
            if task.done() and not task.cancelled() and task.exception() is None:
                self.promised = max(self.promised, number)
        self.waiting = [(number, task) for number, task in self.waiting if not task.done()]

    changes = st.lists(
        st.builds(put, st.sampled_from("abcd"), st.none() | st.text("xyz", max_size=3)),
        min_size=1,
        max_size=3,
    )

    @rule(changes=changes, turns=st.integers(0, 3))
    def note(self, changes: list[Change], turns: int) -> None:
        async def tell() -> None:
            self.desk.journal.note(*changes)

        self.loop.run_until_complete(tell())
        self.tell(changes)
        self.turn(turns)

    @rule(changes=changes | st.just([]), turns=st.integers(0, 3))
    def commit(self, changes: list[Change], turns: int) -> None:
        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(self.desk.journal.commit(changes))
            await asyncio.sleep(0)  # it has been told from here on
            return task

        task = self.loop.run_until_complete(start())
        if changes:
            self.tell(changes)
        self.waiting.append((len(self.states) - 1, task))
        self.turn(turns)

    @rule(full=st.booleans())
    def the_disk(self, full: bool) -> None:
        self.store.refusing = FULL if full else None

    @rule(seconds=st.sampled_from([NOTE_S, TRY_AGAIN_S]))
    def time_passes(self, seconds: float) -> None:
        async def pass_by() -> None:
            self.desk.clock.advance(seconds)

        self.loop.run_until_complete(pass_by())
        self.turn(2)

    @rule()
    def all_comes_to_rest(self) -> None:
        self.loop.run_until_complete(told(self.desk))
        self.turn(2)
        assert self.waiting == []
        if self.desk.journal.failing is None:
            assert self.store.records == self.states[-1]

    @rule()
    def kill(self) -> None:
        """The end comes between two writes or in one: the store has it all or none."""
        left = MemoryStore(self.store.records)
        self.leave()
        assert left.records in self.states[self.promised :]
        self.store = left
        self.begin()

    @rule()
    def close(self) -> None:
        """An orderly end, with a disk that has room, leaves nothing out."""
        self.loop.run_until_complete(self.desk.journal.close())
        self.turn(1)
        if self.store.refusing is None:
            assert self.store.records == self.states[-1]
        assert self.store.records in self.states[self.promised :]
        self.begin()

    @invariant()
    def what_a_new_run_would_find_is_no_less_than_was_promised(self) -> None:
        assert dict(self.store.records) in self.states[self.promised :]

    def leave(self) -> None:
        """End the run as it stands, but for its thread."""
        for _, task in self.waiting:
            task.cancel()
        self.loop.run_until_complete(self.desk.tasks.cancel_all())
        self.turn(1)
        self.desk.journal._thread.shutdown()

    def teardown(self) -> None:
        self.leave()
        assert self.desk.crashes == []
        self.loop.close()


JournalLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJournalLaws = JournalLaws.TestCase

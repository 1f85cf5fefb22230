"""Records in a file: all or none, its owner's alone, and never thrown away by itself."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.journals import A, altered, opened, records
from tinkex_proxy.runtime import sqlite_store
from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import (
    Change,
    Kind,
    StoreDamaged,
    StoreError,
)

# Room for some records of ROUND bytes, not for a hundred.
SMALL, ROUND = 1 << 20, 50_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


def filled(store: SqliteStore) -> int:
    """Write until there is no room; gives how many records went in."""
    for number in range(100):
        try:
            store.write([Change(Kind.CALL, str(number), bytes(ROUND))])
        except StoreError:
            return number
    raise AssertionError("there is no end to this disk")


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_written_is_there_when_it_is_opened_again(path: Path, durable: bool) -> None:
    with opened(path, durable=durable) as store:
        store.write([A, Change(Kind.CALL, "ä/b", bytes(range(256))), Change(Kind.CALL, "c", b"")])
        store.write([Change(Kind.FACT, "a", b"2"), Change(Kind.CALL, "c", None)])
        assert len(list(store.load())) == 2
    assert records(path) == [(Kind.FACT, "a", b"2"), (Kind.CALL, "ä/b", bytes(range(256)))]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were flushed to the disk, by their names."""
    names: list[str] = []
    sync = sqlite_store._sync

    def look(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(sqlite_store, "_sync", look)
    return names


def test_durable_means_that_the_log_is_flushed(path: Path, synced: list[str]) -> None:
    with opened(path) as store:
        assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert not store.unflushed
        for _ in range(2):
            store.write([A])
            assert store.unflushed
            store.flush()
            assert not store.unflushed
        assert synced == [f"{path.name}-wal"] * 2


def test_otherwise_no_write_waits_for_the_disk(path: Path, synced: list[str]) -> None:
    with opened(path, durable=False) as store:
        store.write([A])
        assert not store.unflushed
        store.flush()
    assert synced == []


def test_a_long_log_is_copied_into_the_file(path: Path) -> None:
    """Not by a write or a flush, which somebody waits for."""
    with opened(path) as store:
        empty = path.stat().st_size
        for _ in range(9):
            store.write([Change(Kind.BATCH, "b", bytes(sqlite_store.CHECKPOINT_BYTES // 8))])
            store.flush()
        assert path.stat().st_size == empty
        assert store.overgrown
        store.shrink()
        assert path.stat().st_size > sqlite_store.CHECKPOINT_BYTES // 8
        assert not store.overgrown


def test_the_last_word_on_each_record_is_put_into_the_table(path: Path) -> None:
    with opened(path) as store:
        for value in (b"1", b"2"):
            store.write([Change(Kind.CALL, name, value) for name in "abc"])
        store.shrink()
        store.write([Change(Kind.CALL, "b", None), Change(Kind.CALL, "d", b"4")])
        store.write([Change(Kind.CALL, "a", None), Change(Kind.CALL, "a", b"3")])
        left = [(Kind.CALL, "a", b"3"), (Kind.CALL, "c", b"2"), (Kind.CALL, "d", b"4")]
        assert sorted(store.load()) == left
        store.shrink()
        count = "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM log)"
        assert store._database.execute(count).fetchone() == (3, 0)
        assert sorted(store.load()) == left
    assert records(path) == left


def test_the_log_does_not_grow_from_run_to_run(path: Path) -> None:
    """Each run writes less than what is put into the table at once, and leaves nothing alive."""
    size = sqlite_store.CHECKPOINT_BYTES // 2
    for _ in range(8):
        with opened(path) as store:
            store.write([Change(Kind.BATCH, "b", bytes(size))])
            store.write([Change(Kind.BATCH, "b", None)])
            if store.overgrown:
                store.shrink()
    assert path.stat().st_size < 4 * sqlite_store.CHECKPOINT_BYTES


def test_a_log_for_which_the_table_has_no_room_is_copied_all_the_same(path: Path) -> None:
    """SQLite's own log would grow for ever."""
    with opened(path, max_bytes=SMALL) as store:
        filled(store)
        with pytest.raises(StoreError, match="full"):
            store.shrink()
        assert path.stat().st_size > SMALL // 2


def test_whatever_breaks_a_write_leaves_nothing_open(path: Path) -> None:
    """Else the next one would be lost in it."""
    many = [Change(Kind.CALL, f"{number}", b"x") for number in range(150)]
    with opened(path) as store:
        with pytest.raises(UnicodeEncodeError):
            store.write([*many, Change(Kind.CALL, "\ud800", b"x")])
        assert not store._database.in_transaction
        store.write([A])
    assert records(path) == [A]


def test_many_changes_are_all_or_none_too(path: Path) -> None:
    """More than one statement takes."""
    many = [Change(Kind.CALL, str(number), b"x") for number in range(250)]
    with opened(path) as store:
        store.write(many)
        with pytest.raises(StoreError, match="cannot write"):
            store.write([Change(Kind.CALL, "new", b"x"), *many, Change(Kind.CALL, None, b"y")])
    assert records(path) == sorted(many)


def test_where_there_is_no_room_at_all_records_can_be_deleted(path: Path) -> None:
    """Whether they are in the table or in the log: else it would be full for ever."""
    with opened(path, max_bytes=SMALL) as store:
        store.write([Change(Kind.CALL, "table", bytes(ROUND))])
        store.shrink()
        filled(store)
        number = 0
        with contextlib.suppress(StoreError):
            for number in range(SMALL):
                store.write([Change(Kind.LANE, str(number), b"1")])
        store.write([Change(Kind.LANE, str(number - 1), None), Change(Kind.CALL, "table", None)])
        store.write([Change(Kind.CALL, "0", None), Change(Kind.CALL, "1", b"2")])
        found = {(kind, key): value for kind, key, value in store.load()}
    assert not {(Kind.CALL, "table"), (Kind.CALL, "0"), (Kind.LANE, str(number - 1))} & {*found}
    assert found[Kind.CALL, "1"] == b"2"


def test_a_log_that_cannot_be_copied_stays_until_as_much_has_come_again(path: Path) -> None:
    with opened(path) as store:
        store.write([Change(Kind.BATCH, "b", bytes(sqlite_store.CHECKPOINT_BYTES))])
        store._database.execute("BEGIN")  # no copying within a transaction
        store._database.execute("DELETE FROM records")
        with pytest.raises(StoreError, match="cannot write the journal"):
            store.shrink()
        assert not store.overgrown
        store._database.execute("ROLLBACK")
        store.write([A])
    assert [kind for kind, _, _ in records(path)] == [A.kind, Kind.BATCH]


def test_a_log_that_cannot_be_flushed_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sqlite_store, "_sync", broken)
    with opened(path) as store:
        store.write([A])
        with pytest.raises(StoreError, match=r"cannot write the journal .*Input/output"):
            store.flush()
        assert store.unflushed


def test_letting_go_twice_changes_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="cannot write"):
        store.write([A])


def test_a_write_that_fails_has_written_nothing(path: Path) -> None:
    """And what it would have deleted is still there."""
    with opened(path, max_bytes=SMALL) as store:
        count = filled(store)
        assert count > 5
        more = [Change(Kind.FACT, name, bytes(ROUND)) for name in "ab"]
        with pytest.raises(StoreError, match="database or disk is full"):
            store.write([Change(Kind.CALL, "0", None), *more])
    assert [key for _, key, _ in records(path)] == sorted(str(n) for n in range(count))


def test_a_full_disk_that_gets_room_is_written_again(path: Path) -> None:
    with opened(path, max_bytes=SMALL) as store:
        count = filled(store)
        store.write([Change(Kind.CALL, str(number), None) for number in range(count)])
        assert filled(store) >= count - 1
    assert path.stat().st_size <= SMALL


def test_deleted_records_leave_room_for_others(path: Path) -> None:
    """A thousand requests come and go, and the file is no larger than a few of them."""
    with opened(path, durable=False, max_bytes=SMALL) as store:
        for number in range(1000):
            store.write([Change(Kind.BATCH, str(number), bytes(ROUND // 5))])
            store.write([Change(Kind.BATCH, str(number), None)])
        assert list(store.load()) == []


@pytest.mark.parametrize("row", ["99, 'odd', x'00'", "6, 'odd', 'a text'"])
def test_a_record_that_is_none_of_ours_is_damage_and_is_named(path: Path, row: str) -> None:
    with opened(path):
        pass
    altered(path, f"INSERT INTO records VALUES ({row})")  # noqa: S608
    before = path.read_bytes()
    store = SqliteStore(path)
    with pytest.raises(StoreDamaged, match="record odd: ") as caught:
        list(store.load())
    assert ".damaged-" in str(caught.value)
    assert path.read_bytes() == before
    with opened(path):
        pass  # the error has let go of it


def test_records_that_cannot_be_read_at_all_are_damage(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    with pytest.raises(StoreDamaged, match="closed database"):
        list(store.load())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot make the journal .*: Not a directory"):
        SqliteStore(tmp_path / "file" / "state" / "journal")


WRITER = """
import sys
from pathlib import Path
from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import Change, Kind

store = SqliteStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    number += 1
    # Both or none, and large enough that the log is copied into the file now and then.
    store.write([Change(Kind.LANE, "last", b"%d" % number),
                 Change(Kind.CALL, str(number % 50), b"%d " % number + bytes(20_000))])
    print(number, flush=True)
"""


def test_kill_9_in_the_middle_of_writing_loses_nothing_that_was_written(path: Path) -> None:
    """Over and over on one file: it opens, no lock is left, every write is there whole."""
    last = 0
    for kill in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(last)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        for _ in range(7 * kill + 1):
            writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0].split()
        told = int(rest[-1]) if rest else last
        found = {(kind, key): value for kind, key, value in records(path)}
        reached = int(found[Kind.LANE, "last"])
        assert reached >= max(told, last + 1)
        for number in range(max(1, reached - 49), reached + 1):
            assert found[Kind.CALL, str(number % 50)].split()[0] == b"%d" % number
        last = reached

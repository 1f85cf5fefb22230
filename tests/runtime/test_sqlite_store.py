"""Records in a file: all or none, its owner's alone, and never thrown away by itself."""

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tinkex_proxy.runtime import sqlite_store
from tinkex_proxy.runtime.sqlite_store import SCHEMA, SqliteStore, journal_path
from tinkex_proxy.runtime.store import (
    Change,
    Kind,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreTooNew,
)

A = Change(Kind.FACT, "a", b"1")
# Room for some records of ROUND bytes, not for a hundred.
SMALL, ROUND = 1 << 20, 50_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


@contextlib.contextmanager
def opened(path: Path, **options: object):
    with contextlib.closing(SqliteStore(path, **options)) as store:
        yield store


def records(path: Path) -> list[tuple[Kind, str, bytes]]:
    with opened(path) as store:
        return sorted(store.load())


def altered(path: Path, *statements: str) -> None:
    """Change a journal behind our back."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def filled(store: SqliteStore) -> int:
    """Write until there is no room; gives how many records went in."""
    for number in range(100):
        try:
            store.write([Change(Kind.CALL, str(number), bytes(ROUND))])
        except StoreError:
            return number
    raise AssertionError("there is no end to this disk")


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


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


def test_it_is_its_owners_alone(path: Path) -> None:
    with opened(path) as store:
        store.write([A])
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert len(files(path)) == 2, "a file and its log"
    assert modes == {0o600}


def test_one_process_at_a_time(path: Path) -> None:
    with opened(path) as store:
        with pytest.raises(StoreBusy, match="another process uses the journal") as caught:
            SqliteStore(path)
        assert "TINKEX_PROXY_STATE_DIR" in str(caught.value)
        store.write([A])
    assert records(path) == [A]


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


@pytest.mark.parametrize("content", [b"not a database", b"x" * 5000])
def test_garbage_is_left_as_it_is_with_a_copy(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for _ in range(2):  # the second finds the copy of the first
        with pytest.raises(StoreDamaged, match="move it away to begin anew") as caught:
            SqliteStore(path)
        (copy,) = (name for name in files(path) if ".damaged-" in name)
        assert str(path) in str(caught.value)
        assert str(path.with_name(copy)) in str(caught.value)
        assert files(path) == {path.name: content, copy: content}


def test_a_copy_that_cannot_be_made_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sqlite_store.shutil, "copy2", full)
    with pytest.raises(StoreDamaged, match=r"No copy could be made \(No space left on device\)"):
        SqliteStore(path)


def test_a_damaged_page_is_seen_when_it_is_opened(path: Path) -> None:
    """Not when the record on it is wanted, long after."""
    with opened(path) as store:
        store.write([Change(Kind.CALL, str(number), bytes(500)) for number in range(100)])
    content = bytearray(path.read_bytes())
    content[8192:8292] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"is damaged \(Page 3"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_another_programs_file_is_refused_and_stays_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    altered(path, "CREATE TABLE theirs (x)")
    before = files(path)
    with pytest.raises(StoreDamaged, match="is not a journal of this program: name another file"):
        SqliteStore(path)
    assert files(path) == before


def test_one_that_bears_another_programs_name_is_refused_though_it_is_empty(path: Path) -> None:
    path.parent.mkdir()
    altered(path, "PRAGMA application_id = 1", "CREATE TABLE t (x)", "DROP TABLE t")
    with pytest.raises(StoreDamaged, match="not a journal of this program"):
        SqliteStore(path)


def test_one_of_a_newer_version_is_refused_and_stays_as_it_is(path: Path) -> None:
    with opened(path) as store:
        store.write([A])
    altered(path, f"PRAGMA user_version = {SCHEMA + 1}")
    before = files(path)
    with pytest.raises(StoreTooNew, match=rf"newer version .*\(schema {SCHEMA + 1};") as caught:
        SqliteStore(path)
    assert str(path) in str(caught.value)
    assert files(path) == before


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


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """Here, because there is a folder of that name."""
    with pytest.raises(StoreError, match=r"cannot open the journal .*: unable to open") as caught:
        SqliteStore(tmp_path)
    assert type(caught.value) is StoreError


def test_each_upstream_has_a_journal_of_its_own() -> None:
    """Numbers and sessions of one mean nothing to another; the name tells nothing of a URL."""
    one, other = (journal_path(Path("/s"), f"http://{host}", "localhost:1") for host in "ab")
    assert one != other
    assert one == journal_path(Path("/s"), "http://a", "localhost:1")
    assert one != journal_path(Path("/s"), "http://a", "localhost:2")
    assert "http" not in one.name
    assert (one.parent, one.suffix) == (Path("/s"), ".sqlite3")


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

"""The file of a journal: for one process and one owner, and never thrown away by itself."""

import stat
from pathlib import Path

import pytest

from tests.runtime.journals import A, altered, files, opened, records
from tinkex_proxy.runtime import sqlite_file
from tinkex_proxy.runtime.sqlite_file import SCHEMA, journal_path
from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import (
    Change,
    Kind,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreTooNew,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


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


def test_a_journal_of_the_first_version_goes_on(path: Path) -> None:
    """It has its records in their table, and no log."""
    with opened(path) as store:
        store.write([A, other := Change(Kind.CALL, "b", b"2")])
        store.shrink()
    altered(path, "DROP TABLE log", "PRAGMA user_version = 1")
    with opened(path) as store:
        assert sorted(store.load()) == [A, other]
        store.write([Change(*other[:2], None)])
    assert records(path) == [A]


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

    monkeypatch.setattr(sqlite_file.shutil, "copy2", full)
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

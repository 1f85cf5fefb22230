"""A proxy opens its journal, says why it cannot, or goes on without: the real process, mostly."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from tests.processes import ROOT, a_call, a_model, client_of, processes
from tinkex_proxy.config import Settings
from tinkex_proxy.runtime.sqlite_file import journal_path
from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import Change, Kind, StoreBusy, StoreDamaged, StoreError
from tinkex_proxy.server import open_store

# Nobody is there; a proxy starts all the same.
NOWHERE = "http://127.0.0.1:1"
# Where all these proxies listen, as far as it is told them.


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


PORT = free_port()
LISTENER = f"127.0.0.1:{PORT}"


@pytest.fixture
def started() -> Iterator[object]:
    with processes() as start:
        yield start


def journal_settings(folder: Path, **more: object) -> Settings:
    named = {f"journal.{name}": value for name, value in more.items()}
    place = {"upstream.base_url": NOWHERE, "server.port": PORT, "journal.state_dir": folder}
    return Settings.load({**place, **named})


def refused(folder: Path, *options: str) -> str:
    """What a proxy says that will not start on this folder."""
    ran = subprocess.run(
        [sys.executable, "-m", "tinkex_proxy", "serve", "--port", str(PORT), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "TINKEX_PROXY_STATE_DIR": str(folder)},
        cwd=ROOT,
    )
    assert (ran.returncode, ran.stdout) == (78, ""), ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with a record, closed."""
    path = journal_path(tmp_path / "state", NOWHERE, LISTENER)
    with contextlib.closing(SqliteStore(path)) as store:
        store.write([Change(Kind.FACT, "a", b"1")])
    return path


def altered(path: Path, statement: str) -> bytes:
    """Change a journal behind our back; gives what it is then."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    return path.read_bytes()


def copies(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.damaged-*"))


def test_without_a_journal_there_is_no_store_and_no_file(tmp_path: Path) -> None:
    assert open_store(journal_settings(tmp_path / "state", enabled=False)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sync", "flushes"), [("full", True), ("process", False)])
def test_the_store_is_that_of_the_upstream_with_what_is_set(
    journal: Path, sync: str, flushes: bool
) -> None:
    store = open_store(journal_settings(journal.parent, sync=sync, max_bytes=1 << 20))
    assert isinstance(store, SqliteStore)
    with contextlib.closing(store):
        assert list(store.load()) == [Change(Kind.FACT, "a", b"1")]
        assert store._database.execute("PRAGMA max_page_count").fetchone() == (256,)
        store.write([Change(Kind.FACT, "b", b"2")])
        assert store.unflushed is flushes


def test_without_a_folder_it_is_in_the_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TINKEX_PROXY_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # where the platform has no such variable
    store = open_store(Settings.load({"upstream.base_url": NOWHERE}))
    assert isinstance(store, SqliteStore)
    store.close()
    assert store.path.is_relative_to(tmp_path)
    assert "tinkex-proxy" in str(store.path.parent)


def test_a_folder_that_cannot_be_made_warns_or_refuses_as_set(tmp_path: Path) -> None:
    folder = tmp_path / "file" / "state"
    folder.parent.touch()
    structlog.reset_defaults()
    with capture_logs() as lines:
        assert open_store(journal_settings(folder, on_failure="warn")) is None
    (line,) = lines
    assert line["log_level"] == "error"
    assert "there is no journal" in line["event"]
    assert str(folder) in line["reason"]
    with pytest.raises(StoreError, match="cannot make the journal"):
        open_store(journal_settings(folder, on_failure="refuse"))


@pytest.mark.parametrize("on_failure", ["warn", "refuse"])
def test_a_journal_in_use_or_damaged_stops_whatever_is_set(journal: Path, on_failure: str) -> None:
    """To go on without would be to forget what it holds."""
    settings = journal_settings(journal.parent, on_failure=on_failure)
    with contextlib.closing(SqliteStore(journal)), pytest.raises(StoreBusy):
        open_store(settings)
    journal.write_bytes(b"garbage")
    with pytest.raises(StoreDamaged):
        open_store(settings)


def test_a_journal_in_use_stops_a_proxy_and_says_what_to_do(journal: Path) -> None:
    """Each would give out the other's numbers."""
    with contextlib.closing(SqliteStore(journal)):
        said = refused(journal.parent, "--upstream.base-url", NOWHERE)
    assert "another process uses the journal" in said
    assert "TINKEX_PROXY_STATE_DIR" in said


def test_proxies_on_free_ports_have_journals_of_their_own_and_kill_9_leaves_no_lock(
    started, tmp_path: Path
) -> None:
    """Who is started again goes on from the first that nobody uses."""
    upstream = started("sandbox", "--port", "0")
    options = ("--upstream.base-url", upstream.url)
    state = {"TINKEX_PROXY_STATE_DIR": str(tmp_path)}
    first, second = (started("serve", "--port", "0", *options, **state) for _ in range(2))
    with client_of(first.url) as client:
        model_id = a_model(client)
    with client_of(second.url) as client:
        assert client.get("/v1/models").json() == {"models": []}
    first.popen.kill()
    first.ended()
    with client_of(started("serve", "--port", "0", *options, **state).url) as client:
        assert client.post("/v1/forward_backward", content=a_call(model_id)).is_success


def test_a_damaged_journal_stops_the_start_and_is_left_with_a_copy(journal: Path) -> None:
    journal.write_bytes(b"garbage" * 1000)
    said = refused(journal.parent, "--upstream.base-url", NOWHERE)
    (copy,) = copies(journal)
    assert f"the journal {journal} is damaged" in said
    assert "move it away to begin anew" in said
    assert str(copy) in said
    assert journal.read_bytes() == copy.read_bytes() == b"garbage" * 1000


@pytest.mark.parametrize(
    ("row", "named"),
    [("6, 'me/c', x'c1'", "record call me/c"), ("99, 'me/c', x'00'", "record me/c")],
)
def test_a_record_that_cannot_be_read_stops_the_start_too(
    journal: Path, row: str, named: str
) -> None:
    content = altered(journal, f"INSERT INTO records VALUES ({row})")  # noqa: S608
    said = refused(journal.parent, "--upstream.base-url", NOWHERE)
    (copy,) = copies(journal)
    assert f"the journal {journal} is damaged ({named}: " in said
    assert "move it away to begin anew" in said
    assert str(copy) in said
    assert journal.read_bytes() == copy.read_bytes() == content


def test_a_journal_of_a_newer_version_stops_the_start_and_is_left(journal: Path) -> None:
    content = altered(journal, "PRAGMA user_version = 1000")
    said = refused(journal.parent, "--upstream.base-url", NOWHERE)
    assert "written by a newer version of this program (schema 1000; this one knows" in said
    assert (journal.read_bytes(), copies(journal)) == (content, [])


def test_another_programs_file_is_not_taken_for_a_journal(journal: Path) -> None:
    journal.unlink()
    content = altered(journal, "CREATE TABLE theirs (x)")
    said = refused(journal.parent, "--upstream.base-url", NOWHERE)
    assert f"{journal} is not a journal of this program" in said
    assert journal.read_bytes() == content


def test_a_folder_that_cannot_be_made_stops_the_start_where_that_is_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(
        tmp_path / "file" / "state",
        *("--upstream.base-url", NOWHERE, "--journal.on-failure", "refuse"),
    )
    assert "cannot make the journal" in said


def test_a_full_disk_does_not_keep_a_proxy_from_starting_that_may_go_on(
    started, tmp_path: Path
) -> None:
    upstream = started("sandbox", "--port", "0")
    path = journal_path(tmp_path, upstream.url, LISTENER)
    with contextlib.closing(SqliteStore(path, durable=False, max_bytes=1 << 20)) as store:
        for size in (3000, 300, 3):  # to the last byte
            with contextlib.suppress(StoreError):
                for number in range(1000):
                    store.write([Change(Kind.FACT, f"{size} {number}", bytes(size))])
    options = ("--upstream.base-url", upstream.url, "--journal.max-bytes", str(1 << 20))
    proxy = started("serve", "--port", str(PORT), *options, TINKEX_PROXY_STATE_DIR=str(tmp_path))
    with client_of(proxy.url) as client:
        assert client.post("/v1/forward_backward", content=a_call(a_model(client))).is_success
    proxy.popen.terminate()
    assert proxy.ended() == 0
    assert "the journal cannot be written" in proxy.said
    assert "database or disk is full" in proxy.said

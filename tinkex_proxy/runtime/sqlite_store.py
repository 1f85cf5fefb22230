"""A store in one SQLite file.

SQLite's write-ahead log makes a write atomic and outlast the process from the moment it is there.
To outlast the machine's power the log has to be flushed to the disk, which is what SQLite does at
each commit with `synchronous = FULL`. Here it is a step of its own, for how long it takes is the
disk's affair: a write is done in a fraction of a millisecond, where the thread that it would be
handed to waits for Python's lock after each statement. So is copying a long log into the file,
which SQLite would do at the end of some write.

The file is locked for as long as it is open: two proxies on one journal would each give out the
other's sequence numbers. A process that is killed holds no lock.

The file holds training data and results of the callers, so nobody but its owner may read it. A
file that cannot be read, or that a newer version has written, is left as it is, with a copy of a
damaged one beside it: to begin anew is for a person to decide.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tinkex_proxy.runtime.store import (
    Change,
    Kind,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreTooNew,
)

__all__ = ["SCHEMA", "SqliteStore", "journal_path"]

# Of the table and of the records in it. Grows when an older version could not read them.
SCHEMA: Final = 1
# "tkxp"; so that no other program's file is taken for a journal.
APPLICATION_ID: Final = 0x746B7870
# Bytes in the log, about, before it is copied into the file: they hold the largest requests.
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
# What a change adds to the log beside its bytes: the page that it is on.
PAGE_BYTES: Final = 4096
LOG_LIMIT_BYTES: Final = 64 * 1024 * 1024

_KINDS: Final = frozenset(Kind)
_TABLE = (
    "CREATE TABLE records "
    "(kind INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))"
)
# Not REPLACE, which takes the row and its place in the index out first.
_PUT = (
    "INSERT INTO records (kind, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"
)
_DELETE = "DELETE FROM records WHERE kind = ? AND key = ?"


class SqliteStore:
    """Records in a file.

    Args:
        path: the file; it and its folder are made, for their owner alone.
        durable: whether what is written outlasts a power failure, not the process alone.
        max_bytes: most bytes of the file, or None; a write beyond them fails as on a full disk.

    Raises:
        StoreBusy: another process has it open.
        StoreDamaged: it is no journal, or damaged.
        StoreTooNew: a newer version has written it.
        StoreError: it cannot be opened or made.
    """

    def __init__(self, path: Path, *, durable: bool = True, max_bytes: int | None = None) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as error:
            raise StoreError(f"cannot make the journal {path}: {error.strerror}") from error
        self._durable = durable
        self._log: int | None = None
        self._log_bytes = 0
        self._unsynced = False
        self._database = self._open(max_bytes=max_bytes)

    def load(self) -> Iterator[tuple[Kind, str, bytes]]:
        """Give every record.

        Raises:
            StoreDamaged: they cannot be read.
        """
        try:
            for kind, key, value in self._database.execute("SELECT kind, key, value FROM records"):
                if kind not in _KINDS or not isinstance(value, bytes):
                    raise self.damaged(f"record {key}: there is no kind {kind} of such records")
                yield Kind(kind), key, value
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from error

    def write(self, changes: Sequence[Change]) -> None:
        """Write all changes, in order, or none; they outlast this process.

        Raises:
            StoreError: none was written.
        """
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            try:
                for kind, key, value in changes:
                    if value is None:
                        database.execute(_DELETE, (kind, key))
                    else:
                        database.execute(_PUT, (kind, key, value))
                database.execute("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(f"cannot write the journal {self.path}: {error}") from error
        self._unsynced = self._durable
        self._log_bytes += sum(PAGE_BYTES + len(value or b"") for _, _, value in changes)

    @property
    def unflushed(self) -> bool:
        """Whether the log is to be flushed to the disk."""
        return self._unsynced

    def flush(self) -> None:
        """Flush the log to the disk, if writes are to outlast a power failure.

        Raises:
            StoreError: the disk will not have it.
        """
        if not self._unsynced:
            return
        try:
            if self._log is None:
                self._log = os.open(f"{self.path}-wal", os.O_RDWR)
                _sync_folder(self.path.parent)  # that there is such a file is to last too
            _sync(self._log)
        except OSError as error:
            raise StoreError(f"cannot write the journal {self.path}: {error}") from error
        self._unsynced = False

    @property
    def overgrown(self) -> bool:
        """Whether the log is to be copied into the file."""
        return self._log_bytes > CHECKPOINT_BYTES

    def shrink(self) -> None:
        """Copy the log into the file, so that it begins anew.

        Raises:
            StoreError: it stays as it is for now.
        """
        self._log_bytes = 0  # tried again when as much has come once more
        try:
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise StoreError(f"cannot write the journal {self.path}: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        log, self._log = self._log, None
        if log is not None:
            os.close(log)
        self._database.close()

    def damaged(self, why: str) -> StoreDamaged:
        """The error for records that make no sense; lets go of the file, with a copy beside it."""
        error = _damaged(self.path, why)
        self.close()
        return error

    def _open(self, *, max_bytes: int | None) -> sqlite3.Connection:
        try:
            # Used by the event loop and by the journal's thread, never by both at once.
            database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise _unopened(self.path, error) from error
        try:
            database.execute("PRAGMA busy_timeout = 0")
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            begun = self._check(database)  # changes nothing: it may be another program's
            (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
            # Where the file system cannot have such a log, SQLite flushes by itself.
            self._durable = self._durable and mode == "wal"
            level = "NORMAL" if mode == "wal" else "FULL"
            database.execute(f"PRAGMA synchronous = {level}")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            database.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
            if max_bytes is not None:
                (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
                database.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
            database.execute("BEGIN IMMEDIATE")  # also where there is nothing to do: can we write?
            if not begun:
                database.execute(_TABLE)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {SCHEMA}")
            database.execute("COMMIT")
        except StoreError:
            database.close()
            raise
        except sqlite3.OperationalError as error:
            database.close()
            raise _unopened(self.path, error) from error
        except sqlite3.DatabaseError as error:
            damaged = _damaged(self.path, str(error))
            database.close()
            raise damaged from error
        return database

    def _check(self, database: sqlite3.Connection) -> bool:
        """See to it that this is a journal of ours, whole, of no newer version; or still empty.

        Returns:
            Whether it has been begun.
        """
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (application or tables):
            raise StoreDamaged(f"{self.path} is not a journal of this program: name another file")
        if schema > SCHEMA:
            raise StoreTooNew(
                f"the journal {self.path} was written by a newer version of this program (schema "
                f"{schema}; this one knows {SCHEMA}): run that version, or move the file away and "
                "begin anew, without the models and answers that it holds"
            )
        (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise _damaged(self.path, state.splitlines()[-1])
        return bool(application == APPLICATION_ID)


# Not the times of the file, where the platform can tell them apart.
_sync: Final = getattr(os, "fdatasync", os.fsync)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def journal_path(state_dir: Path, upstream: str, listener: str) -> Path:
    """The file of one proxy's journal: one upstream's numbers mean nothing to another.

    Two proxies before one upstream have different listeners, and so each a journal of its own.
    """
    digest = hashlib.blake2b(f"{upstream} {listener}".encode(), digest_size=6).hexdigest()
    return state_dir / f"journal-{digest}.sqlite3"


def _unopened(path: Path, error: sqlite3.OperationalError) -> StoreError:
    if error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy(
            f"another process uses the journal {path}: stop it, or give this proxy a folder of its "
            "own (TINKEX_PROXY_STATE_DIR, or journal.state_dir)"
        )
    return StoreError(f"cannot open the journal {path}: {error}")


def _damaged(path: Path, why: str) -> StoreDamaged:
    """The error that says where the copy is: of the file and its log, equal ones made once.

    To be made while the file is open: closing it may write the log into it.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:12]
        copy = path.with_name(f"{path.name}.damaged-{digest}")
        for ending in ("", "-wal"):
            one, other = Path(f"{path}{ending}"), Path(f"{copy}{ending}")
            if one.exists() and one.stat().st_size and not other.exists():
                shutil.copy2(one, other)
        copied = f" A copy is {copy}."
    except OSError as error:
        copied = f" No copy could be made ({error.strerror})."
    return StoreDamaged(
        f"the journal {path} is damaged ({why}): move it away to begin anew, without the models "
        f"and answers that it holds.{copied}"
    )

"""A store in one SQLite file.

What is written is appended to a table that has no index, the log: a tenth of the work that it takes
to find and change records in their table, of which most live for the length of one call. Now and
then the log is put into that table, the last word on each record alone, by statements that need no
Python between their rows. Whoever reads takes both.

SQLite's write-ahead log makes a write atomic and outlast the process from the moment it is there.
To outlast the machine's power it has to be flushed to the disk, which is what SQLite does at each
commit with `synchronous = FULL`. Here it is a step of its own, for how long it takes is the disk's
affair: a write is done in a fraction of a millisecond, where the thread that it would be handed to
waits for Python's lock after each statement. So is copying what is written ahead into the file,
which SQLite would do at the end of some write.

How the file is opened, and what is refused, is for `sqlite_file.py`.
"""

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tinkex_proxy.runtime.sqlite_file import damage, opened
from tinkex_proxy.runtime.store import Change, Kind, StoreDamaged, StoreError

__all__ = ["SqliteStore"]

# Bytes in the log, about, before it is put into the table and the file: the largest requests go in.
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
# What a write adds beside the bytes of its changes: the page that is appended to.
PAGE_BYTES: Final = 4096
# What a change adds beside the bytes of its value: its name.
CHANGE_BYTES: Final = 64
# Changes of one statement: each takes three of the 32,766 variables that SQLite allows.
STATEMENT_CHANGES: Final = 100

_KINDS: Final = frozenset(Kind)
_APPEND = "INSERT INTO log (kind, key, value) VALUES (?, ?, ?)"
_FORGET = "DELETE FROM log WHERE kind = ? AND key = ?"
_PUT = (
    "INSERT INTO records (kind, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"
)
_DELETE = "DELETE FROM records WHERE kind = ? AND key = ?"
# Of each record only its last word, and none of what it said before: this only makes room.
_TIDY = (
    "DELETE FROM log WHERE rowid NOT IN (SELECT max(rowid) FROM log GROUP BY kind, key)",
    (
        "DELETE FROM records WHERE rowid IN "
        "(SELECT records.rowid FROM log JOIN records USING (kind, key))"
    ),
    "DELETE FROM log WHERE value IS NULL",
)
_LENGTH = "SELECT count(*), coalesce(sum(length(value)), 0) FROM log"
_FOLD = ("INSERT INTO records SELECT kind, key, value FROM log", "DELETE FROM log")


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
        self._log: int | None = None
        self._unsynced = False
        self._database = opened(path, max_bytes=max_bytes)
        # What earlier runs have left there counts too: else it would grow from run to run.
        count, size = self._database.execute(_LENGTH).fetchone()
        self._log_bytes = int(size + CHANGE_BYTES * count)
        # Where the file system cannot have such a log, SQLite flushes by itself.
        (mode,) = self._database.execute("PRAGMA journal_mode").fetchone()
        self._durable = durable and mode == "wal"

    def load(self) -> Iterator[tuple[Kind, str, bytes]]:
        """Give every record.

        Raises:
            StoreDamaged: they cannot be read.
        """
        found: dict[tuple[Kind, str], bytes] = {}
        try:
            for table in ("records", "log ORDER BY rowid"):
                for kind, key, value in self._database.execute(
                    f"SELECT kind, key, value FROM {table}"  # noqa: S608 - one of the two above
                ):
                    if kind not in _KINDS or not isinstance(value, bytes | None):
                        raise self.damaged(f"record {key}: there is no kind {kind} of such records")
                    if value is None:
                        found.pop((kind, key), None)
                    else:
                        found[Kind(kind), key] = value
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from error
        for (kind, key), value in found.items():
            yield kind, key, value

    def write(self, changes: Sequence[Change]) -> None:
        """Write all changes, in order, or none; they outlast this process.

        Raises:
            StoreError: none was written.
        """
        try:
            try:
                self._append(changes)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                self._squeeze(changes)
        except sqlite3.Error as error:
            raise StoreError(f"cannot write the journal {self.path}: {error}") from error
        self._unsynced = self._durable
        self._log_bytes += PAGE_BYTES + sum(
            CHANGE_BYTES + len(value or b"") for _, _, value in changes
        )

    def _append(self, changes: Sequence[Change]) -> None:
        """Write at the end of the log; a single statement is a transaction by itself."""
        if len(changes) <= STATEMENT_CHANGES:
            self._append_some(changes)
            return
        with self._transaction():
            for begin in range(0, len(changes), STATEMENT_CHANGES):
                self._append_some(changes[begin : begin + STATEMENT_CHANGES])

    def _append_some(self, changes: Sequence[Change]) -> None:
        more = ", (?, ?, ?)" * (len(changes) - 1)
        self._database.execute(_APPEND + more, [*itertools.chain.from_iterable(changes)])

    def _squeeze(self, changes: Sequence[Change]) -> None:
        """Write where there is no room: what is superseded goes, so that a deletion needs none."""
        with self._transaction():
            self._run(_TIDY)
        with self._transaction():
            for kind, key, value in changes:
                self._database.execute(_FORGET, (kind, key))
                if value is None:
                    self._database.execute(_DELETE, (kind, key))
                else:
                    self._database.execute(_PUT, (kind, key, value))

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._database.execute(statement)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing of what is done within."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:  # whatever it is: the next write would be lost in what is left open
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                self._database.execute("ROLLBACK")
            raise

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
        """Whether the log is to be put into the table, and the file."""
        return self._log_bytes > CHECKPOINT_BYTES

    def shrink(self) -> None:
        """Put the log into the table, and all of it into the file.

        Raises:
            StoreError: it stays as it is for now.
        """
        self._log_bytes = 0  # tried again when as much has come once more
        try:
            try:
                for statements in (_TIDY, _FOLD):  # the first makes room for the second
                    with self._transaction():
                        self._run(statements)
            finally:
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
        error = damage(self.path, why)
        self.close()
        return error


# Not the times of the file, where the platform can tell them apart.
_sync: Final = getattr(os, "fdatasync", os.fsync)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

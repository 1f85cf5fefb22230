"""The file of an SQLite store: opened for one process alone, and never begun anew by itself.

The file is locked for as long as it is open: two proxies on one journal would each give out the
other's sequence numbers. A process that is killed holds no lock.

The file holds training data and results of the callers, so nobody but its owner may read it. A
file that cannot be read, or that a newer version has written, is left as it is, with a copy of a
damaged one beside it: to begin anew is for a person to decide.
"""

import hashlib
import shutil
import sqlite3
from pathlib import Path
from typing import Final

from tinkex_proxy.runtime.store import StoreBusy, StoreDamaged, StoreError, StoreTooNew

__all__ = ["SCHEMA", "damage", "journal_path", "opened"]

# Of the tables and of the records in them. Grows when an older version could not read them: one
# that knows no log would miss what is in it.
SCHEMA: Final = 2
# "tkxp"; so that no other program's file is taken for a journal.
APPLICATION_ID: Final = 0x746B7870
LOG_LIMIT_BYTES: Final = 64 * 1024 * 1024

_RECORDS = (
    "CREATE TABLE IF NOT EXISTS records "
    "(kind INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key))"
)
# What came since, in its order; a record that was deleted has no value.
_LOG = "CREATE TABLE IF NOT EXISTS log (kind INTEGER NOT NULL, key TEXT NOT NULL, value BLOB)"


def journal_path(state_dir: Path, upstream: str, listener: str) -> Path:
    """The file of one proxy's journal: one upstream's numbers mean nothing to another.

    Two proxies before one upstream have different listeners, and so each a journal of its own.
    """
    digest = hashlib.blake2b(f"{upstream} {listener}".encode(), digest_size=6).hexdigest()
    return state_dir / f"journal-{digest}.sqlite3"


def opened(path: Path, *, max_bytes: int | None) -> sqlite3.Connection:
    """Open a journal's file, which is there, and begin it where it is empty.

    Raises:
        StoreBusy: another process has it open.
        StoreDamaged: it is no journal, or damaged.
        StoreTooNew: a newer version has written it.
        StoreError: it cannot be opened.
    """
    try:
        # Used by the event loop and by the journal's thread, never by both at once.
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise _unopened(path, error) from error
    try:
        database.execute("PRAGMA busy_timeout = 0")
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        schema = _check(path, database)  # changes nothing: it may be another program's
        (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
        # Where the file system cannot have such a log, SQLite flushes by itself.
        level = "NORMAL" if mode == "wal" else "FULL"
        database.execute(f"PRAGMA synchronous = {level}")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
        if max_bytes is not None:
            (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
            database.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}")
        database.execute("BEGIN IMMEDIATE")  # also where there is nothing to do: can we write?
        if schema != SCHEMA:
            database.execute(_RECORDS)
            database.execute(_LOG)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA}")
        database.execute("COMMIT")
    except StoreError:
        database.close()
        raise
    except sqlite3.OperationalError as error:
        database.close()
        raise _unopened(path, error) from error
    except sqlite3.DatabaseError as error:
        damaged = damage(path, str(error))
        database.close()
        raise damaged from error
    return database


def _check(path: Path, database: sqlite3.Connection) -> int:
    """See to it that this is a journal of ours, whole, of no newer version; or still empty.

    Returns:
        The schema that it was written with; 0 for one that is not begun.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise StoreDamaged(f"{path} is not a journal of this program: name another file")
    if schema > SCHEMA:
        raise StoreTooNew(
            f"the journal {path} was written by a newer version of this program (schema "
            f"{schema}; this one knows {SCHEMA}): run that version, or move the file away and "
            "begin anew, without the models and answers that it holds"
        )
    (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise damage(path, state.splitlines()[-1])
    return int(schema) if application == APPLICATION_ID else 0


def _unopened(path: Path, error: sqlite3.OperationalError) -> StoreError:
    if error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy(
            f"another process uses the journal {path}: stop it, or give this proxy a folder of its "
            "own (TINKEX_PROXY_STATE_DIR, or journal.state_dir)"
        )
    return StoreError(f"cannot open the journal {path}: {error}")


def damage(path: Path, why: str) -> StoreDamaged:
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

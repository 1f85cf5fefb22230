"""Journals in files, for tests: opened for a while, read, and altered behind our back."""

import contextlib
import sqlite3
from pathlib import Path

from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import Change, Kind

A = Change(Kind.FACT, "a", b"1")


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


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}

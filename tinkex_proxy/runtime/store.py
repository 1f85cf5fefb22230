"""Where a journal is kept: named records, written many at a time, all of them or none.

`SqliteStore` keeps them in a file on this machine; `MemoryStore` is the twin for tests. Another
(a Redis that several machines share) needs no more than this protocol.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

__all__ = [
    "Change",
    "Kind",
    "MemoryStore",
    "Store",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreTooNew",
]


class Kind(enum.IntEnum):
    """What a record is about; the numbers are in files and never change."""

    FACT = 0
    SESSION = 1
    MODEL = 2
    LANE = 3
    CALLER = 4
    BATCH = 5
    CALL = 6
    CREATION = 7


class Change(NamedTuple):
    """One record written, or with no value deleted."""

    kind: Kind
    key: str
    value: bytes | None


class StoreError(Exception):
    """A store could not be read or written; the message is for a person."""


class StoreBusy(StoreError):  # noqa: N818 - named by fault, as in errors.py
    """Another process has it open."""


class StoreDamaged(StoreError):  # noqa: N818
    """What it holds cannot be read."""


class StoreTooNew(StoreError):  # noqa: N818
    """A newer version of this program has written it."""


class Store(Protocol):
    """Records by kind and key. Used by one thread at a time.

    What is written outlasts this process from then on. Whether it outlasts the machine's power is
    for `flush`, which may take as long as a disk does.
    """

    def load(self) -> Iterator[tuple[Kind, str, bytes]]:
        """Give every record.

        Raises:
            StoreDamaged: they cannot be read.
        """
        ...

    def write(self, changes: Sequence[Change]) -> None:
        """Write all changes, in order, or none; takes no longer than their bytes need.

        Raises:
            StoreError: none was written.
        """
        ...

    @property
    def unflushed(self) -> bool:
        """Whether `flush` is to be called before anybody relies on what was written."""
        ...

    def flush(self) -> None:
        """Come back when what was written will outlast all that it is to outlast.

        Raises:
            StoreError: nobody knows whether it will.
        """
        ...

    @property
    def overgrown(self) -> bool:
        """Whether `shrink` is to be called, when nobody waits."""
        ...

    def shrink(self) -> None:
        """Put in order what writing has left; takes its time.

        Raises:
            StoreError: that is not possible now; nothing is lost.
        """
        ...

    def damaged(self, why: str) -> StoreDamaged:
        """The error for records that were given and make no sense; lets go of the store.

        Args:
            why: which record, and what is wrong with it.
        """
        ...

    def close(self) -> None:
        """Let go of it; closing it again changes nothing."""
        ...


class MemoryStore:
    """Records in memory, for tests: what was written survives its journal.

    Args:
        records: to begin with.

    Attributes:
        records: what it holds.
        refusing: the error that writing raises, if it is to.
        writes: how often it was written.
    """

    def __init__(self, records: Mapping[tuple[Kind, str], bytes] | None = None) -> None:
        self.records = dict(records or {})
        self.refusing: StoreError | None = None
        self.writes = 0

    def load(self) -> Iterator[tuple[Kind, str, bytes]]:
        """Give every record."""
        for (kind, key), value in list(self.records.items()):
            yield kind, key, value

    def write(self, changes: Sequence[Change]) -> None:
        """Write all changes, or none.

        Raises:
            StoreError: it is to refuse.
        """
        if self.refusing is not None:
            raise self.refusing
        self.writes += 1
        records = dict(self.records)
        for kind, key, value in changes:
            if value is None:
                records.pop((kind, key), None)
            else:
                records[kind, key] = value
        self.records = records  # at once, for whoever looks from another thread

    @property
    def unflushed(self) -> bool:
        """Never: there is nothing it could outlast."""
        return False

    def flush(self) -> None:
        """There is nothing to flush."""

    @property
    def overgrown(self) -> bool:
        """Never: writing leaves nothing."""
        return False

    def shrink(self) -> None:
        """There is nothing to put in order."""

    def damaged(self, why: str) -> StoreDamaged:
        """The error for records that were given and make no sense."""
        return StoreDamaged(f"the journal is damaged ({why})")

    def close(self) -> None:
        """Nothing to let go of."""

"""The store that tests use keeps what any store has to."""

import pytest

from tinkex_proxy.runtime.store import Change, Kind, MemoryStore, StoreDamaged, StoreError


def test_kinds_keep_their_numbers() -> None:
    """They are in files: one that changes makes a record of an earlier version another one."""
    assert {kind.name: kind.value for kind in Kind} == {
        "FACT": 0,
        "SESSION": 1,
        "MODEL": 2,
        "LANE": 3,
        "CALLER": 4,
        "BATCH": 5,
        "CALL": 6,
        "CREATION": 7,
    }


def test_the_last_change_of_a_name_stands_and_none_deletes() -> None:
    store = MemoryStore({(Kind.FACT, "old"): b"0"})
    store.write([Change(Kind.FACT, "a", b"1"), Change(Kind.CALL, "a", b"2")])
    store.write([Change(Kind.FACT, "a", b"3"), Change(Kind.CALL, "a", None)])
    store.write([Change(Kind.CALL, "never there", None)])
    assert list(store.load()) == [(Kind.FACT, "old", b"0"), (Kind.FACT, "a", b"3")]
    assert store.writes == 3
    assert not store.unflushed
    assert not store.overgrown
    store.shrink()
    store.flush()
    store.close()
    store.close()


def test_what_it_began_with_stays_its_givers() -> None:
    given = {(Kind.FACT, "a"): b"1"}
    MemoryStore(given).write([Change(Kind.FACT, "a", None)])
    assert given == {(Kind.FACT, "a"): b"1"}


def test_a_store_that_refuses_writes_nothing() -> None:
    store = MemoryStore()
    store.refusing = StoreError("full")
    with pytest.raises(StoreError, match="full"):
        store.write([Change(Kind.FACT, "a", b"1")])
    assert (store.records, store.writes) == ({}, 0)


def test_damage_is_told_with_its_reason() -> None:
    error = MemoryStore().damaged("record x: what is this")
    assert isinstance(error, StoreDamaged)
    assert "record x: what is this" in str(error)

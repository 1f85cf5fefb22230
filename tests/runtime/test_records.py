"""What is written can be read: today, by a later version, and what cannot is named."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.runtime.records import (
    AnswerRecord,
    AskedRecord,
    BatchRecord,
    CallerRecord,
    CallRecord,
    CreationRecord,
    LaneRecord,
    MemberRecord,
    ModelRecord,
    PromiseRecord,
    Record,
    SessionRecord,
    UnreadableRecord,
    deleted,
    read_records,
    written,
)
from tinkex_proxy.runtime.store import Change, Kind

ASKED = AskedRecord("forward_backward", "/v1/forward_backward", {"a": "b"}, {"h": "v"}, b"\0body")
ANSWER = AnswerRecord(200, {"content-type": "application/json"}, b"{}", 1.5e9)
MEMBERS = (MemberRecord("c1", "0.0", 2), MemberRecord(None, "0.1", 0))
SENT = BatchRecord(
    owner="me",
    model_id="m",
    seq_id=3,
    members=MEMBERS,
    path="/api/v1/forward_backward",
    content_type="a/b",
    accept="c/d",
    identity="i",
    repeatable=True,
    body=b"bytes",
)
SENDING = ["/api/v1/forward_backward", "a/b", "c/d", "i", True, b"bytes"]
ADMITTED = msgspec.structs.replace(
    SENT, body=b"", promise=PromiseRecord("a/b", b'{"request_id":1}')
)

# One of each kind, its kind and its name.
EXAMPLES: list[tuple[Record, Kind, str]] = [
    (SessionRecord("me", "s1", 2, 3), Kind.SESSION, "me"),
    (
        ModelRecord("me", "m", "s1", of_sdk=False, facts={"rank": 4, "seed": None}),
        Kind.MODEL,
        "me/m",
    ),
    (LaneRecord("me", "m", 7), Kind.LANE, "me/m"),
    (CallerRecord("me", "m", "worker 1", 9, (2, 5)), Kind.CALLER, "me/m/worker 1"),
    (SENT, Kind.BATCH, "me/m/3/i"),
    (ADMITTED, Kind.BATCH, "me/m/3/i"),
    (CallRecord("me", "c1", 1, "key", b"d", ASKED, ANSWER), Kind.CALL, "me/c1"),
    (CreationRecord("me", "c2", "s1", b"{}", "i"), Kind.CREATION, "me/c2"),
]
# What the bytes of each kind are.
FORM = {kind: msgspec.json if kind is Kind.MODEL else msgspec.msgpack for kind in Kind}
# Kind -> (a record as the first version wrote it, the same with what was added since).
OLDEST: dict[Kind, tuple[list[object], Record]] = {
    Kind.SESSION: (["me", "s1", 2, 3], SessionRecord("me", "s1", 2, 3)),
    Kind.MODEL: (["me", "m", "s1", True, {}], ModelRecord("me", "m", "s1", of_sdk=True, facts={})),
    Kind.LANE: (["me", "m", 7], LaneRecord("me", "m", 7)),
    Kind.CALLER: (["me", "m", "w", 9], CallerRecord("me", "m", "w", 9, ())),
    Kind.BATCH: (
        ["me", "m", 3, [["c1", "0.0", 2], [None, "0.1", 0]], *SENDING],
        SENT,
    ),
    Kind.CALL: (["me", "c1", 1, None, b"d"], CallRecord("me", "c1", 1, None, b"d", None, None)),
    Kind.CREATION: (["me", "c2", "s1", b"{}", "i"], CreationRecord("me", "c2", "s1", b"{}", "i")),
}


def stored(*changes: Change) -> list[tuple[Kind, str, bytes]]:
    return [(kind, key, value) for kind, key, value in changes if value is not None]


def read_back(*found: tuple[Kind, str, bytes]) -> dict[str, object]:
    """What the journal says of `me`, by the names of `Owned`."""
    owners, facts = read_records(found)
    assert (list(owners), facts) == (["me"], {})
    owned = owners["me"]
    return {name: getattr(owned, name) for name in owned.__dataclass_fields__}


def the_one(*found: tuple[Kind, str, bytes]) -> object:
    """The one record that the journal has of `me`, wherever it was sorted."""
    (record,) = [part for part in read_back(*found).values() if part]
    if isinstance(record, (list, dict)):
        (record,) = record.values() if isinstance(record, dict) else record
    return record


@pytest.mark.parametrize(("record", "kind", "name"), EXAMPLES)
def test_each_kind_comes_back_as_it_was(record: Record, kind: Kind, name: str) -> None:
    change = written(record)
    assert (change.kind, change.key) == (kind, name)
    assert deleted(record) == Change(kind, name, None)
    assert the_one(*stored(change)) == record


def test_every_kind_is_tried_here() -> None:
    assert {kind for _, kind, _ in EXAMPLES} == set(Kind) - {Kind.FACT} == set(OLDEST)


@pytest.mark.parametrize("kind", OLDEST, ids=lambda kind: kind.name)
def test_what_the_first_version_wrote_is_read(kind: Kind) -> None:
    """What was added since has a default, and stands last."""
    fields, record = OLDEST[kind]
    assert the_one((kind, "x", FORM[kind].encode(fields))) == record


@pytest.mark.parametrize("kind", OLDEST, ids=lambda kind: kind.name)
def test_what_a_later_version_adds_is_passed_over(kind: Kind) -> None:
    record = OLDEST[kind][1]
    fields = FORM[kind].decode(written(record).value or b"")
    later = FORM[kind].encode([*fields, "something new"])
    assert the_one((kind, "x", later)) == record


@pytest.mark.parametrize("kind", OLDEST, ids=lambda kind: kind.name)
@pytest.mark.parametrize("fields", [None, [], [1, 2, 3, 4, 5], ["Q"] * 5])
def test_what_cannot_be_read_is_named(kind: Kind, fields: object) -> None:
    """Bytes of another form, too few fields, fields of other types, texts that are none."""
    value = b"\xc1" if fields is None else FORM[kind].encode(fields).replace(b"Q", b"\xff")
    with pytest.raises(UnreadableRecord, match=f"^record {kind.name.lower()} me/x: "):
        read_records([(kind, "me/x", value)])


def test_a_model_may_have_facts_that_msgpack_has_no_form_for() -> None:
    """They are a caller's own JSON; a number that is too long must not fail the making."""
    facts = msgspec.json.decode(b'{"metadata": {"n": 123456789012345678901234567890}}')
    record = ModelRecord("me", "m", "s1", of_sdk=False, facts=facts)
    assert the_one(*stored(written(record))) == record


def test_facts_are_bytes_and_nobodys() -> None:
    assert read_records([(Kind.FACT, "salt", b"\xc1")]) == ({}, {"salt": b"\xc1"})
    assert read_records([]) == ({}, {})


def test_each_owner_finds_its_own() -> None:
    owners, _ = read_records(
        stored(*(written(LaneRecord(owner, "m", seq)) for owner, seq in (("a", 2), ("b", 3))))
    )
    assert {owner: owned.lanes["m"].next_seq for owner, owned in owners.items()} == {"a": 2, "b": 3}


@given(st.permutations(range(1, 13)))
def test_requests_and_calls_come_in_their_order(numbers: list[int]) -> None:
    """A store gives them by name, where 10 is before 2."""
    batches = [
        msgspec.structs.replace(SENT, model_id=model_id, seq_id=n)
        for n in numbers
        for model_id in ("b", "a")
    ]
    calls = [CallRecord("me", f"c{-n}", n, None, b"") for n in numbers]
    found = read_back(*stored(*map(written, [*batches, *calls])))
    assert [(b.model_id, b.seq_id) for b in found["batches"]] == [
        (model_id, n) for model_id in "ab" for n in range(1, 13)
    ]
    assert [call.number for call in found["calls"]] == list(range(1, 13))


def test_calls_without_an_answer_were_under_way() -> None:
    answered = CallRecord("me", "a", 1, "k", b"", None, ANSWER)
    cut_off, promised = (
        CallRecord("me", "b", 2, "l", b""),
        CallRecord("me", "c", 3, None, b"", ASKED),
    )
    owners, _ = read_records(stored(*map(written, (promised, answered, cut_off))))
    assert owners["me"].unanswered == {"b": cut_off, "c": promised}


def test_models_and_creations_are_found_by_their_ids() -> None:
    model, creation = EXAMPLES[1][0], EXAMPLES[7][0]
    found = read_back(*stored(written(model), written(creation)))
    assert (found["models"], found["creations"]) == ({"m": model}, {"c2": creation})

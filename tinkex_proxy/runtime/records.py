"""What a journal says, record by record; how much of it is written when is for `journal.py`.

A record is named by whose it is: its owner (the public name of an API key; never the key), its
model, its number. Its bytes are msgpack arrays (a model's are JSON: its facts are its maker's, and
may hold numbers that msgpack has not). A field that is added goes last and has a default, so that
older records can be read; anything else is a new schema (`sqlite_file.SCHEMA`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from tinkex_proxy.runtime.store import Change, Kind

__all__ = [
    "AnswerRecord",
    "AskedRecord",
    "BatchRecord",
    "CallRecord",
    "CallerRecord",
    "CreationRecord",
    "LaneRecord",
    "MemberRecord",
    "ModelRecord",
    "Owned",
    "PromiseRecord",
    "Record",
    "SessionRecord",
    "UnreadableRecord",
    "deleted",
    "read_records",
    "written",
]


class UnreadableRecord(Exception):  # noqa: N818 - named by fault, as in errors.py
    """A record is not what its kind says; the message names it."""


class SessionRecord(msgspec.Struct, array_like=True, frozen=True):
    """The upstream session of a key, and how many models and samplers were made in it."""

    owner: str
    session_id: str
    models_made: int
    samplers_made: int

    @property
    def name(self) -> str:
        """Its name among its kind."""
        return self.owner


class ModelRecord(msgspec.Struct, array_like=True, frozen=True):
    """A live model."""

    owner: str
    model_id: str
    session_id: str
    of_sdk: bool
    facts: dict[str, object]

    @property
    def name(self) -> str:
        """Its name among its kind."""
        return f"{self.owner}/{self.model_id}"


class LaneRecord(msgspec.Struct, array_like=True, frozen=True):
    """The first number of a model's lane that is not used."""

    owner: str
    model_id: str
    next_seq: int

    @property
    def name(self) -> str:
        """Its name among its kind."""
        return f"{self.owner}/{self.model_id}"


class CallerRecord(msgspec.Struct, array_like=True, frozen=True):
    """How far one SDK's count has left a lane, and which numbers before that may come again."""

    owner: str
    model_id: str
    caller: str
    expected: int
    reopened: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its name among its kind."""
        return f"{self.owner}/{self.model_id}/{self.caller}"


class MemberRecord(msgspec.Struct, array_like=True, frozen=True):
    """A part of a call, as it stands in a batch.

    Attributes:
        call_id: whose it is, or None where nobody can come for it.
        part: which part of that call.
        datums: how many datums it has.
    """

    call_id: str | None
    part: str
    datums: int


class PromiseRecord(msgspec.Struct, array_like=True, frozen=True):
    """How the upstream answered a submit."""

    content_type: str
    body: bytes


class BatchRecord(msgspec.Struct, array_like=True, frozen=True):
    """A request to the upstream that is not over.

    Attributes:
        seq_id: its number on its lane.
        body: what is sent; empty once it is admitted, for it is never sent again.
        identity: sent along, the same for every repetition.
        repeatable: whether the upstream is known to recognise a repetition.
        accept: media type wanted for the result.
        promise: the upstream's answer to the submit, once there is one.
        doubted: whether nobody will ever know if it has run.
    """

    owner: str
    model_id: str
    seq_id: int
    members: tuple[MemberRecord, ...]
    path: str
    content_type: str
    accept: str
    identity: str
    repeatable: bool
    body: bytes
    promise: PromiseRecord | None = None
    doubted: bool = False

    @property
    def name(self) -> str:
        """Its name among its kind; a number that was given back may come again."""
        return f"{self.owner}/{self.model_id}/{self.seq_id}/{self.identity}"


class AskedRecord(msgspec.Struct, array_like=True, frozen=True):
    """A caller's request, as far as it takes to do it again."""

    operation: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


class AnswerRecord(msgspec.Struct, array_like=True, frozen=True):
    """An answer that is kept; `ended_at` is a time of day, in seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    ended_at: float


class CallRecord(msgspec.Struct, array_like=True, frozen=True):
    """A call that somebody may come for.

    Attributes:
        number: its place among all calls.
        key: its `Idempotency-Key`, or None.
        digest: of its path and body.
        asked: the request, where its caller has been promised the answer; without it, who repeats
            the call brings it.
        answer: the answer, once there is one.
    """

    owner: str
    id: str
    number: int
    key: str | None
    digest: bytes
    asked: AskedRecord | None = None
    answer: AnswerRecord | None = None

    @property
    def name(self) -> str:
        """Its name among its kind."""
        return f"{self.owner}/{self.id}"


class CreationRecord(msgspec.Struct, array_like=True, frozen=True):
    """A `create_model` that may have been sent, for a call that may be repeated."""

    owner: str
    call_id: str
    session_id: str
    body: bytes
    identity: str

    @property
    def name(self) -> str:
        """Its name among its kind."""
        return f"{self.owner}/{self.call_id}"


Record: TypeAlias = (
    SessionRecord
    | ModelRecord
    | LaneRecord
    | CallerRecord
    | BatchRecord
    | CallRecord
    | CreationRecord
)

_KINDS: dict[type[Record], Kind] = {
    SessionRecord: Kind.SESSION,
    ModelRecord: Kind.MODEL,
    LaneRecord: Kind.LANE,
    CallerRecord: Kind.CALLER,
    BatchRecord: Kind.BATCH,
    CallRecord: Kind.CALL,
    CreationRecord: Kind.CREATION,
}
_ENCODER = msgspec.msgpack.Encoder()
_MODEL_ENCODER = msgspec.json.Encoder()
_DECODERS: dict[Kind, msgspec.msgpack.Decoder[Record] | msgspec.json.Decoder[Record]] = {
    kind: msgspec.msgpack.Decoder(form) for form, kind in _KINDS.items()
}
_DECODERS[Kind.MODEL] = msgspec.json.Decoder(ModelRecord)


def written(record: Record) -> Change:
    """The change that writes a record."""
    encoder = _MODEL_ENCODER if isinstance(record, ModelRecord) else _ENCODER
    return Change(_KINDS[type(record)], record.name, encoder.encode(record))


def deleted(record: Record) -> Change:
    """The change that deletes a record."""
    return Change(_KINDS[type(record)], record.name, None)


@dataclass(slots=True)
class Owned:
    """All that a journal says of one owner."""

    session: SessionRecord | None = None
    models: dict[str, ModelRecord] = field(default_factory=dict)
    lanes: dict[str, LaneRecord] = field(default_factory=dict)
    callers: list[CallerRecord] = field(default_factory=list)
    batches: list[BatchRecord] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    creations: dict[str, CreationRecord] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Sort one record in."""
        match record:
            case SessionRecord():
                self.session = record
            case ModelRecord():
                self.models[record.model_id] = record
            case LaneRecord():
                self.lanes[record.model_id] = record
            case CallerRecord():
                self.callers.append(record)
            case BatchRecord():
                self.batches.append(record)
            case CallRecord():
                self.calls.append(record)
            case CreationRecord():  # pragma: no branch - the last there is
                self.creations[record.call_id] = record

    @property
    def unanswered(self) -> Mapping[str, CallRecord]:
        """The calls that were under way, by their ids."""
        return {call.id: call for call in self.calls if call.answer is None}


def read_records(
    stored: Iterable[tuple[Kind, str, bytes]],
) -> tuple[dict[str, Owned], dict[str, bytes]]:
    """Read what a store holds: of each owner, in the order of lanes and calls; and the facts.

    Raises:
        UnreadableRecord: a record is not what it is said to be.
    """
    owners: dict[str, Owned] = {}
    facts: dict[str, bytes] = {}
    for kind, key, value in stored:
        if kind is Kind.FACT:
            facts[key] = value
            continue
        try:
            record = _DECODERS[kind].decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnreadableRecord(f"record {kind.name.lower()} {key}: {error}") from error
        owners.setdefault(record.owner, Owned()).take(record)
    for owned in owners.values():
        owned.batches.sort(key=lambda batch: (batch.model_id, batch.seq_id))
        owned.calls.sort(key=lambda call: call.number)
    return owners, facts

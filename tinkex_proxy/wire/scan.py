"""Reading a training request's envelope without opening its letters.

Only the top level of the message is walked: a tag, a length, a skip. Datums and fields that we do
not know are copied in runs; the known scalars are taken out, because `merge` writes its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from tinkex_proxy.errors import InvalidRequest

__all__ = ["FORWARD_ONLY", "LEN", "SEQ_ID", "Head", "scan", "varint"]

SEQ_ID: Final = b"\x10"  # field 2, varint
FORWARD_ONLY: Final = b"\x30"  # field 6, varint
LEN: Final = 2  # wire type of what says its length: bytes, text, messages

_VARINT: Final = 0
_FIXED: Final = {1: 8, 5: 4}  # wire type to size
_DATA: Final = 3
_WIRE_TYPES: Final = {1: LEN, 2: _VARINT, 3: LEN, 4: LEN, 5: LEN, 6: _VARINT, 7: LEN}
_CONFIG: Final = frozenset({5, 7})
_LONGEST_VARINT: Final = 10


@dataclass(frozen=True, slots=True)
class Head:
    """What a request says beside its datums.

    Attributes:
        model_id: the model.
        seq_id: its place in the sender's own count.
        loss_fn: the loss.
        loss_fn_config: the entries of both maps in one order, so that equal ones compare equal.
        forward_only: whether no gradient is wanted.
        unknown: fields that we do not know; calls may share a request only if these are equal.
    """

    model_id: str
    seq_id: int
    loss_fn: str
    loss_fn_config: bytes
    forward_only: bool
    unknown: bytes


class _Field(NamedTuple):
    """One field of the top level.

    Attributes:
        number: its number.
        start: where its tag begins.
        value: the number itself, or where the value begins.
        end: where the next field begins.
    """

    number: int
    start: int
    value: int
    end: int


def varint(value: int) -> bytes:
    """A number as protobuf writes an int32 or int64."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def scan(body: bytes) -> tuple[Head, bytes, int]:
    """The head, the bytes of datums and unknown fields, and the number of datums.

    Raises:
        InvalidRequest: the body is not a message of this kind.
    """
    try:
        return _scan(body)
    except IndexError:
        problem = "it ends in the middle of a field"
    except ValueError as error:  # a text that is not UTF-8 included
        problem = str(error)
    raise InvalidRequest(f"The body is not a protobuf ForwardBackwardRequest: {problem}.")


def _scan(body: bytes) -> tuple[Head, bytes, int]:
    numbers = {2: 0, 6: 0}
    texts = {1: "", 4: ""}
    config, unknown, runs = [], [], []
    datums = 0
    for number, start, value, end in _fields(body):
        if number in numbers:
            numbers[number] = value
        elif number in texts:
            texts[number] = body[value:end].decode()
        elif number in _CONFIG:
            config.append(body[start:end])
        else:
            runs.append((start, end))
            if number == _DATA:
                datums += 1
            else:
                unknown.append(body[start:end])
    head = Head(
        model_id=texts[1],
        seq_id=_int32(numbers[2]),
        loss_fn=texts[4],
        loss_fn_config=b"".join(sorted(config)),
        forward_only=bool(numbers[6]),
        unknown=b"".join(unknown),
    )
    return head, b"".join(body[start:end] for start, end in runs), datums


def _fields(body: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(body):
        tag, value = _read_varint(body, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or _WIRE_TYPES.get(number, wire_type) != wire_type:
            raise ValueError(f"field {number} at byte {at} is of another type")
        if wire_type == _VARINT:
            value, end = _read_varint(body, value)
        elif wire_type == LEN:
            size, value = _read_varint(body, value)
            end = value + size
        elif wire_type in _FIXED:
            end = value + _FIXED[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {at} is not in use")
        if end > len(body):
            raise ValueError(f"field {number} at byte {at} is longer than the body")
        yield _Field(number, at, value, end)
        at = end


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    first = body[at]
    if first < 0x80:
        return first, at + 1
    value = 0
    for shift, byte in enumerate(body[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError(f"the number at byte {at} does not end")


def _int32(value: int) -> int:
    """Protobuf keeps the low 32 bits."""
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000

"""One answer for many callers, cut so that each gets exactly its own.

Outputs are one per datum, in order; so the first caller's are the first ones. Metrics speak about
the whole request, and are nobody's own unless it had one caller.

A caller's part in protobuf is joined from views of the upstream's data and from what stands around
them. So a number that is out of the upstream's message is copied once more; as a slice that is set
in a message and serialized, it would be copied three times.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.blocks import counts_of, offsets_of, read_message
from tinkex_proxy.wire.output import Output
from tinkex_proxy.wire.scan import LEN, varint

__all__ = ["split", "split_protobuf"]

_OUTPUTS: Final = pb.ForwardBackwardOutput.LOSS_FN_OUTPUTS_FIELD_NUMBER
_FIELDS: Final = pb.ArrayRecord.FIELDS_FIELD_NUMBER
_NUM_DATUMS: Final = pb.ArrayRecord.NUM_DATUMS_FIELD_NUMBER
_DATA: Final = pb.BatchedTensor.DATA_FIELD_NUMBER
_OFFSETS: Final = pb.BatchedTensor.OFFSETS_FIELD_NUMBER
_KEY: Final = 1  # the two fields of every entry of a map
_VALUE: Final = 2

# A piece of a message, as what it is joined of.
_Pieces = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a block.

    Attributes:
        key: its name, as the map's entry has it.
        frame: what it says beside its data, fields that we do not know included.
        data: of all datums.
        offsets: where each datum's begins, and where the last one's ends.
    """

    key: _Pieces
    frame: bytes
    data: memoryview
    offsets: list[int]


def split(output: Output, counts: Sequence[int]) -> list[Output]:
    """Cut an answer into one for each caller.

    Args:
        output: the answer.
        counts: how many datums each caller sent, in order.

    Raises:
        UpstreamFault: the upstream did not answer for as many datums as were sent.
    """
    _check(len(output.records), counts)
    if len(counts) == 1:
        return [output]
    return [
        Output(output.loss_fn_output_type, output.records[start:end], {})
        for start, end in _spans(counts)
    ]


def split_protobuf(body: bytes, counts: Sequence[int]) -> list[bytes]:
    """Cut a protobuf answer into one for each caller, without decoding a number.

    Fields that we do not know go to every caller, as they are.

    Args:
        body: the answer.
        counts: how many datums each caller sent, in order.

    Raises:
        UpstreamFault: the body is no such answer, or not one for as many datums as were sent.
    """
    message = read_message(body)
    sizes = counts_of(message)
    _check(sum(sizes), counts)
    if len(counts) == 1:
        return [body]
    blocks = [
        (_fields(block, size), _frame(block, "fields", "num_datums"))
        for block, size in zip(message.loss_fn_outputs, sizes, strict=True)
    ]
    frame = _frame(message, "loss_fn_outputs", "metrics")
    firsts = list(accumulate(sizes, initial=0))
    answers = []
    for start, end in _spans(counts):
        answer: _Pieces = [frame]
        for (fields, around), (first, last) in zip(blocks, pairwise(firsts), strict=True):
            low, high = max(start, first) - first, min(end, last) - first
            if low < high:
                answer += _inside(_OUTPUTS, _cut(fields, around, low, high))
        answers.append(b"".join(answer))
    return answers


def _check(answered: int, counts: Sequence[int]) -> None:
    if answered != sum(counts):
        raise UpstreamFault(
            f"The upstream answered with {answered} outputs for {sum(counts)} datums; "
            "whose they are cannot be told."
        )


def _spans(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Where each caller's datums begin and end."""
    return list(pairwise(accumulate(counts, initial=0)))


def _frame(
    message: pb.ForwardBackwardOutput | pb.ArrayRecord | pb.BatchedTensor, *but: str
) -> bytes:
    """What a message says beside some of its fields, which are taken out of it."""
    for name in but:
        message.ClearField(name)
    return message.SerializeToString()


def _fields(block: pb.ArrayRecord, size: int) -> list[_Field]:
    """The fields of a block; their data are taken out of it."""
    fields = []
    for name, field in block.fields.items():
        data = field.data
        offsets = offsets_of(field, size, data)
        key, frame = _inside(_KEY, [name.encode()]), _frame(field, "data", "offsets")
        fields.append(_Field(key, frame, memoryview(data), offsets))
    return fields


def _cut(fields: Iterable[_Field], frame: bytes, low: int, high: int) -> _Pieces:
    """A block of some of the datums."""
    pieces: _Pieces = [frame, varint(_NUM_DATUMS << 3), varint(high - low)]
    for field in fields:
        begin = field.offsets[low]
        moved = [offset - begin for offset in field.offsets[low : high + 1]]
        value = [
            field.frame,
            *_inside(_DATA, [field.data[begin : field.offsets[high]]]),
            *_inside(_OFFSETS, [struct.pack(f"<{len(moved)}q", *moved)]),
        ]
        pieces += _inside(_FIELDS, [*field.key, *_inside(_VALUE, value)])
    return pieces


def _inside(number: int, pieces: _Pieces) -> _Pieces:
    """The field `number` of a message, which holds those pieces."""
    return [varint(number << 3 | LEN), varint(sum(map(len, pieces))), *pieces]

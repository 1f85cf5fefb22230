"""One answer for many callers, cut so that each gets exactly its own.

Outputs are one per datum, in order; so the first caller's are the first ones. Metrics speak about
the whole request, and are nobody's own unless it had one caller.
"""

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.blocks import counts_of, offsets_of, read_message
from tinkex_proxy.wire.output import Output

__all__ = ["split", "split_protobuf"]

# Of each field: its data, and where each datum's begins.
_Contents = dict[str, tuple[bytes, list[int]]]


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
    contents = [
        _empty(block, size) for block, size in zip(message.loss_fn_outputs, sizes, strict=True)
    ]
    message.ClearField("metrics")
    # What is left of the message is its frame, fields that we do not know included: each caller
    # gets a copy of it, filled with its own bytes.
    firsts = list(accumulate(sizes, initial=0))
    answers = []
    for start, end in _spans(counts):
        answer = pb.ForwardBackwardOutput()
        answer.CopyFrom(message)
        for index in reversed(range(len(sizes))):
            first = firsts[index]
            low, high = max(start - first, 0), min(end - first, sizes[index])
            if low < high:
                _fill(answer.loss_fn_outputs[index], contents[index], low, high)
            else:
                del answer.loss_fn_outputs[index]
        answers.append(answer.SerializeToString())
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


def _empty(block: pb.ArrayRecord, size: int) -> _Contents:
    """Take the data out of a block."""
    contents: _Contents = {}
    for name, field in block.fields.items():
        data = field.data
        contents[name] = data, offsets_of(field, size, data)
    for name in contents:
        block.fields[name].ClearField("data")
        block.fields[name].ClearField("offsets")
    return contents


def _fill(block: pb.ArrayRecord, contents: _Contents, low: int, high: int) -> None:
    """Put the data of some of the datums back."""
    block.num_datums = high - low
    for name, (data, offsets) in contents.items():
        begin = offsets[low]
        field = block.fields[name]
        field.data = data[begin : offsets[high]]
        moved = [offset - begin for offset in offsets[low : high + 1]]
        field.offsets = struct.pack(f"<{len(moved)}q", *moved)

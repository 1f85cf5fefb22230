"""The blocks of a protobuf training answer: which bytes are which datum's.

An answer has one block or several (ragged outputs come as several rectangular ones); a block has
for each field the data of all its datums and the byte offset at which each begins.
"""

from google.protobuf.message import DecodeError

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.packing import SIZES, unpack

__all__ = ["counts_of", "offsets_of", "read_message"]

_OFFSET = SIZES["q"]


def read_message(body: bytes) -> pb.ForwardBackwardOutput:
    """Parse an answer.

    Raises:
        UpstreamFault: it is not one.
    """
    try:
        return pb.ForwardBackwardOutput.FromString(body)
    except DecodeError as error:
        raise UpstreamFault(f"The upstream's training answer cannot be read: {error}.") from None


def counts_of(message: pb.ForwardBackwardOutput) -> list[int]:
    """How many datums each block has; servers older than `num_datums` say it by their offsets."""
    counts = [block.num_datums for block in message.loss_fn_outputs]
    if any(counts):
        return counts
    return [
        max((len(field.offsets) // _OFFSET - 1 for field in block.fields.values()), default=0)
        for block in message.loss_fn_outputs
    ]


def offsets_of(field: pb.BatchedTensor, datums: int, data: bytes) -> list[int]:
    """Where each datum's bytes begin, and where the last one's end.

    Args:
        field: the field.
        datums: how many its block has.
        data: its data; each time that a message is asked for it, it makes a copy.

    Raises:
        UpstreamFault: they are not one more than there are datums, or leave the data.
    """
    packed = field.offsets
    if len(packed) != _OFFSET * (datums + 1):
        raise UpstreamFault(
            f"The upstream's training answer has {len(packed)} bytes of offsets for "
            f"{datums} outputs; {_OFFSET * (datums + 1)} belong there."
        )
    offsets = [int(offset) for offset in unpack("q", packed)]
    if offsets[0] < 0 or offsets[-1] > len(data) or offsets != sorted(offsets):
        raise UpstreamFault("The upstream's training answer has offsets that leave its data.")
    return offsets

"""Training answers of an upstream, whichever flavour, as one thing.

A protobuf answer holds each field of all datums as one block with byte offsets; JSON holds one
object per datum. Both become one record per datum here.

The numbers stay as they came, until they are written for a caller (`encode_json`) or a loss is
computed from them. Those of a protobuf answer are bytes: as Python's numbers they would take eight
times the memory, and freeing them all at once would hold everybody up. They are read as the double
that equals a float32 or bfloat16, and an int32 as an integer of the public dtype int64. Those of a
JSON answer are text: callers get them in JSON again, and reading and writing them would cost five
times what cutting the text does. A `null` among them is how a NaN was written, and is read as one.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta
from typing_extensions import override

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.blocks import counts_of, offsets_of, read_message
from tinkex_proxy.wire.forms import Dtype
from tinkex_proxy.wire.packing import unpack, unpack_bfloat16

__all__ = [
    "Output",
    "Packed",
    "Record",
    "TensorOut",
    "decode_output",
    "encode_json",
    "is_protobuf",
    "loss_sum_of",
]

# So many numbers are read or written in one go, within a millisecond.
_STRETCH: Final = 8192


class Packed:
    """Numbers as protobuf has them.

    Args:
        data: the bytes.
        size: how many of them a number has.
        read: reads them.
    """

    __slots__ = ("_data", "_read", "_size")

    def __init__(self, data: bytes, size: int, read: Callable[[bytes], list[float]]) -> None:
        self._data = data
        self._size = size
        self._read = read

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self._what == other._what

    @override
    def __hash__(self) -> int:
        return hash(self._what)

    @property
    def _what(self) -> tuple[object, ...]:
        return self._data, self._size, self._read

    def values(self) -> list[float]:
        """As Python's numbers."""
        return self._read(self._data)

    def json(self) -> msgspec.Raw:
        """As an array in JSON, written stretch by stretch."""
        step = _STRETCH * self._size
        if len(self._data) <= step:
            return msgspec.Raw(msgspec.json.encode(self.values()))
        starts = range(0, max(1, len(self._data)), step)
        parts = [msgspec.json.encode(self._read(self._data[at : at + step])) for at in starts]
        return msgspec.Raw(b"[%b]" % b",".join(part[1:-1] for part in parts))


if TYPE_CHECKING:
    _Numbers: TypeAlias = list[float] | msgspec.Raw | Packed
else:
    _Numbers = object  # msgspec takes no union of what it knows and a class of ours


class TensorOut(msgspec.Struct, frozen=True):
    """Numbers of one datum."""

    data: Annotated[_Numbers, Meta(description="Row by row; null is not a number")]
    dtype: Annotated[str, Meta(description="float32 or int64", examples=["float32"])] = "float32"
    shape: Annotated[list[int] | None, Meta(examples=[[3]])] = None

    def values(self) -> list[float]:
        """The numbers, read if they are not yet.

        Raises:
            UpstreamFault: one is beyond what a double holds.
        """
        if isinstance(self.data, Packed):
            return self.data.values()
        if not isinstance(self.data, msgspec.Raw):
            return self.data
        try:
            numbers = _NUMBERS.decode(self.data)
        except msgspec.DecodeError as error:
            raise _unreadable(error) from None
        return [math.nan if value is None else value for value in numbers]


Record = dict[str, TensorOut]


class Output(msgspec.Struct, frozen=True):
    """The answer to a `forward_backward` or `forward`.

    Attributes:
        loss_fn_output_type: the upstream's name for the kind of record.
        records: one per datum, in order.
        metrics: over the whole request, each name ending in how it may be combined.
    """

    loss_fn_output_type: str
    records: tuple[Record, ...]
    metrics: dict[str, float]


class _TensorForm(msgspec.Struct):
    data: msgspec.Raw
    dtype: str = "float32"
    shape: list[int] | None = None


class _OutputForm(msgspec.Struct):
    loss_fn_outputs: list[dict[str, _TensorForm]]
    loss_fn_output_type: str = ""
    metrics: dict[str, float | None] = {}


class _MetricsForm(msgspec.Struct):
    """What is looked for; msgspec skips the rest without building it."""

    metrics: dict[str, float | None] = {}


# dtype on the wire: bytes of a value, public dtype, how to read it
_DTYPES: Final[dict[int, tuple[int, Dtype, Callable[[bytes], list[float]]]]] = {
    pb.DTYPE_FLOAT32: (4, "float32", partial(unpack, "f")),
    pb.DTYPE_INT64: (8, "int64", partial(unpack, "q")),
    pb.DTYPE_INT32: (4, "int64", partial(unpack, "i")),
    pb.DTYPE_BFLOAT16: (2, "float32", unpack_bfloat16),
}
_JSON_METRICS: Final = msgspec.json.Decoder(_MetricsForm)
_JSON: Final = msgspec.json.Decoder(_OutputForm)
_NUMBERS: Final = msgspec.json.Decoder(list[int | float | None])
_ENCODER: Final = msgspec.json.Encoder(enc_hook=Packed.json)
_SPACE: Final = b" \t\r\n"
# What numbers, nulls and the space around them are written in. Letters of `true` and `false`, the
# quotes of a text and the brackets of anything nested are left when these are gone.
_OF_NUMBERS: Final = b"0123456789+-.eEnul" + _SPACE


def encode_json(value: object) -> bytes:
    """What is answered, in JSON; tensors anywhere in it with their numbers."""
    return _ENCODER.encode(value)


def is_protobuf(content_type: str) -> bool:
    """Whether a body of this type is protobuf; all else is taken for JSON."""
    return content_type.partition(";")[0].strip().lower() == "application/x-protobuf"


def decode_output(body: bytes, content_type: str) -> Output:
    """Decode an upstream's answer.

    Raises:
        UpstreamFault: it is not a training answer.
    """
    try:
        return _from_protobuf(body) if is_protobuf(content_type) else _from_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise _unreadable(error) from None


def loss_sum_of(body: bytes, content_type: str) -> float | None:
    """The `loss:sum` of a training answer that is not otherwise read; None where it has none."""
    try:
        if is_protobuf(content_type):
            metrics: Mapping[str, float | None] = read_message(body).metrics
        else:
            metrics = _JSON_METRICS.decode(body).metrics
    except (msgspec.DecodeError, UpstreamFault):
        return None
    return metrics.get("loss:sum")


def _from_json(body: bytes) -> Output:
    form = _JSON.decode(body)
    records = tuple(
        {name: _tensor(tensor) for name, tensor in record.items()}
        for record in form.loss_fn_outputs
    )
    metrics = {name: math.nan if v is None else v for name, v in form.metrics.items()}
    return Output(form.loss_fn_output_type, records, metrics)


def _tensor(form: _TensorForm) -> TensorOut:
    count = _count(bytes(form.data))
    return TensorOut(form.data, form.dtype, [count] if form.shape is None else form.shape)


def _count(text: bytes) -> int:
    """How many numbers are in an array of JSON; that it is sound JSON has been seen.

    Raises:
        UpstreamFault: it is no array of numbers and nulls.
    """
    left = text.translate(None, _OF_NUMBERS)
    if left != b"[%b]" % (b"," * (len(left) - 2)):
        raise _unreadable("`data` is no array of numbers")
    if left == b"[]":
        return int(text.translate(None, _SPACE) != left)
    return len(left) - 1


def _unreadable(why: object) -> UpstreamFault:
    return UpstreamFault(f"The upstream's training answer cannot be read: {why}.")


def _from_protobuf(body: bytes) -> Output:
    message = read_message(body)
    records: list[Record] = []
    for block, count in zip(message.loss_fn_outputs, counts_of(message), strict=True):
        new: list[Record] = [{} for _ in range(count)]
        for name, field in block.fields.items():
            for record, tensor in zip(new, _tensors(field, count), strict=True):
                record[name] = tensor
        records += new
    kind = message.loss_fn_output_type.rsplit(":", 1)[-1]
    return Output(kind or "ArrayRecord", tuple(records), dict(message.metrics))


def _tensors(field: pb.BatchedTensor, datums: int) -> Iterator[TensorOut]:
    """Each datum's part of a field."""
    known = _DTYPES.get(field.dtype)
    if known is None:
        raise UpstreamFault(f"The upstream's training answer has the unknown dtype {field.dtype}.")
    size, dtype, numbers = known
    packed = field.data
    if len(packed) % size:
        raise _unreadable(f"{len(packed)} bytes of {dtype} are no whole number of values")
    trailing = list(field.trailing_shape)
    per_row = math.prod(trailing)
    for start, end in pairwise(offsets_of(field, datums, packed)):
        first, last = start // size, end // size
        rows = (last - first) // per_row if per_row else 0
        data = Packed(packed[first * size : last * size], size, numbers)
        yield TensorOut(data, dtype, [rows, *trailing])

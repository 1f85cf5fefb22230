"""Training answers of an upstream, whichever flavour, as one thing.

A protobuf answer holds each field of all datums as one block with byte offsets; JSON holds one
object per datum. Both become one record per datum here, and numbers become Python's: a float32 or
bfloat16 as the double that equals it, int32 as an integer of the public dtype int64.

The numbers of a JSON answer stay the text they came as: callers get them in JSON again, and reading
and writing them would cost five times what cutting the text does. Only a loss that is computed from
them reads them. A JSON `null` among the numbers is how a NaN was written, and is read as one.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.blocks import counts_of, offsets_of, read_message
from tinkex_proxy.wire.forms import Dtype
from tinkex_proxy.wire.packing import unpack, unpack_bfloat16

__all__ = ["Output", "Record", "TensorOut", "decode_output", "is_protobuf", "loss_sum_of"]


class TensorOut(msgspec.Struct, frozen=True):
    """Numbers of one datum."""

    data: Annotated[list[float] | msgspec.Raw, Meta(description="Row by row; null is not a number")]
    dtype: Annotated[str, Meta(description="float32 or int64", examples=["float32"])] = "float32"
    shape: Annotated[list[int] | None, Meta(examples=[[3]])] = None

    def values(self) -> list[float]:
        """The numbers, of which JSON is read first.

        Raises:
            UpstreamFault: one is beyond what a double holds.
        """
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
_SPACE: Final = b" \t\r\n"
# What numbers, nulls and the space around them are written in. Letters of `true` and `false`, the
# quotes of a text and the brackets of anything nested are left when these are gone.
_OF_NUMBERS: Final = b"0123456789+-.eEnul" + _SPACE


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
    values = numbers(packed)
    trailing = list(field.trailing_shape)
    per_row = math.prod(trailing)
    for start, end in pairwise(offsets_of(field, datums, packed)):
        data = values[start // size : end // size]
        rows = len(data) // per_row if per_row else 0
        yield TensorOut(data, dtype, [rows, *trailing])
